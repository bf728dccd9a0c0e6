"""What a measurement was taken on, and how much of it other programs took."""

import os
import pathlib
import platform
import time

import flax
import jax
import jaxlib

_STAT = pathlib.Path("/proc/stat")


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """What ours runs on, by name."""
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "flax": flax.__version__,
        "Python": platform.python_version(),
        "cores": str(cores()),
    }


class OtherWork:
    """How many of this process's cores others kept busy since this was made. Known on Linux alone.

    Cores that this process may not use (`taskset`) are taken to have carried as much of the others' work as they can.
    """

    def __init__(self) -> None:
        self._begin, self._before = time.perf_counter(), self._others()

    def cores(self) -> float | None:
        """Cores, on average; None where it cannot be known."""
        if self._before is None:
            return None
        busy = (self._others() - self._before) / (time.perf_counter() - self._begin)
        return max(0.0, busy - ((os.cpu_count() or 1) - cores()))

    @staticmethod
    def _others() -> float | None:
        if not _STAT.exists():
            return None
        user, nice, system = map(int, _STAT.read_text().split(maxsplit=4)[1:4])
        return (user + nice + system) / os.sysconf("SC_CLK_TCK") - sum(os.times()[:2])
