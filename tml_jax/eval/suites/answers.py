"""What a model answers to the items of a suite, as files: its sound on the user's clock, and the words in it."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE, PATCH
from tml_jax.data.record import Conversation
from tml_jax.eval.conversation import conversation_sound
from tml_jax.eval.recognition import HeardWord
from tml_jax.eval.streaming import TOGETHER, stream
from tml_jax.eval.suites.items import Item, conversation_of
from tml_jax.eval.suites.mock_tools import ToolDesk
from tml_jax.eval.suites.transcripts import Chunk, SuiteError, read_transcript, transcript_of, write_transcript
from tml_jax.eval.timeline import draw_timeline
from tml_jax.serve.session import Talker
from tml_jax.serve.words import MicroTurn
from tml_jax.signal.media import read_audio, write_wav
from tml_jax.signal.pcm import float_audio

AT_ONCE = TOGETHER  # items decoded and streamed before their answers are written: bounds the memory
LONGEST_WORD = 0.6  # seconds, of a word whose end nothing tells
Listener = Callable[[np.ndarray, int], list[HeardWord]]  # (n,) float32 and its rate to words


def answer(
    talker: Talker,
    items: Sequence[Item],
    answers: pathlib.Path,
    listen: Listener | None,
    log: Callable[[str], None] = print,
    desk: Callable[[Item], ToolDesk] | None = None,
) -> None:
    """Streams items through a model and writes `TASK/ID/output.wav`, `output.json`, and a picture of each task's first.

    Args:
      talker: the model, as it serves.
      items: of a suite. Those that have an `output.json`, which is written last, are not answered again.
      answers: folder to write to.
      listen: whose words count; None for the model's own, which are text beside its sound.
      log: where progress goes.
      desk: of an item that has tools; their calls go to `calls.json`. None for none.

    Raises:
      MediaError: an item's file is missing or damaged.
      SuiteError: two items have the same task, id and prefix.
    """
    places = [(item.task, item.id, item.prefix) for item in items]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise SuiteError(f"two items are called {'/'.join(filter(None, twice))}")
    items = [item for item in items if not _words_path(item, answers).exists()]
    rows, columns = (cells * size for cells, size in zip(talker.config.data.video_grid, PATCH[1:3]))
    drawn: set[str] = set()
    for start in range(0, len(items), AT_ONCE):
        group = items[start : start + AT_ONCE]
        conversations = [conversation_of(item, rows, columns) for item in group]
        desks = None if desk is None else [desk(item) for item in group]
        streamed = stream(talker, conversations, desks and [each.desk for each in desks])
        for number, (item, conversation, turns) in enumerate(zip(group, conversations, streamed)):
            folder = answers / item.task / item.id
            folder.mkdir(parents=True, exist_ok=True)
            write_wav(folder / f"{item.prefix}output.wav", conversation_sound(None, turns)[1:], OUTPUT_RATE)
            if desks is not None:
                (folder / f"{item.prefix}calls.json").write_text(json.dumps(desks[number].tools.calls, indent=1))
            _write_words(folder, item, conversation, turns, listen)
            if item.task not in drawn and not list(folder.parent.glob("*/timeline.png")):
                _draw(folder / "timeline.png", item, conversation, turns)
            drawn.add(item.task)
        log(f"{min(start + AT_ONCE, len(items))} of {len(items)} items answered")


def hear(items: Sequence[Item], answers: pathlib.Path, listen: Listener, name: str) -> int:
    """Recognises what has a sound and no words yet: answers of another model, and users whose words a judge needs.

    Args:
      items: of a suite.
      answers: folder with `TASK/ID/output.wav`.
      listen: whose words count.
      name: its name, which is kept beside its words: those of another are recognised anew.

    Returns:
      How many answers have words that were not recognised here.
    """
    given = 0
    for item in items:
        words = _words_path(item, answers)
        sound = words.with_suffix(".wav")
        heard_by = read_transcript(words).heard_by if words.exists() else None
        given += heard_by == ""
        if sound.exists() and heard_by not in ("", name):
            samples = read_audio(sound, INPUT_RATE, channels=1)[0]
            found = transcript_of(_heard(samples, INPUT_RATE, listen, item.heard_from))
            write_transcript(words, dataclasses.replace(found, heard_by=name))
        heard = words.with_name(f"{item.prefix}input.json")
        if item.hear_user and sound.exists() and not heard.exists():
            samples = read_audio(item.clips[0].sound, INPUT_RATE, channels=1)[0]
            write_transcript(heard, transcript_of(_heard(samples, INPUT_RATE, listen, 0.0)))
    return given


def own_words(turns: Sequence[MicroTurn]) -> list[Chunk]:
    """The model's text word by word, at the times its sound is heard, which are known to a micro-turn.

    Words of one micro-turn share its 200 ms evenly; each ends where the next begins, at most 0.6 s later.
    """
    starts: list[tuple[str, float]] = []
    for turn in turns:
        pieces = turn.text.split()
        heard = turn.start + MICRO_TURN_SECONDS
        if pieces and starts and not turn.text[0].isspace():  # goes on with the word before
            starts[-1] = starts[-1][0] + pieces.pop(0), starts[-1][1]
        starts += [(piece, heard + MICRO_TURN_SECONDS * i / len(pieces)) for i, piece in enumerate(pieces)]
    following = [*(start for _, start in starts[1:]), np.inf]
    return [
        Chunk(text, round(start, 3), round(min(after, start + LONGEST_WORD), 3))
        for (text, start), after in zip(starts, following)
    ]


def _write_words(
    folder: pathlib.Path, item: Item, conversation: Conversation, turns: Sequence[MicroTurn], listen: Listener | None
) -> None:
    own = own_words(turns)
    said, shown = " ".join(chunk.text for chunk in own), "".join(turn.display for turn in turns).strip()
    if listen is None:
        chunks = [chunk for chunk in own if chunk.start >= item.heard_from]
    elif any(turn.gate == "SPEAK" for turn in turns):
        chunks = _heard(conversation_sound(None, turns)[1], OUTPUT_RATE, listen, item.heard_from)
    else:
        chunks = []
    transcript = transcript_of(chunks, said, shown, conversation.meta["clip_ends"])
    write_transcript(folder / f"{item.prefix}output.json", transcript)


def _words_path(item: Item, answers: pathlib.Path) -> pathlib.Path:
    return answers / item.task / item.id / f"{item.prefix}output.json"


def _heard(samples: np.ndarray, rate: int, listen: Listener, start: float) -> list[Chunk]:
    """What is recognised from `start` seconds on, at times of the whole recording."""
    words = listen(samples[int(start * rate) :], rate)
    return [Chunk(word.text, round(word.start + start, 3), round(word.end + start, 3)) for word in words]


def _draw(path: pathlib.Path, item: Item, conversation: Conversation, turns: Sequence[MicroTurn]) -> None:
    audio = None if conversation.user_audio is None else float_audio(conversation.user_audio)
    frames = [] if conversation.frames is None else list(zip(conversation.frame_times.tolist(), conversation.frames))
    draw_timeline(path, turns, audio, frames, item.texts, title=f"{item.task} {item.id}")
