"""What a session remembers of its conversation for the background, in bounded memory. Cheap enough for every tick."""

import dataclasses

import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.data.layout import OUTPUT_SAMPLES
from tml_jax.data.record import USER, Text
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn
from tml_jax.signal.pcm import pcm16

QUIET = 0.01  # root mean square of 20 ms below which nobody speaks
MARGIN = 1000  # characters kept beyond the budget, so that a pattern finds whole what the budget cuts
CHANGED = 8.0  # mean difference of pixels, 0 to 255, from which on a frame shows something new


@dataclasses.dataclass(frozen=True)
class Budget:
    """What of a conversation is kept, and goes to the background: the newest, up to

    Attributes:
      audio: seconds of sound of each side; silence is not counted.
      frames: frames.
      characters: of all text, before anything in it is replaced. What is asked for comes on top of it.
    """

    audio: float = 60.0
    frames: int = 8
    characters: int = 8000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not 0 <= getattr(self, field.name) < float("inf"):
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: expected a number from 0 on")


@dataclasses.dataclass(frozen=True)
class Sound:
    """200 ms in which somebody was heard: (n,) int16, 16 kHz of the user, 24 kHz of the model."""

    micro_turn: int
    samples: np.ndarray


@dataclasses.dataclass(frozen=True)
class Note:
    """Something written or said: `kind` is typed, said, shown, asked or result."""

    micro_turn: int
    kind: str
    text: str


@dataclasses.dataclass(frozen=True)
class Frame:
    """What was seen, (rows, columns, 3) uint8."""

    micro_turn: int
    pixels: np.ndarray


@dataclasses.dataclass(frozen=True)
class History:
    """The conversation so far, newest last. Never changed, so that it can be handed to another thread as it is.

    Attributes:
      budget: what is kept.
      micro_turns: how long it is.
      heard: sound of the user.
      said: sound of the model.
      notes: text of all sides.
      frames: frames that differ from the one before.
      forgotten: whether anything has been left out.
    """

    budget: Budget = Budget()
    micro_turns: int = 0
    heard: tuple[Sound, ...] = ()
    said: tuple[Sound, ...] = ()
    notes: tuple[Note, ...] = ()
    frames: tuple[Frame, ...] = ()
    forgotten: bool = False


def heard(history: History, arrived: Arrived, results: tuple[Text, ...] = ()) -> History:
    """Remembers what came in, in micro-turn `history.micro_turns`.

    Args:
      history: so far.
      arrived: what came.
      results: of the background, given to the model now.

    Returns:
      The history with it.
    """
    now, seconds = history.micro_turns, history.budget.audio
    if arrived.audio is not None and _anybody(arrived.audio, history.heard, now):
        history = _kept(history, "heard", Sound(now, pcm16(arrived.audio)), round(seconds / MICRO_TURN_SECONDS))
    for _, pixels in arrived.frames:
        if not history.frames or _differs(history.frames[-1].pixels, pixels):
            history = _kept(history, "frames", Frame(now, pixels), history.budget.frames)
    notes = [Note(now, "typed" if text.speaker == USER else "result", text.text) for text in arrived.texts]
    return noted(history, (*notes, *(Note(now, "result", text.text) for text in results)))


def spoken(history: History, turn: MicroTurn) -> History:
    """Remembers what the model put out, and goes on to the next micro-turn."""
    now = history.micro_turns
    if turn.gate == "SPEAK":
        most = round(history.budget.audio / MICRO_TURN_SECONDS)
        history = _kept(history, "said", Sound(now, pcm16(turn.samples)), most)
    said = [Note(now, kind, text) for kind, text in (("said", turn.text), ("shown", turn.display)) if text]
    return dataclasses.replace(noted(history, tuple(said)), micro_turns=now + 1)


def unheard(history: History, micro_turn: int, samples: int) -> History:
    """Forgets what of the model's sound did not reach the user, and its words where less than half of it did.

    Args:
      history: the conversation.
      micro_turn: that said it.
      samples: of its sound that were heard.

    Returns:
      The history without the rest.
    """
    said = [
        dataclasses.replace(sound, samples=sound.samples[:samples]) if sound.micro_turn == micro_turn else sound
        for sound in history.said
        if samples or sound.micro_turn != micro_turn
    ]
    lost = "said" if 2 * samples < OUTPUT_SAMPLES else ""
    notes = tuple(note for note in history.notes if (note.micro_turn, note.kind) != (micro_turn, lost))
    return dataclasses.replace(history, said=tuple(said), notes=notes)


def noted(history: History, notes: tuple[Note, ...]) -> History:
    """Remembers text: of each kind the newest `budget.characters`, and `MARGIN` more."""
    kept = (*history.notes, *(note for note in notes if note.text))
    most, whole = history.budget.characters + MARGIN, True
    for kind in {note.kind for note in notes}:
        kept, uncut = newest(kept, most, kind)
        whole = whole and uncut
    return dataclasses.replace(history, notes=kept, forgotten=history.forgotten or not whole)


def newest(notes: tuple[Note, ...], most: int, kind: str = "") -> tuple[tuple[Note, ...], bool]:
    """Cuts text from its beginning on.

    Args:
      notes: by time.
      most: characters that stay.
      kind: which alone is counted and cut; "" for all.

    Returns:
      What stays, and whether that is everything.
    """
    over = sum(len(note.text) for note in notes if kind in ("", note.kind)) - most
    if over <= 0:
        return notes, True
    kept = []
    for note in notes:
        if over > 0 and kind in ("", note.kind):
            note, over = dataclasses.replace(note, text=note.text[over:]), over - len(note.text)
        if note.text:
            kept.append(note)
    return tuple(kept), False


def _kept(history: History, field: str, item: Sound | Frame, most: int) -> History:
    items = (*getattr(history, field), item)
    kept = items[max(0, len(items) - most) :]
    return dataclasses.replace(history, **{field: kept}, forgotten=history.forgotten or len(kept) < len(items))


def _anybody(samples: np.ndarray, before: tuple[Sound, ...], now: int) -> bool:
    """Whether somebody is heard in a window, or was in the one before, so that no word loses its end."""
    return loud(samples) or (bool(before) and before[-1].micro_turn == now - 1 and loud(before[-1].samples / 32768))


def loud(samples: np.ndarray) -> bool:
    """Whether any 20 ms of sound at 16 kHz are louder than silence."""
    parts = np.asarray(samples, np.float32).reshape(-1, INPUT_RATE // 50)
    return bool(np.any(np.mean(np.square(parts), axis=1) > QUIET**2))


def _differs(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape != other.shape or float(np.mean(np.abs(one.astype(np.int16) - other))) >= CHANGED
