"""A conversation on disk: both sides as one stereo file, what the model did at each micro-turn, and a picture."""

import json
import os
import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tml_jax.config import INPUT_RATE, OUTPUT_RATE
from tml_jax.data.layout import INPUT_SAMPLES, OUTPUT_SAMPLES, fit_samples
from tml_jax.data.record import BACKGROUND, MODEL, Conversation, Cue, Text, Word
from tml_jax.eval.timeline import draw_timeline
from tml_jax.signal.media import resample, write_wav

if TYPE_CHECKING:
    from tml_jax.serve.words import MicroTurn

FILES = ("conversation.wav", "micro_turns.jsonl", "timeline.png")


def conversation_sound(user_audio: np.ndarray | None, micro_turns: Sequence["MicroTurn"]) -> np.ndarray:
    """Both sides on one clock: what a bystander would have recorded.

    Args:
      user_audio: (n,) float32 at 16 kHz, at most 3,200 samples a micro-turn; None for silence.
      micro_turns: what the model put out, from micro-turn 0 on.

    Returns:
      (2, 4800 × micro-turns) float32 at 24 kHz, user first. The sound of micro-turn i lies in window i + 1; that of the
      last one would be heard after the end and is not there.

    Raises:
      ValueError: no micro-turns, micro-turns out of order, or audio of the wrong shape, type or length.
    """
    if not micro_turns or [turn.index for turn in micro_turns] != list(range(len(micro_turns))):
        raise ValueError(f"got {len(micro_turns)} micro-turns: expected at least one, numbered in order from 0")
    sound = np.zeros((2, OUTPUT_SAMPLES * len(micro_turns)), np.float32)
    if user_audio is not None:
        longest = INPUT_SAMPLES * len(micro_turns)
        if user_audio.ndim != 1 or user_audio.dtype != np.float32 or len(user_audio) > longest:
            raise ValueError(
                f"user_audio is {user_audio.dtype} of shape {user_audio.shape}: expected float32 (n,) at {INPUT_RATE} "
                f"Hz with at most {longest} samples for {len(micro_turns)} micro-turns"
            )
        heard = resample(user_audio[None], INPUT_RATE, OUTPUT_RATE)[0, : sound.shape[1]]
        sound[0, : len(heard)] = heard
    for turn in micro_turns[:-1]:
        start = OUTPUT_SAMPLES * (turn.index + 1)
        sound[1, start : start + OUTPUT_SAMPLES] = turn.samples
    return sound


def write_conversation(
    output_dir: str | pathlib.Path,
    user_audio: np.ndarray | None,
    micro_turns: Sequence["MicroTurn"],
    frames: Sequence[tuple[float, np.ndarray]] = (),
    texts: Sequence[Text] = (),
    cues: Sequence[Cue] = (),
    words: Sequence[Word] = (),
) -> list[pathlib.Path]:
    """Writes conversation.wav, micro_turns.jsonl and timeline.png.

    A new folder appears complete or not at all. In a folder that holds an earlier conversation, each file is replaced
    whole, once all are written.

    Args:
      output_dir: folder to write; its parents are made.
      user_audio: (n,) float32 at 16 kHz, or None.
      micro_turns: what the model put out, from micro-turn 0 on.
      frames: (seconds, (rows, columns, 3) uint8), for the picture.
      texts: for the picture.
      cues: for the picture.
      words: the user's words, for the picture.

    Returns:
      The files written: stereo PCM16 at 24 kHz (user left, model right, see `conversation_sound`); one JSON object a
      micro-turn with `index`, `start` (seconds), `gate`, `text`, `display`, `compute_seconds`, `asked`
      (tasks for the background) and `read` (their results); the picture.

    Raises:
      FileExistsError: the folder holds something else, or is a file.
      ValueError: see `conversation_sound`.
    """
    folder = pathlib.Path(output_dir)
    check_output(folder)
    sound = conversation_sound(user_audio, micro_turns)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Inside an existing folder, so that its files can be renamed into place even where it is a mount of its own.
    beside = folder if folder.exists() else folder.parent
    with tempfile.TemporaryDirectory(prefix=".conversation-", dir=beside) as temporary:
        written = pathlib.Path(temporary) / "complete"
        written.mkdir()
        write_wav(written / FILES[0], sound, OUTPUT_RATE)
        fields = ("index", "start", "gate", "text", "display", "compute_seconds")
        tasks = lambda turn: {"asked": [span.text for span in turn.spans], "read": turn.given}  # noqa: E731
        told = [{name: getattr(turn, name) for name in fields} | tasks(turn) for turn in micro_turns]
        lines = [json.dumps(line, ensure_ascii=False) for line in told]
        (written / FILES[1]).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        draw_timeline(written / FILES[2], micro_turns, user_audio, frames, texts, cues, words)
        if folder.exists():
            for name in FILES:
                os.replace(written / name, folder / name)
        else:
            os.rename(written, folder)
    return [folder / name for name in FILES]


def write_example(
    output_dir: str | pathlib.Path, conversation: Conversation, micro_turns: Sequence["MicroTurn"], desk: bool = False
) -> None:
    """Writes what a model did in a recorded conversation, beside what its record expects; see `write_conversation`.

    With `desk`, results came from the session's desk, and those of the record were not read.
    """
    unread = (MODEL, BACKGROUND) if desk else (MODEL,)
    audio = np.zeros(0, np.int16) if conversation.user_audio is None else conversation.user_audio
    frames = [] if conversation.frames is None else list(zip(conversation.frame_times.tolist(), conversation.frames))
    write_conversation(
        output_dir,
        fit_samples(audio, conversation.micro_turns * INPUT_SAMPLES),
        micro_turns,
        frames,
        [text for text in conversation.texts if text.speaker not in unread],
        conversation.cues,
        [word for word in conversation.words if word.speaker != MODEL],
    )


def check_output(output_dir: str | pathlib.Path) -> None:
    """Makes sure that a conversation may be written to a folder.

    Raises:
      FileExistsError: it holds something other than a conversation, or is a file.
      PermissionError: it cannot be written where it would be.
    """
    folder = pathlib.Path(output_dir)
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise FileExistsError(f"{there} is a file: give a folder for the conversation")
    try:
        tempfile.TemporaryDirectory(prefix=".conversation-", dir=there).cleanup()
    except OSError as error:
        raise PermissionError(f"{folder} cannot be written ({error.strerror}): choose another folder") from error
    if not folder.exists():
        return
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in FILES)
    if others:
        raise FileExistsError(f"{folder} holds other files ({', '.join(others[:3])}): give a new or an empty folder")
