"""The context package: the whole conversation as a chat with sound and pictures, and the task that came up in it.

It is the same for every backend, is plain JSON (`to_json`), and its parts are those of the OpenAI chat protocol, so
that `messages` is what such a model is given. Everything has its time. What the configuration withholds is replaced by
a line that says so; what did not fit the budget is mentioned, too.
"""

import base64
import bisect
import dataclasses
import io
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from tml_jax.background.history import Frame, History, Note, Sound, newest
from tml_jax.background.tasks import Task
from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.signal.media import write_wav
from tml_jax.signal.pcm import float_audio

FORMAT = 1
_HIDDEN = "\0"  # in place of each character that a pattern matches, until all is cut
_TAGS = re.compile(r"\s*(?:[#@][0-9]+[.!]?(?:\s+|$))*")  # of a result or a task, not part of what is said
Part = dict[str, Any]
_Item = TypeVar("_Item", Sound, Note)

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
      redact: what these match in any text becomes `[redacted]`, also where it came in pieces, up to
        `history.MARGIN` characters. They do not reach sound and pictures.
    """

    audio: bool = True
    frames: bool = True
    typed: bool = True
    redact: tuple[re.Pattern[str], ...] = ()

    def hidden(self, pieces: Sequence[str]) -> list[str]:
        """Pieces of one and the same text, as long as they were, without what must not be shown.

        What a pattern matches is found in each piece, and across pieces put together, with a space between them or
        none, with the tags that they begin with or without.
        """
        # Whoever writes the mark of what is hidden has hidden nothing by it.
        pieces = [piece.replace(_HIDDEN, "\N{REPLACEMENT CHARACTER}") for piece in pieces]
        if not self.redact or not pieces:
            return pieces
        shown = [list(piece) for piece in pieces]
        whole = [0] * len(pieces)
        for index in range(len(pieces)):
            self._hide(pieces[index : index + 1], whole[:1], "", shown[index : index + 1])
        for begins in (whole, [_TAGS.match(piece).end() for piece in pieces]):
            for between in ("", " "):
                self._hide(pieces, begins, between, shown)
        return ["".join(characters) for characters in shown]

    def _hide(self, pieces: Sequence[str], begins: Sequence[int], between: str, shown: Sequence[list[str]]) -> None:
        """Hides in `shown` what matches in the pieces, each from its place in `begins` on, put together."""
        ends, end = [], 0
        for piece, begin in zip(pieces, begins, strict=True):
            end += len(piece) - begin + len(between)
            ends.append(end)
        joined = between.join(piece[begin:] for piece, begin in zip(pieces, begins, strict=True))
        for match in (match for pattern in self.redact for match in pattern.finditer(joined)):
            at = match.start()
            for index in range(bisect.bisect_right(ends, at), len(pieces)):
                if at >= match.end():
                    break
                first = at - ends[index] + len(between) + len(pieces[index])
                last = min(match.end(), ends[index] - len(between)) - at + first
                shown[index][first:last] = _HIDDEN * max(0, last - first)
                at = ends[index]


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


def package(history: History, task: Task, privacy: Privacy, conversation: bool = True) -> Package:
    """Packs a task and its conversation.

    Args:
      history: the conversation, which has the budget.
      task: what is to be done.
      privacy: what may leave.
      conversation: whether it is of use; it takes its time.

    Returns:
      The package.
    """
    requests = tuple(map(_shown, privacy.hidden(task.requests)))
    seconds = round((task.deadline - task.asked) * MICRO_TURN_SECONDS, 6)
    if not conversation:
        return Package(task.number, task.revision, requests, seconds, complete=False)
    notes, uncut = newest(_hidden(history.notes, privacy), history.budget.characters)
    turns = [
        *(_heard(run, privacy) for run in _runs(history.heard)),
        *_said(history.said, [note for note in notes if note.kind == "said"], privacy),
        *(_note(note, privacy) for note in notes if note.kind != "said"),
        *(_frame(frame) for frame in history.frames if privacy.frames),
    ]
    whole = uncut and not history.forgotten and privacy == Privacy()
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


def _hidden(notes: Sequence[Note], privacy: Privacy) -> tuple[Note, ...]:
    """Notes as long as they were; those of one kind, and of one task's result, are one text."""
    texts: dict[tuple[str, str], list[int]] = {}
    for index, note in enumerate(notes):
        tag = _TAGS.match(note.text)[0].strip(" .!") if note.kind == "result" else ""
        texts.setdefault((note.kind, tag), []).append(index)
    hidden = list(notes)
    for places in texts.values():
        for index, text in zip(places, privacy.hidden([notes[index].text for index in places]), strict=True):
            hidden[index] = dataclasses.replace(notes[index], text=text)
    return tuple(hidden)


def _shown(text: str) -> str:
    return re.sub(f"{_HIDDEN}+", "[redacted]", text)


def _runs(items: Iterable[_Item]) -> list[list[_Item]]:
    """Sounds, or notes, of the same micro-turn and of those that follow one another."""
    runs: list[list[_Item]] = []
    for item in items:
        if runs and item.micro_turn <= runs[-1][-1].micro_turn + 1:
            runs[-1].append(item)
        else:
            runs.append([item])
    return runs


def _seconds(micro_turn: int) -> float:
    return round(micro_turn * MICRO_TURN_SECONDS, 6)


def _heard(run: Sequence[Sound], privacy: Privacy) -> Turn:
    start, end = _seconds(run[0].micro_turn), _seconds(run[-1].micro_turn + 1)
    return Turn("user", start, end, (_audio(run, INPUT_RATE) if privacy.audio else _text("(speaks)"),))


def _said(sounds: Sequence[Sound], words: Sequence[Note], privacy: Privacy) -> list[Turn]:
    """The model's sound with its words; what micro-turn t puts out is heard in window t + 1."""
    heard = {sound.micro_turn for sound in sounds}
    runs, turns = _runs(sounds), []
    starts = [run[0].micro_turn for run in runs]
    texts = [""] * len(runs)
    for note in words:
        if note.micro_turn in heard:
            texts[bisect.bisect_right(starts, note.micro_turn) - 1] += note.text
    for run, text in zip(runs, map(_shown, texts), strict=True):
        parts = [_text(text.strip())] if text.strip() else []
        parts += [_audio(run, OUTPUT_RATE)] if privacy.audio else []
        start, end = _seconds(run[0].micro_turn + 1), _seconds(run[-1].micro_turn + 2)
        turns.append(Turn("assistant", start, end, tuple(parts or [_text("(speaks)")])))
    for run in _runs(note for note in words if note.micro_turn not in heard):  # forgotten sound, or there was none
        start, end = _seconds(run[0].micro_turn + 1), _seconds(run[-1].micro_turn + 1)
        text = _shown("".join(note.text for note in run)).strip()
        turns.append(Turn("assistant", start, end, (_text(text),)))
    return turns


_NOTES = {
    "typed": ("user", "(typed) "),
    "shown": ("assistant", "(shown) "),
    "asked": ("assistant", "(to the background) "),
    "result": ("background", ""),
}


def _note(note: Note, privacy: Privacy) -> Turn:
    speaker, how = _NOTES[note.kind]
    text = _shown(note.text).strip() if privacy.typed or note.kind != "typed" else "[withheld]"
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
