"""The context package: the whole conversation as a chat with sound and pictures, and the task that came up in it.

It is the same for every backend, is plain JSON (`to_json`), and its parts are those of the OpenAI chat protocol, so
that `messages` is what such a model is given. Everything has its time. What the configuration withholds is replaced by
a line that says so; what did not fit the budget is mentioned, too.
"""

import base64
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tml_jax.background.history import Frame, History, Note, Sound
from tml_jax.background.tasks import Task
from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.signal.media import write_wav
from tml_jax.signal.pcm import float_audio

FORMAT = 1
Part = dict[str, Any]

INSTRUCTIONS = (
    "You work in the background of a live conversation between a user and an assistant that speaks. The conversation "
    "so far follows, with the seconds at which things were said. The assistant has handed you a task. Answer with what "
    "it needs to know and nothing else, in one or two short sentences of plain text that can be said aloud: no "
    "markup, no greeting, no question back. If you cannot find it out, say so in a few words."
)


@dataclasses.dataclass(frozen=True)
class Privacy:
    """What of a conversation may leave it.

    Attributes:
      audio: sound of both sides.
      frames: what the camera saw.
      typed: what the user typed.
      redact: patterns; what they match in any text becomes `[redacted]`. They do not reach sound and pictures.
    """

    audio: bool = True
    frames: bool = True
    typed: bool = True
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.redact:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"redact: {pattern!r} is no regular expression: {error}") from error

    def text(self, text: str) -> str:
        """`text` as it may be shown."""
        for pattern in self.redact:
            text = re.sub(pattern, "[redacted]", text)
        return text


@dataclasses.dataclass(frozen=True)
class Turn:
    """One contribution to the conversation.

    Attributes:
      speaker: user, assistant or background.
      start: seconds.
      end: seconds.
      parts: content parts of the OpenAI chat protocol: `text`, `input_audio` (WAV), `image_url` (PNG).
    """

    speaker: str
    start: float
    end: float
    parts: tuple[Part, ...]


@dataclasses.dataclass(frozen=True)
class Package:
    """A task and its conversation.

    Attributes:
      number: of the task.
      revision: of the task.
      requests: what the model asked for, first to last; the last counts.
      seconds: within which the answer is of use.
      turns: the conversation, by start.
      complete: whether nothing of it has been left out.
    """

    number: int
    revision: int
    requests: tuple[str, ...]
    seconds: float
    turns: tuple[Turn, ...] = ()
    complete: bool = True

    @property
    def request(self) -> str:
        """All of what is asked for, in one line."""
        return "; ".join(self.requests)


def package(history: History, task: Task, privacy: Privacy) -> Package:
    """Packs a task and its conversation.

    Args:
      history: the conversation, which has the budget.
      task: what is to be done.
      privacy: what may leave.

    Returns:
      The package.
    """
    turns = [
        *(_heard(run, privacy) for run in _runs(history.heard)),
        *_said(history.said, [note for note in history.notes if note.kind == "said"], privacy),
        *(_note(note, privacy) for note in history.notes if note.kind != "said"),
        *(_frame(frame) for frame in history.frames if privacy.frames),
    ]
    whole = not history.forgotten and privacy == Privacy()
    requests = tuple(privacy.text(text) for text in task.requests)
    seconds = round((task.deadline - task.asked) * MICRO_TURN_SECONDS, 6)
    by_start = tuple(sorted(turns, key=lambda turn: turn.start))
    return Package(task.number, task.revision, requests, seconds, by_start, whole)


def to_json(packed: Package) -> str:
    """The package as JSON text."""
    return json.dumps({"format": FORMAT, **dataclasses.asdict(packed)})


def from_json(text: str) -> Package:
    """The inverse of `to_json`.

    Raises:
      ValueError: it is no package of this format.
    """
    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        turns = tuple(Turn(**{**turn, "parts": tuple(turn["parts"])}) for turn in fields.pop("turns"))
        return Package(**{**fields, "requests": tuple(fields["requests"])}, turns=turns)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a context package: {error!r}") from error


def messages(packed: Package) -> list[dict[str, Any]]:
    """The package as messages of the OpenAI chat protocol.

    Only a user's message may hold sound and pictures there, so the whole conversation stands in messages of the user,
    each contribution under a line that says whose it is and when.
    """
    told: list[Part] = [] if packed.complete else [_text("[Parts of the conversation are not shown.]")]
    for turn in packed.turns:
        told += [_text(f"[{turn.speaker}, {turn.start:.1f} to {turn.end:.1f} s]"), *turn.parts]
    asked = [_text(f"[task, within {packed.seconds:g} s] {packed.requests[0]}")]
    asked += [_text(f"[changed to] {text}") for text in packed.requests[1:]]
    return [{"role": "system", "content": INSTRUCTIONS}, {"role": "user", "content": [*told, *asked]}]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}


def _runs(sounds: Iterable[Sound]) -> list[list[Sound]]:
    """Sounds of micro-turns that follow one another."""
    runs: list[list[Sound]] = []
    for sound in sounds:
        if runs and sound.micro_turn == runs[-1][-1].micro_turn + 1:
            runs[-1].append(sound)
        else:
            runs.append([sound])
    return runs


def _seconds(micro_turn: int) -> float:
    return round(micro_turn * MICRO_TURN_SECONDS, 6)


def _heard(run: Sequence[Sound], privacy: Privacy) -> Turn:
    start, end = _seconds(run[0].micro_turn), _seconds(run[-1].micro_turn + 1)
    return Turn("user", start, end, (_audio(run, INPUT_RATE) if privacy.audio else _text("(speaks)"),))


def _said(sounds: Sequence[Sound], words: Sequence[Note], privacy: Privacy) -> list[Turn]:
    """The model's sound with its words; what micro-turn t puts out is heard in window t + 1."""
    turns, left = [], list(words)
    for run in _runs(sounds):
        first, last = run[0].micro_turn, run[-1].micro_turn
        inside = [note for note in left if first <= note.micro_turn <= last]
        left = [note for note in left if note not in inside]
        text = privacy.text("".join(note.text for note in inside).strip())
        parts = [_text(text)] if text else []
        parts += [_audio(run, OUTPUT_RATE)] if privacy.audio else []
        turns.append(Turn("assistant", _seconds(first + 1), _seconds(last + 2), tuple(parts or [_text("(speaks)")])))
    for note in left:  # its sound has been forgotten, or there was none
        start = _seconds(note.micro_turn + 1)
        turns.append(Turn("assistant", start, start, (_text(privacy.text(note.text.strip())),)))
    return turns


_NOTES = {
    "typed": ("user", "(typed) "),
    "shown": ("assistant", "(shown) "),
    "asked": ("assistant", "(to the background) "),
    "result": ("background", ""),
}


def _note(note: Note, privacy: Privacy) -> Turn:
    speaker, how = _NOTES[note.kind]
    text = privacy.text(note.text.strip()) if privacy.typed or note.kind != "typed" else "[withheld]"
    at = _seconds(note.micro_turn + (speaker == "assistant"))  # what is put out is heard and seen in the next window
    return Turn(speaker, at, at, (_text(how + text),))


def _frame(frame: Frame) -> Turn:
    file = io.BytesIO()
    Image.fromarray(frame.pixels).save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    at = _seconds(frame.micro_turn)
    return Turn("user", at, at, ({"type": "image_url", "image_url": {"url": url}},))


def _audio(run: Sequence[Sound], rate: int) -> Part:
    file = io.BytesIO()
    write_wav(file, float_audio(np.concatenate([sound.samples for sound in run]))[None], rate)
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file.getvalue()).decode(), "format": "wav"}}
