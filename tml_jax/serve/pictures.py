"""Pictures of clients as frames that the model sees."""

import base64
import io

import numpy as np
from PIL import Image

from tml_jax.config import PATCH, Config
from tml_jax.serve.protocol import ProtocolError

MAX_PIXELS = 4096 * 2160


def frame_size(config: Config) -> tuple[int, int]:
    """Rows and columns of the model's grid, in pixels."""
    rows, columns = (cells * size for cells, size in zip(config.data.video_grid, PATCH[1:3]))
    return rows, columns


def frame_of(picture: Image.Image, config: Config) -> np.ndarray:
    """A picture of any size as a frame of the model's grid, (rows, columns, 3) uint8."""
    rows, columns = frame_size(config)
    return np.asarray(picture.convert("RGB").resize((columns, rows), Image.Resampling.BOX))


def image_frame(url: str, config: Config) -> np.ndarray:
    """A `data:` URL of a picture as a frame of the model's grid. Takes up to tenths of a second: not for the loop.

    Raises:
      ProtocolError: it is no picture in a `data:` URL, or too large.
    """
    head, comma, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        raise ProtocolError("invalid_image", "image_url: expected data:image/png;base64,… (or jpeg)", "image_url")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height <= MAX_PIXELS:
            return frame_of(picture, config)
        size = f"{picture.width} × {picture.height}"
    except Image.DecompressionBombError:  # it is far too large
        size = "far more"
    except Exception as error:  # decoders fail in many ways
        raise ProtocolError("invalid_image", "image_url holds no PNG, JPEG or WebP picture", "image_url") from error
    raise ProtocolError("invalid_image", f"image of {size} pixels: expected at most {MAX_PIXELS}", "image_url")
