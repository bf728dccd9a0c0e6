"""Real clips behind the drawn objects of generated scenes: any video files of the user's own.

A third of the files is held out: scenes of training and development never have what lies behind those of the others.
"""

import dataclasses
import functools
import itertools
import os
import pathlib

import numpy as np

from tml_jax.data.recordings import ENDINGS
from tml_jax.data.shards import DataError
from tml_jax.scenes.pictures import FRAME_RATE, FRAME_SIZE
from tml_jax.scenes.scripts import HELD_OUT, part_of
from tml_jax.signal.media import MediaError, kinds, read_video

_SCALED = 72  # rows and columns that a clip is scaled into: the middle 40 × 40 of 16:9 have no black bars
_LONGEST = 600  # frames that are kept of a clip, one minute
_HELD_OUT_EVERY = 3  # of the files, in the order of their names, one in so many is held out


@dataclasses.dataclass(frozen=True)
class Clip:
    """The name of a file and its (frames, 40, 40, 3) uint8."""

    name: str
    frames: np.ndarray


@functools.lru_cache(maxsize=2)  # a process decodes a folder once, whatever it makes of it
def load_clips(folder: str | os.PathLike, split: str) -> tuple[Clip, ...]:
    """The clips of a split at ten frames a second, the middle of the picture.

    Args:
      folder: holds video files (`recordings.ENDINGS`); others in it, hidden ones and folders are passed over. Each is
        decoded, at most a minute of it, and kept: 3 MB for a minute.
      split: one of `scripts.SPLITS`.

    Raises:
      DataError: there are fewer than two videos, or one is damaged.
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise DataError(f"clips {folder}: no such folder; name one that holds video files")
    try:
        files = [path for path in sorted(folder.iterdir()) if _may_be_video(path) and "video" in kinds(path)]
        if len(files) < 2:
            raise DataError(
                f"clips {folder}: {len(files)} of its files are videos (such as .mp4, .mov, .mkv, .avi; folders in it "
                "are not searched), expected two at least: one in three is held out"
            )
        held_out = files[1::_HELD_OUT_EVERY]
        return tuple(_load(path) for path in files if (path in held_out) == (part_of(split) == HELD_OUT))
    except MediaError as error:
        raise DataError(f"clips: {error}; repair or remove the file") from error


def behind(clip: np.ndarray, frames: int, rng: np.random.Generator) -> np.ndarray:
    """So many frames of a clip from a random one on, to and fro where it is shorter: (frames, 40, 40, 3) uint8."""
    period = max(1, 2 * (len(clip) - 1))
    index = (int(rng.integers(len(clip))) + np.arange(frames)) % period
    return clip[np.minimum(index, period - index)]


def _may_be_video(path: pathlib.Path) -> bool:
    return path.suffix.lower() in ENDINGS and not path.name.startswith(".") and not path.is_dir()


def _load(path: pathlib.Path) -> Clip:
    margin = (_SCALED - FRAME_SIZE) // 2
    middle = slice(margin, margin + FRAME_SIZE)
    shown = itertools.islice(read_video(path, _SCALED, _SCALED, FRAME_RATE), _LONGEST)
    return Clip(path.name, np.stack([frame[middle, middle] for _, frame in shown]))
