"""Times of several programs, taken turn about, so that what else the machine does falls on all of them alike."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of one step of one program.

    Attributes:
      median: of all repeats.
      low: the lower quartile.
      high: the upper quartile.
      repeats: how many times were taken, each the mean over the steps of one turn.
    """

    median: float
    low: float
    high: float
    repeats: int


def interleaved(
    steps: Mapping[str, Callable[[], object]], repeats: int, steps_per_turn: int = 3, warmup: int = 2
) -> dict[str, Times]:
    """Times programs in the order A, B, A, B, …

    Args:
      steps: name → one step. It must return only when its work is done.
      repeats: turns of each program.
      steps_per_turn: steps that are timed together in one turn.
      warmup: steps of each program before the first turn, not timed; compilation falls there. Every turn begins with
        one more, because the other program has just filled the caches.

    Returns:
      Name → its times.

    Raises:
      ValueError: a count is below one.
    """
    if min(repeats, steps_per_turn, warmup) < 1:
        raise ValueError(
            f"repeats = {repeats}, steps_per_turn = {steps_per_turn}, warmup = {warmup}: expected at least 1 each"
        )
    for step in steps.values():
        for _ in range(warmup):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            step()
            begin = time.perf_counter()
            for _ in range(steps_per_turn):
                step()
            seconds[name].append((time.perf_counter() - begin) / steps_per_turn)
    return {name: _summary(taken) for name, taken in seconds.items()}


def _summary(seconds: list[float]) -> Times:
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return Times(float(median), float(low), float(high), len(seconds))
