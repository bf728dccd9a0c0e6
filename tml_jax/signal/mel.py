"""Mel spectra: what the model hears (dMel, 16 kHz) and what it says (own mel, 24 kHz). NumPy, on the
host; `dmel_compiled` where it is part of a compiled program.

Both are one short-time Fourier transform and one Slaney filter bank with different settings. The heard one is the front
end of the open Inkling weights, level for level. Every frame is worked out on its own, so that a stream cut into any
whole number of hops gives the same bits as the whole at once.
"""

import dataclasses
import functools
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import DMEL_LEVELS, INPUT_RATE, MEL_BINS, OUTPUT_RATE

Array = np.ndarray | jax.Array

DMEL_MIN, DMEL_MAX = -7.0, 2.0  # log10 mel of the lowest and the highest dMel level
OWN_MEL_MIN, OWN_MEL_MAX = -5.0, 1.0  # log10 mel of the model's voice; the floor lies below 16-bit rounding noise
SILENT_OWN_MEL = OWN_MEL_MIN


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Settings of a mel spectrum.

    Attributes:
      rate: samples a second.
      hop: samples from one frame to the next.
      window: samples of a frame; also the length of its Fourier transform.
      magnitude_floor: least magnitude of a frequency bin.
    """

    rate: int
    hop: int
    window: int
    magnitude_floor: float


HEARD = Spectrum(rate=INPUT_RATE, hop=800, window=1600, magnitude_floor=1e-5)
OWN = Spectrum(rate=OUTPUT_RATE, hop=240, window=960, magnitude_floor=0.0)
HISTORY = HEARD.window - HEARD.hop  # samples of the past that a heard frame needs


def hann(length: int) -> np.ndarray:
    """Periodic Hann window. Returns (length,) float32."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)).astype(np.float32)


