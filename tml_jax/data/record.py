"""The conversation record: everything that was said, shown and typed, on one time axis.

Time is in seconds from the start of the conversation, on both sides: what the model says at 3.0 s is heard at 3.0 s.
A stream that is absent (`user_audio` None, no frames, …) was not there at all, which is not the same as silence.
"""

import dataclasses
from typing import Any

import msgpack
import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS

USER, MODEL, BACKGROUND = "user", "model", "background"
OTHER = "other"  # somebody in the user's room who does not speak to the model
TASK = "task"
FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Word:
    """A spoken word. `speaker` is USER, MODEL or OTHER (heard on the user's side), `start` and `end` are seconds."""

    speaker: str
    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Text:
    """Text that is not spoken: typed by USER, sent by BACKGROUND, or written by MODEL, at `time` seconds.

    What the model writes is shown, or with `kind` TASK handed to the background (`background/grammar.py` says how tasks
    and their results are written).
    """

    speaker: str
    text: str
    time: float
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Cue:
    """What evaluation needs to know.

    Attributes:
      kind: `respond` (a reply is due from `start`, spoken text `text`), `hold` (the model must not begin to speak
        between `start` and `end`), `yield` (the model must fall silent after `start`, at the latest at `end`), or
        `keep` (the model, speaking at `start`, must still speak until `end`).
      start: seconds.
      end: seconds; for `respond` the end of the reply.
      text: for `respond`, the words due; else "".
    """

    kind: str
    start: float
    end: float
    text: str = ""


@dataclasses.dataclass(frozen=True)
class Conversation:
    """One recorded or generated conversation.

    Attributes:
      id: unique within its source.
      duration: seconds.
      user_audio: (samples,) int16 at 16 kHz, or None.
      model_audio: (samples,) int16 at 24 kHz, or None.
      frames: (frames, rows, columns, 3) uint8; rows and columns are multiples of 40.
      frame_times: (frames,) float64, seconds, rising.
      words: spoken words of all speakers, by start.
      texts: typed, sent, shown and delegated text, by time.
      cues: what is expected of the model, for evaluation.
      gaps: (start, end) seconds of what the model did not get of the user's sound, rising and apart; `user_audio` is
        whole all the same.
      family: kind of scene, such as `pause` or `recording`.
      meta: free facts (voice, wording, seed, source file), JSON types only.
    """

    id: str
    duration: float
    user_audio: np.ndarray | None = None
    model_audio: np.ndarray | None = None
    frames: np.ndarray | None = None
    frame_times: np.ndarray | None = None
    words: tuple[Word, ...] = ()
    texts: tuple[Text, ...] = ()
    cues: tuple[Cue, ...] = ()
    gaps: tuple[tuple[float, float], ...] = ()
    family: str = "recording"
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise ValueError(f"conversation {self.id!r}, {field}: {rule}")

        check(np.isfinite(self.duration) and self.duration > 0, "duration", f"{self.duration} must be above 0 s")
        for field in ("user_audio", "model_audio"):
            audio = getattr(self, field)
            check(audio is None or (audio.ndim == 1 and audio.dtype == np.int16), field, "must be (samples,) int16")
        check((self.frames is None) == (self.frame_times is None), "frames", "go together with frame_times")
        if self.frames is not None:
            shape, times = self.frames.shape, self.frame_times
            check(len(shape) == 4 and shape[3] == 3 and self.frames.dtype == np.uint8, "frames", f"bad shape {shape}")
            check(shape[1] % 40 == 0 and shape[2] % 40 == 0, "frames", f"{shape}: rows and columns in multiples of 40")
            check(times.shape == shape[:1] and bool(np.all(np.diff(times) > 0)), "frame_times", "one a frame, rising")
        edges = np.ravel(self.gaps)
        check(edges.size % 2 == 0 and bool(np.all(np.diff(edges) > 0)), "gaps", "(start, end) each, rising and apart")
        for word in self.words:
            known = word.speaker in (USER, MODEL, OTHER)
            check(known, "words", f"{word}: speaker must be {USER}, {MODEL} or {OTHER}")
            check(0 <= word.start <= word.end, "words", f"{word}: must start at 0 or later and end after its start")
        for text in self.texts:
            check(text.speaker in (USER, MODEL, BACKGROUND), "texts", f"{text}: unknown speaker")
            known = text.kind == "" or (text.kind == TASK and text.speaker == MODEL)
            check(known, "texts", f"{text}: kind must be empty, or {TASK} of {MODEL}")

    @property
    def micro_turns(self) -> int:
        """Number of 200 ms micro-turns, the last one filled up with silence."""
        return max(1, int(np.ceil(round(self.duration / MICRO_TURN_SECONDS, 6))))


def to_bytes(conversation: Conversation) -> bytes:
    """Serialises a record with msgpack (field names as in `Conversation`, audio as little-endian PCM16)."""
    fields = {field.name: getattr(conversation, field.name) for field in dataclasses.fields(conversation)}
    for name in ("words", "texts", "cues"):
        fields[name] = [dataclasses.astuple(item) for item in fields[name]]
    for name in ("user_audio", "model_audio"):
        fields[name] = None if fields[name] is None else fields[name].astype("<i2").tobytes()
    if conversation.frames is not None:
        fields["frames"] = [list(conversation.frames.shape), conversation.frames.tobytes()]
        fields["frame_times"] = [float(time) for time in conversation.frame_times]
    return msgpack.packb({"format": FORMAT, **fields})


def from_bytes(data: bytes) -> Conversation:
    """The inverse of `to_bytes`.

    Raises:
      ValueError: the bytes are not a record of this format, or the record breaks a rule.
    """
    try:
        fields = msgpack.unpackb(data)
        version = fields.pop("format")
    except (ValueError, KeyError, AttributeError, msgpack.UnpackException) as error:
        raise ValueError(f"not a conversation record ({len(data)} bytes): {error!r}") from error
    if version != FORMAT:
        raise ValueError(f"conversation record of format {version}, expected {FORMAT}: prepare the data again")
    for name, kind in (("words", Word), ("texts", Text), ("cues", Cue)):
        fields[name] = tuple(kind(*item) for item in fields[name])
    fields["gaps"] = tuple((start, end) for start, end in fields.get("gaps", ()))  # older records have none
    for name in ("user_audio", "model_audio"):
        fields[name] = None if fields[name] is None else np.frombuffer(fields[name], "<i2")
    if fields["frames"] is not None:
        shape, pixels = fields["frames"]
        fields["frames"] = np.frombuffer(pixels, np.uint8).reshape(shape)
        fields["frame_times"] = np.asarray(fields["frame_times"], np.float64)
    return Conversation(**fields)
