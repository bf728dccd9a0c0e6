"""How far behind its client a session hears sound without stamps: noticed, and made up for.

Such sound is heard one piece after the other. When a network stands still, the model hears silence; what was held up
then comes at once, and from then on all would be heard that much later, for ever. A client that sends a recording
faster than real time makes as much wait, and is to be heard whole. So sound is given up only where three things hold
together: for `WATCHED` windows, and in either half of them, it has come at the pace of real time, which says that it
is made as it is sent; all that time more has waited than the delay accounts for; and at least as much of the session's
time had passed with nothing to hear. Then the oldest that waits is dropped, as much as never ran out. Up to `MOST`
behind only quiet is.

A microphone whose clock is fast adds a little in each window, which in hours is seconds. What waits more than at first,
and has come no faster than clocks differ, counts as time with nothing to hear, too.
"""

import dataclasses

import numpy as np

from tml_jax.config import INPUT_RATE
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.serve.speech import Endpointing

WATCHED = 10  # windows: 2 s
MOST = INPUT_RATE * 4 // 10  # samples that a session may stay behind in speech: 400 ms
_PACE = 0.1  # how far from real time the pace of a live source may be
_DRIFT = 0.001  # how fast its clock may be
_DRIFTED = INPUT_RATE // 10  # samples that a clock has put ahead before they are made up for
_FRAME = INPUT_RATE // 50


@dataclasses.dataclass(frozen=True)
class Lag:
    """What is known of the pace of a client. Never changed.

    Attributes:
      owed: samples of the session's time that passed with nothing to hear, and were not made up for since.
      arrived: samples that came since the last window.
      recent: (came, waited after it) of the newest `WATCHED` windows, samples.
      base: samples that waited at the least when it was first live, or since it was last looked at; None before.
      windows: how many there were since.
    """

    owed: int = 0
    arrived: int = 0
    recent: tuple[tuple[int, int], ...] = ()
    base: int | None = None
    windows: int = 0


def arrive(lag: Lag, count: int) -> Lag:
    """Sound without stamps has come."""
    return dataclasses.replace(lag, arrived=lag.arrived + count)


def owe(lag: Lag, missing: int) -> Lag:
    """Time has passed with nothing to hear."""
    return dataclasses.replace(lag, owed=lag.owed + missing)


def window(lag: Lag, missing: int, waiting: int) -> Lag:
    """A window was taken: `missing` of its samples were not there, and `waiting` are left after it."""
    recent, owed = (*lag.recent, (lag.arrived, waiting))[-WATCHED:], lag.owed + missing
    windows = lag.windows + 1
    if not _live(recent):  # as where a clock has put one large piece more into a window
        return Lag(owed, 0, recent, lag.base, windows)
    least = min(left for _, left in recent)
    ahead = 0 if lag.base is None else least - lag.base
    if lag.base is None or ahead < 0 or ahead > INPUT_SAMPLES * min(_DRIFT * windows, 1.0) + _FRAME:
        return Lag(owed, 0, recent, least)  # no clock does that: it was sent faster
    if ahead >= _DRIFTED:
        return Lag(owed + ahead, 0, recent, least)
    return Lag(owed, 0, recent, lag.base, windows)


def _live(recent: tuple[tuple[int, int], ...]) -> bool:
    """Whether sound came at the pace of real time, in either half of the windows that are watched."""
    half = WATCHED // 2
    came = [sum(count for count, _ in part) / (half * INPUT_SAMPLES) for part in (recent[:half], recent[half:])]
    return len(recent) == WATCHED and all(abs(pace - 1) <= _PACE for pace in came)


def made_up(lag: Lag, count: int) -> Lag:
    """So many samples were given up."""
    recent = tuple((came, waiting - count) for came, waiting in lag.recent)
    return dataclasses.replace(lag, owed=lag.owed - count, recent=recent, base=None, windows=0)


def behind(lag: Lag, waiting: int, keep: int) -> int:
    """How many samples the session is behind a live client; 0 where it is none, or where nobody is known to be live.

    Args:
      lag: what is known.
      waiting: samples that wait, the next window's among them.
      keep: of them, how many should after that window.
    """
    if not _live(lag.recent):
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