def mel_filters(spectrum: Spectrum) -> np.ndarray:
    """Triangular filters, evenly spaced in mel from 0 Hz to half the rate, each of area 1.

    The mel scale and the area are those of Slaney's Auditory Toolbox (1998): linear below 1 kHz at 66.7 Hz a mel, then
    logarithmic at 27 mel for a factor of 6.4.

    Args:
      spectrum: rate and window.

    Returns:
      (window / 2 + 1, 80) float32 in 1/Hz, for spectra of magnitude.
    """
    top = 15 + 27 * np.log(spectrum.rate / 2 / 1000) / np.log(6.4)
    mels = np.linspace(0, top, MEL_BINS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp((mels - 15) * np.log(6.4) / 27))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    bins = np.linspace(0, spectrum.rate / 2, spectrum.window // 2 + 1)[:, None]
    triangles = np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre))
    return (np.maximum(triangles, 0) * 2 / (high - low)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _tables(spectrum: Spectrum) -> tuple[np.ndarray, np.ndarray]:
    return hann(spectrum.window), mel_filters(spectrum)


def _log_mel(padded: Array, spectrum: Spectrum, floor: float, xp: ModuleType = np) -> Array:
    """Mel frames of `padded`, (n,) float32, one for each hop at which a whole window fits; log10, at least `floor`.

    `xp` is the module that computes: numpy, or jax.numpy for what is compiled.
    """
    window, filters = _tables(spectrum)
    starts = np.arange(0, padded.shape[0] - spectrum.window + 1, spectrum.hop)
    frames = padded[starts[:, None] + np.arange(spectrum.window)]
    fourier = xp.fft.rfft(frames * window, axis=-1)
    power = xp.square(fourier.real) + xp.square(fourier.imag)
    magnitude = xp.sqrt(xp.maximum(power, np.float32(spectrum.magnitude_floor**2)))
    # One product for each frame: a single product over all frames would round differently with their number.
    mel = (magnitude[:, None, :] @ filters)[:, 0, :]
    return xp.log10(xp.maximum(mel, np.float32(10.0**floor)))


def _check_samples(samples: np.ndarray, name: str) -> np.ndarray:
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise ValueError(
            f"{name} is {samples.dtype} of shape {samples.shape}: expected float32 samples of one channel, shape (n,); "
            "mix down and convert first (tml_jax.signal.media.float_audio for int16)"
        )
    return samples


def log_mel(samples: np.ndarray, history: np.ndarray | None = None) -> np.ndarray:
    """Log10 mel magnitudes of what the model hears, 50 ms a frame.

    Frame k covers samples [800(k-1), 800(k+1)): it looks back, never ahead. Facts from the feature extractor of the
    open Inkling weights (Hugging Face transformers, `InklingFeatureExtractor`): 1600-point periodic Hann, hop 800,
    power clamped at 1e-10 before the root, 80 Slaney filters over 0–8 kHz, mel clamped at 1e-10.

    Args:
      samples: (n,) float32 at 16 kHz; padded right with silence to a multiple of 800.
      history: (800,) float32, the samples just before; None for silence. Passing the last 800 samples of the chunk
        before makes chunks give exactly the frames of the whole.

    Returns:
      (ceil(n / 800), 80) float32.

    Raises:
      ValueError: wrong shape or dtype.
    """
    samples = _check_samples(samples, "samples")
    history = np.zeros(HISTORY, np.float32) if history is None else _check_samples(history, "history")
    if history.shape != (HISTORY,):
        raise ValueError(f"history has {history.size} samples: expected the {HISTORY} samples before the chunk")
    if samples.size == 0:
        return np.zeros((0, MEL_BINS), np.float32)
    padding = np.zeros(-samples.size % HEARD.hop, np.float32)
    return _log_mel(np.concatenate([history, samples, padding]), HEARD, floor=-10.0)


def dmel_levels(log_mel: np.ndarray) -> np.ndarray:
    """Nearest of 16 evenly spaced levels over log10 mel [-7, 2]; the lower one on a tie.

    dMel: Bai et al., "dMel: Speech Tokenization made Simple", arXiv:2407.15835. The comparison of float32 distances
    matches `InklingProcessor` also where a value lies within rounding of the middle between two levels.

    Args:
      log_mel: (..., 80) float32.

    Returns:
      uint8 of the same shape, 0 … 15.
    """
    return _levels(np.asarray(log_mel, np.float32), np)


def _levels(log_mel: Array, xp: ModuleType) -> Array:
    centres = np.linspace(DMEL_MIN, DMEL_MAX, DMEL_LEVELS).astype(np.float32)
    values = xp.clip(log_mel, centres[0], centres[-1])
    return xp.abs(values[..., None] - centres).argmin(axis=-1).astype(np.uint8)


def dmel_compiled(samples: jax.Array, history: jax.Array) -> jax.Array:
    """`dmel` for what is compiled or exported: the same steps on jax arrays.

    Fourier transforms of two libraries differ in the last bits, so that a value in the middle between two levels may
    fall to the other one.

    Args:
      samples: (n,) float32 at 16 kHz, n a multiple of 800.
      history: (800,) float32, the samples just before.

    Returns:
      (n / 800, 80) uint8, 0 … 15.
    """
    return _levels(_log_mel(jnp.concatenate([history, samples]), HEARD, -10.0, jnp), jnp)


def dmel(samples: np.ndarray, history: np.ndarray | None = None) -> np.ndarray:
    """`dmel_levels(log_mel(samples, history))`: (n,) float32 at 16 kHz to (frames, 80) uint8."""
    return dmel_levels(log_mel(samples, history))


def own_mel(samples: np.ndarray) -> np.ndarray:
    """Log10 mel magnitudes of the model's own voice, 10 ms a frame.

    Frame k covers samples [240k, 240k + 960). It looks ahead, so that the vocoder can put out samples
    [240k, 240k + 240) as soon as it has frame k: no later frame covers them.

    Args:
      samples: (n,) float32 at 24 kHz, n a multiple of 240; silence follows the last sample.

    Returns:
      (n / 240, 80) float32, clamped to [OWN_MEL_MIN, OWN_MEL_MAX].

    Raises:
      ValueError: wrong shape, dtype or length.
    """
    samples = _check_samples(samples, "samples")
    if samples.size % OWN.hop:
        raise ValueError(f"{samples.size} samples: expected a multiple of {OWN.hop} (10 ms at 24 kHz); pad with zeros")
    if samples.size == 0:
        return np.zeros((0, MEL_BINS), np.float32)
    padded = np.concatenate([samples, np.zeros(OWN.window - OWN.hop, np.float32)])
    # The clip also settles the floor, which log10 meets only to within rounding.
    return np.clip(_log_mel(padded, OWN, floor=OWN_MEL_MIN), np.float32(OWN_MEL_MIN), np.float32(OWN_MEL_MAX))
