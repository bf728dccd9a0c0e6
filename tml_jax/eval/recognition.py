"""Words in a recording with their times, by recognisers that work offline.

pocketsphinx comes with its English model (Huggins-Daines et al., "Pocketsphinx: A Free, Real-Time Continuous Speech
Recognition System for Hand-Held Devices", ICASSP 2006). It makes errors on clean speech too, so that its figures mean
something only beside figures of other speech. faster-whisper hears far better; its weights are the user's to get.
"""

import dataclasses
import functools
import re
from typing import Any

import numpy as np
import soxr

from tml_jax.eval.activity import FRAME_SECONDS, loud_frames
from tml_jax.signal.pcm import pcm16

RATE = 16_000
RECOGNISERS = ("pocketsphinx", "whisper")


@dataclasses.dataclass(frozen=True)
class HeardWord:
    """A word that was recognised, from `start` to `end` seconds."""

    text: str
    start: float
    end: float


def words_heard(
    samples: np.ndarray, rate: int, recogniser: str = "pocketsphinx", model: str = "base.en"
) -> list[HeardWord]:
    """Recognises a recording by itself: recordings before it change nothing.

    Args:
      samples: (n,) float32 in [-1, 1].
      rate: Hz.
      recogniser: one of `RECOGNISERS`.
      model: for `whisper`, a size that faster-whisper knows or a folder with its weights.

    Returns:
      The words in order.

    Raises:
      ImportError: the recogniser is not installed.
      ValueError: more than one channel, or no such recogniser.
    """
    samples = np.asarray(samples, np.float32)
    if samples.ndim != 1:
        raise ValueError(f"samples have shape {samples.shape}: expected one channel, (n,)")
    if recogniser not in RECOGNISERS:
        raise ValueError(f"recogniser {recogniser!r}: expected one of {', '.join(RECOGNISERS)}")
    listen = _by_whisper if recogniser == "whisper" else _by_pocketsphinx
    if rate != RATE:
        samples = soxr.resample(samples, rate, RATE)
    return listen(samples, model) if samples.size else []


def _by_pocketsphinx(samples: np.ndarray, _: str) -> list[HeardWord]:
    decoder = _pocketsphinx()
    decoder.start_utt()
    try:
        decoder.process_raw(pcm16(samples).tobytes(), full_utt=True)
    finally:
        decoder.end_utt()
    # Fillers are in brackets or angles; a second pronunciation is marked `word(2)`.
    found = [(segment.word, segment.start_frame, segment.end_frame) for segment in decoder.seg() or ()]
    loud = loud_frames(samples, RATE)
    return [
        HeardWord(re.sub(r"\(\d+\)$", "", word), *_without_silence(first, last + 1, loud))
        for word, first, last in found
        if word[0] not in "<["
    ]


def _without_silence(first: int, end: int, loud: np.ndarray) -> tuple[float, float]:
    """Seconds of a word that was found in frames `first` … `end` - 1: it can begin with seconds of silence."""
    within = np.flatnonzero(loud[first:end])
    if within.size:
        first, end = first + int(within[0]), first + int(within[-1]) + 1
    return first * FRAME_SECONDS, end * FRAME_SECONDS


def _by_whisper(samples: np.ndarray, model: str) -> list[HeardWord]:
    # Without its filter of silences, the first word after one begins with the silence.
    segments, _ = _whisper(model).transcribe(samples, language="en", word_timestamps=True, vad_filter=True)
    found = [word for segment in segments for word in segment.words or ()]
    return [HeardWord(word.word.strip(), float(word.start), float(word.end)) for word in found]


@functools.lru_cache(maxsize=1)
def _pocketsphinx() -> Any:
    try:
        import pocketsphinx
    except ImportError as error:
        raise ImportError(
            "recognition needs pocketsphinx, which is not installed: pip install 'tml_jax[replica]', "
            "or leave recognition out"
        ) from error
    return pocketsphinx.Decoder(samprate=RATE, loglevel="FATAL")


@functools.lru_cache(maxsize=1)
def _whisper(model: str) -> Any:
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ImportError("this recogniser needs faster-whisper: pip install faster-whisper") from error
    return WhisperModel(model, device="cpu", compute_type="int8")
