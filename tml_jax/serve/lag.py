"""How far behind its client a session hears sound without stamps: noticed, and made up for.

Such sound is heard one piece after the other. When a network stands still, the model hears silence; what was held up
then comes at once, and from then on all would be heard that much later, for ever. A client that sends a recording
faster than real time makes as much wait, and is to be heard whole. So sound is given up only where three things hold
together: for `WATCHED` windows, and in either half of them, it has come at the pace of real time, which says that it
is made as it is sent; all that time more has waited than the delay accounts for; and at least as much of the session's
time had passed with nothing to hear. Then the oldest that waits is dropped, as much as never ran out. Up to `MOST`
behind only quiet is.
"""

import dataclasses

import numpy as np

from tml_jax.config import INPUT_RATE
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.serve.speech import Endpointing

WATCHED = 10  # windows: 2 s
MOST = INPUT_RATE * 4 // 10  # samples that a session may stay behind in speech: 400 ms
_PACE = 0.1  # how far from real time the pace of a live source may be
_FRAME = INPUT_RATE // 50


@dataclasses.dataclass(frozen=True)
class Lag:
    """What is known of the pace of a client. Never changed.

    Attributes:
      owed: samples of the session's time that passed with nothing to hear, and were not made up for since.
      arrived: samples that came since the last window.
      recent: (came, waited after it) of the newest `WATCHED` windows, samples.
    """

    owed: int = 0
    arrived: int = 0
    recent: tuple[tuple[int, int], ...] = ()


def arrive(lag: Lag, count: int) -> Lag:
    """Sound without stamps has come."""
    return dataclasses.replace(lag, arrived=lag.arrived + count)


def owe(lag: Lag, missing: int) -> Lag:
    """Time has passed with nothing to hear."""
    return dataclasses.replace(lag, owed=lag.owed + missing)


def window(lag: Lag, missing: int, waiting: int) -> Lag:
    """A window was taken: `missing` of its samples were not there, and `waiting` are left after it."""
    recent = (*lag.recent, (lag.arrived, waiting))[-WATCHED:]
    return Lag(lag.owed + missing, 0, recent)


def made_up(lag: Lag, count: int) -> Lag:
    """So many samples were given up."""
    recent = tuple((came, waiting - count) for came, waiting in lag.recent)
    return dataclasses.replace(lag, owed=lag.owed - count, recent=recent)


def behind(lag: Lag, waiting: int, keep: int) -> int:
    """How many samples the session is behind a live client; 0 where it is none, or where nobody is known to be live.

    Args:
      lag: what is known.
      waiting: samples that wait, the next window's among them.
      keep: of them, how many should after that window.
    """
    if len(lag.recent) < WATCHED:
        return 0
    half = WATCHED // 2
    for part in (lag.recent[:half], lag.recent[half:]):
        if abs(sum(came for came, _ in part) / (half * INPUT_SAMPLES) - 1) > _PACE:
            return 0
    least = min(waiting - INPUT_SAMPLES, *(left for _, left in lag.recent))
    return max(0, min(least - keep, lag.owed))


def given_up(samples: np.ndarray, excess: int) -> int:
    """How many of the samples that wait, the oldest first, are to be dropped.

    Args:
      samples: (n,) float32 at 16 kHz that wait.
      excess: see `behind`.
    """
    if excess > MOST:
        return excess
    frames = samples[: excess // _FRAME * _FRAME].reshape(-1, _FRAME)
    loud = np.sqrt(np.mean(np.square(frames), axis=1)) > Endpointing.level
    return _FRAME * (int(np.argmax(loud)) if loud.any() else len(frames))
