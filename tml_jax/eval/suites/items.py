"""What a suite gives to the model, and what its scorer gets: items in, folders with sound and words out."""

import dataclasses
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.data.record import Conversation, Text
from tml_jax.eval.suites.judge import Judge
from tml_jax.eval.suites.transcripts import SuiteError, Transcript, read_transcript
from tml_jax.signal.media import read_audio, read_video
from tml_jax.signal.pcm import pcm16


@dataclasses.dataclass(frozen=True)
class Clip:
    """Sound of the user: a file, or its bytes, and the seconds of silence after it."""

    sound: pathlib.Path | bytes
    pause: float = 0.0


@dataclasses.dataclass(frozen=True)
class Item:
    """One case of a suite.

    Attributes:
      id: unique within its task; a name for a folder.
      task: of the suite; a name for a folder.
      clips: the user's sound, one after the other; () where there is no microphone.
      video: film of what the user shows, from the start.
      texts: typed text, by time.
      seconds: least length.
      tail: seconds after all input, for the model to finish. 0 keeps the answer as long as the sound, as benchmarks of
        timing want it.
      heard_from: seconds; the recogniser gets the model's sound from here on.
      prefix: of the names of its answer's files; more than one item may then share an id.
      hear_user: a judge needs the user's words, too: the recogniser writes them beside the answer, to `input.json`.
      facts: what the scorer needs to know, JSON types.
    """

    id: str
    task: str
    clips: tuple[Clip, ...] = ()
    video: pathlib.Path | None = None
    texts: tuple[Text, ...] = ()
    seconds: float = 0.0
    tail: float = 0.0
    heard_from: float = 0.0
    prefix: str = ""
    hear_user: bool = False
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.id, self.task):
            if name in ("", ".", "..") or "/" in name or "\\" in name:
                raise SuiteError(f"item {name!r}: expected a plain name, which its folder of answers can have")


@dataclasses.dataclass(frozen=True)
class Scoring:
    """What a scorer works on.

    Attributes:
      data: folder of the benchmark.
      answers: folder with `TASK/ID/output.wav` and `output.json`.
      strict: the published evaluators' faults are mended; else numbers are theirs.
      judge: language model that judges, or None: what needs one is left out, with a note.
      items: what was answered.
    """

    data: pathlib.Path
    answers: pathlib.Path
    strict: bool = False
    judge: Judge | None = None
    items: tuple[Item, ...] = ()

    def needed_judge(self, suite: str) -> Judge:
        """The judge of a suite that is scored by nothing else.

        Raises:
          SuiteError: there is none.
        """
        if self.judge is None:
            raise SuiteError(f"{suite} is scored by a judge alone: give --judge_model")
        return self.judge

    def transcript(self, item: Item) -> Transcript:
        """The words of the answer to an item."""
        return read_transcript(self.answers / item.task / item.id / f"{item.prefix}output.json")


def conversation_of(item: Item, rows: int, columns: int) -> Conversation:
    """Decodes an item into the record that the model is streamed through.

    Args:
      item: what to decode.
      rows: of the frames, in pixels.
      columns: of the frames, in pixels.

    Returns:
      A record with the user's side alone; `meta["clip_ends"]` has the seconds at which each clip ends.

    Raises:
      MediaError: a file is missing or damaged.
    """
    audio, clip_ends, times, frames = None, [], [], []
    if item.clips:
        audio = np.zeros(0, np.float32)
        for clip in item.clips:
            audio = np.concatenate([audio, _sound(clip.sound)])
            clip_ends.append(round(len(audio) / INPUT_RATE, 3))
            audio = np.pad(audio, (0, round(clip.pause * INPUT_RATE)))
    if item.video is not None:
        for time, frame in read_video(item.video, rows, columns):
            times.append(time)
            frames.append(frame)
    ends = [item.seconds, *times, *(text.time for text in item.texts)]
    ends += [] if audio is None else [len(audio) / INPUT_RATE]
    return Conversation(
        id=f"{item.task}/{item.id}",
        duration=max(MICRO_TURN_SECONDS, max(ends) + item.tail),
        user_audio=None if audio is None else pcm16(audio),
        frames=np.stack(frames) if frames else None,
        frame_times=np.asarray(times) if frames else None,
        texts=item.texts,
        meta={"clip_ends": clip_ends},
    )


def _sound(sound: pathlib.Path | bytes) -> np.ndarray:
    if isinstance(sound, pathlib.Path):
        return read_audio(sound, INPUT_RATE, channels=1)[0]
    with tempfile.NamedTemporaryFile(prefix="clip-") as file:  # damage is told by looking into the file once more
        file.write(sound)
        file.flush()
        return read_audio(file.name, INPUT_RATE, channels=1)[0]
