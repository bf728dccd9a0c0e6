"""When one side of a conversation is active: by its gates, or by the sound that a listener gets.

Time is that of the listener: what micro-turn t puts out is heard in window t + 1.
"""

import dataclasses

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.data.layout import MIN_OVERLAP, MIN_POWER
from tml_jax.data.record import Cue
from tml_jax.signal.runs import true_runs

FRAME_SECONDS = 0.01  # of the sound's level
ONSET_SECONDS = 0.15  # of silence before sound that begins anew: more than a closure in a word, less than a pause
PAUSE_SECONDS = 0.4  # a longer silence is a stop
EPSILON = 1e-6  # seconds; far below an audio sample, above what sums of 0.2 lose


@dataclasses.dataclass(frozen=True)
class Activity:
    """Activity in n consecutive micro-turns.

    Attributes:
      active: (n,) bool.
      heard: (n,) seconds, when the window begins in which each is heard.
      starts: (n,) seconds, when its activity begins; in micro-turns without any, of no meaning.
      ends: (n,) seconds, when it ends.
      onsets: (k,) seconds, when activity begins anew, rising.
      grid: seconds; activity begins and ends on multiples of this.
    """

    active: np.ndarray
    heard: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    onsets: np.ndarray
    grid: float

    def __getitem__(self, chosen: np.ndarray) -> "Activity":
        """Part of it: `chosen` is (n,) bool, in one piece. `onsets` are still those of the whole."""
        parts = {name: getattr(self, name)[chosen] for name in ("active", "heard", "starts", "ends")}
        return dataclasses.replace(self, **parts)


def of_gates(speak: np.ndarray) -> Activity:
    """Activity by gates, (n,) bool from micro-turn 0 on: whole micro-turns."""
    speak = np.asarray(speak, bool)
    heard = MICRO_TURN_SECONDS * np.arange(1, len(speak) + 1)
    onsets = heard[speak & ~np.concatenate([[False], speak[:-1]])]
    return Activity(speak, heard, heard, heard + MICRO_TURN_SECONDS, onsets, MICRO_TURN_SECONDS)


def loud_frames(samples: np.ndarray, rate: int) -> np.ndarray:
    """Which whole frames of 10 ms of (n,) float32 sound at `rate` Hz lie above −50 dBFS: (frames,) bool."""
    size = round(FRAME_SECONDS * rate)
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    return np.square(frames).mean(axis=1) > MIN_POWER


def of_sound(samples: np.ndarray) -> Activity:
    """Activity by sound: frames of 10 ms above −50 dBFS, of which a micro-turn needs more than 20 ms.

    Args:
      samples: (n, 4800) float32 at 24 kHz, of micro-turn 0 and the following.

    Returns:
      Starts and ends of the sound to 10 ms.
    """
    count = len(samples)
    loud = loud_frames(samples.reshape(-1), OUTPUT_RATE).reshape(count, -1)
    heard = MICRO_TURN_SECONDS * np.arange(1, count + 1)
    active = loud.sum(axis=1) * FRAME_SECONDS > MIN_OVERLAP + EPSILON
    starts = heard + FRAME_SECONDS * loud.argmax(axis=1)
    ends = heard + FRAME_SECONDS * (loud.shape[1] - loud[:, ::-1].argmax(axis=1))
    begins, stops = (MICRO_TURN_SECONDS + FRAME_SECONDS * true_runs(loud.reshape(-1))).T
    long = stops - begins > MIN_OVERLAP + EPSILON  # what is shorter is a click, as above
    begins, stops = begins[long], stops[long]
    anew = begins - np.concatenate([[-np.inf], stops[:-1]]) > ONSET_SECONDS - EPSILON
    return Activity(active, heard, starts, ends, begins[anew], FRAME_SECONDS)


def first_onset(side: Activity, start: float, end: float) -> float | None:
    """When activity first begins in [start, end), or None."""
    found = side.onsets[(side.onsets >= start - EPSILON) & (side.onsets < end - EPSILON)]
    return float(found[0]) if found.size else None


def inside(side: Activity, cue: Cue) -> Activity:
    """The micro-turns that are heard wholly inside the cue."""
    ends = side.heard + MICRO_TURN_SECONDS
    return side[(side.heard >= cue.start - EPSILON) & (ends <= cue.end + EPSILON)]


def stop(side: Activity, cue: Cue, since: float) -> float | None:
    """Seconds from the cue's start to the first stop that lasts beyond it; None if it came before `since`, or never."""
    for begins, ends, first, last in _silences(side):
        if (_is_long(begins, ends) or last) and ends > cue.start + EPSILON:
            # A silence since the beginning stops nothing.
            return begins - cue.start if not first and begins >= since - EPSILON else None
    return None


def stopped_in_time(silence: float | None, side: Activity, cue: Cue) -> bool:
    """Whether what `stop` found came by the cue's end; as it lies on the grid, it may come up to one step after."""
    return silence is not None and silence < cue.end - cue.start + side.grid - EPSILON


def kept(side: Activity, cue: Cue) -> bool:
    """Whether there was activity during the cue, and no stop."""
    during = inside(side, cue)
    return bool(during.active.any()) and not any(_is_long(begins, ends) for begins, ends, _, _ in _silences(during))


def _silences(side: Activity) -> list[tuple[float, float, bool, bool]]:
    """Begin and end of each run of micro-turns without activity, seconds, and whether it is at the first and last."""
    count, found = len(side.active), []
    for first, end in true_runs(~side.active).tolist():
        begins = side.ends[first - 1] if first else side.heard[0]
        ends = side.starts[end] if end < count else side.heard[-1] + MICRO_TURN_SECONDS
        found.append((float(begins), float(ends), first == 0, end == count))
    return found


def _is_long(begins: float, ends: float) -> bool:
    return ends - begins > PAUSE_SECONDS + EPSILON
