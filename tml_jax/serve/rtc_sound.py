"""Sound of a WebRTC call as the model hears it: at its rate, with silence in place of what was lost on the way."""

import numpy as np
import soxr

from tml_jax.config import INPUT_RATE

OPUS_RATE = 48_000
_LONGEST_LOSS = OPUS_RATE // 5  # samples; where more is missing, nothing was sent
_TURN = 2**32  # after which the stamps of RTP begin anew


class SoundIn:
    """A stream of decoded sound, continued from frame to frame."""

    def __init__(self) -> None:
        """At the start of a stream."""
        self._next: int | None = None
        self._resampler = _resampler()

    def take(self, samples: np.ndarray, stamp: int) -> list[tuple[np.ndarray, int]]:
        """The next frame.

        Args:
          samples: (n,) float32 at 48 kHz.
          stamp: number of its first sample, by RTP's clock.

        Returns:
          Pieces of (m,) float32 at 16 kHz, and how many of the first samples of each were lost, and are silence.
        """
        gap = 0 if self._next is None else (stamp - self._next + _TURN // 2) % _TURN - _TURN // 2
        if gap < 0:  # it comes a second time
            return []
        self._next = (stamp + len(samples)) % _TURN
        if not 0 < gap <= _LONGEST_LOSS:
            return [(self._resampler.resample_chunk(samples), 0)]
        before = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)  # what the filter holds back
        self._resampler, lost = _resampler(), gap * INPUT_RATE // OPUS_RATE
        after = self._resampler.resample_chunk(samples)
        return [(before, 0), (np.concatenate([np.zeros(lost, np.float32), after]), lost)]


def _resampler() -> soxr.ResampleStream:
    return soxr.ResampleStream(OPUS_RATE, INPUT_RATE, 1, dtype="float32")
