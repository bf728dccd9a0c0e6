"""16-bit samples and floats: one scale for files, records and the wire, 2¹⁵, so that no path changes a sample."""

import numpy as np

_SCALE = np.float32(32768)


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Converts float sound in [-1, 1] to int16 of the same shape; what is louder is cut off at the largest level."""
    return np.clip(np.rint(np.asarray(samples) * _SCALE), -32768, 32767).astype(np.int16)


def float_audio(samples: np.ndarray) -> np.ndarray:
    """The inverse of `pcm16`: int16 to float32 in [-1, 1), same shape."""
    return samples.astype(np.float32) / _SCALE
