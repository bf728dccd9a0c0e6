"""Still pictures as the open Inkling weights expect them: facts of `transformers.models.inkling.InklingImageProcessor`.

A frame of a live video is scaled to a fixed grid (`signal/media.py`). A still picture keeps its size, or its shape
where the release's processor scales it first (`scale_picture`): it is cut into patches from the top left, and what lies
outside of it is −1, not black. There is always one more patch to the right than fits, so a picture of a multiple of 40
columns ends in a column of empty patches. Both frames of a patch are alike.
"""

import math
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tml_jax.config import PATCH
from tml_jax.data.elements import patches_of_pair
from tml_jax.signal.media import MediaError

OUTSIDE = -1
LONGEST = 2048  # pixels, `rescale_image_max_upscaled_long_edge` of the reference


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Decodes a picture, turned upright.

    Args:
      path: a file of any format that Pillow reads.

    Returns:
      (rows, columns, 3) uint8 RGB.

    Raises:
      MediaError: the file is missing or cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError as error:
        raise MediaError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a picture that can be read ({error})") from error


def scale_picture(picture: np.ndarray, factor: float, longest: int | None = LONGEST) -> np.ndarray:
    """Scales a picture before it is cut, as `rescale_image_frac` in a release's preprocessor_config.json asks.

    Args:
      picture: (rows, columns, 3) uint8.
      factor: of both edges.
      longest: growing stops where the longer edge has so many pixels; None: it does not stop.

    Returns:
      (rows, columns, 3) uint8, resampled by Lanczos.

    Raises:
      ValueError: `factor` is not above 0.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"factor = {factor}: must be above 0 and finite")
    rows, columns, _ = picture.shape
    edge = max(rows, columns)
    wanted = edge * factor
    if longest is not None:
        wanted = min(wanted, max(longest, edge))
    ratio = wanted / edge
    if ratio == 1:
        return picture
    size = (math.floor(columns * ratio + 0.5), math.floor(rows * ratio + 0.5))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def still_patches(picture: np.ndarray) -> np.ndarray:
    """Cuts a picture into patches.

    Args:
      picture: (rows, columns, 3) uint8.

    Returns:
      (patches, 2, 40, 40, 3) int16, row by row, −1 outside of the picture; what `InputEmbeddings.seen` takes.

    Raises:
      ValueError: the shape or the type is wrong.
    """
    if picture.ndim != 3 or picture.shape[2] != PATCH[3] or picture.dtype != np.uint8 or not picture.size:
        raise ValueError(
            f"a picture of shape {picture.shape} and type {picture.dtype}: expected (rows, columns, 3) uint8"
        )
    rows, columns, colours = picture.shape
    down, across = -(-rows // PATCH[1]), columns // PATCH[2] + 1
    canvas = np.full((down * PATCH[1], across * PATCH[2], colours), OUTSIDE, np.int16)
    canvas[:rows, :columns] = picture
    return patches_of_pair(canvas, canvas)
