"""Goodput: the share of a run's wall time that went into steps it kept, and what became of the rest, over all restarts.

RUN/goodput.jsonl gets a line every few seconds and at every checkpoint. A line holds all seconds of its attempt (one
start of the command) so far, by cause, so a killed attempt loses the seconds since its last line at most; those count
as `stopped`, like the time until the next start. ml-goodput-measurement does the same for jobs that log to Google
Cloud; it needs a project there, while this needs a file.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from tml_jax.train.metrics import duration, read, truncate

FILE = "goodput.jsonl"
STEP, STARTUP, COMPILATION, RESTORE = "step", "start-up", "compilation", "restore"
DATA, CHECKPOINT, EVALUATION, OTHER = "waiting for data", "checkpoint save", "evaluation", "other"
REPEATED, STOPPED = "steps done again", "stopped"  # seen only when a run starts again
CAUSES = (STEP, STARTUP, COMPILATION, RESTORE, DATA, CHECKPOINT, EVALUATION, OTHER)
_EVERY = 10.0  # seconds between lines


class Goodput:
    """The clock of one attempt: every second of it belongs to exactly one cause, start-up at first."""

    def __init__(self, run_dir: str | os.PathLike | None, started: float | None = None) -> None:
        """Starts the clock.

        Args:
          run_dir: folder of the run; None on processes that write nothing.
          started: when the process was started, in seconds as `time.time()`; now by default.
        """
        now = time.time()
        self._started, self._clock = (now if started is None else min(started, now)), time.perf_counter()
        self._seconds = dict.fromkeys(CAUSES, 0.0)
        self._seconds[STARTUP] = now - self._started
        self._cause, self._resumed_from, self._attempt, self._written = STARTUP, 0, 0, 0.0
        self._useful_before, self._wall_before = 0.0, 0.0
        self._path = None if run_dir is None else pathlib.Path(run_dir) / FILE

    @contextlib.contextmanager
    def cause(self, name: str) -> Iterator[None]:
        """Within it, time belongs to another cause."""
        before = self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def move(self, seconds: float, cause: str) -> None:
        """Gives so many of the running cause's seconds to another."""
        self._switch(self._cause)
        self._seconds[self._cause] -= seconds
        self._seconds[cause] += seconds

    def resume(self, step: int) -> None:
        """Says from which step this attempt goes on; before the first `write`."""
        self._resumed_from = step
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        truncate(self._path, sys.maxsize)  # a last line cut short by a kill
        lines = list(read(self._path)) if self._path.exists() else []
        self._attempt = 1 + max((line["attempt"] for line in lines), default=-1)
        self.write(step, now=True)
        before = summarise(self._path.parent)
        self._useful_before = before.seconds[STEP]
        self._wall_before = before.wall - sum(self._seconds.values())

    def write(self, step: int, now: bool = False, finished: bool = False) -> None:
        """Writes a line if it is time for one.

        Args:
          step: optimiser steps done.
          now: whatever the time.
          finished: the run needs no other start, so the time until one is not lost.
        """
        self._switch(self._cause)
        elapsed = sum(self._seconds.values())
        if self._path is None or not (now or elapsed - self._written >= _EVERY):
            return
        self._written = elapsed
        line = {
            "attempt": self._attempt,
            "started": round(self._started, 3),
            "resumed_from": self._resumed_from,
            "step": step,
            "seconds": {name: round(seconds, 3) for name, seconds in self._seconds.items()},
            "finished": finished,
        }
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def share(self) -> float:
        """Goodput of the run so far, 0 … 1, earlier attempts included."""
        self._switch(self._cause)
        wall = self._wall_before + sum(self._seconds.values())
        return (self._useful_before + self._seconds[STEP]) / max(wall, 1e-9)

    def _switch(self, cause: str) -> str:
        now = time.perf_counter()
        self._seconds[self._cause] += now - self._clock
        self._clock, before, self._cause = now, self._cause, cause
        return before


@dataclasses.dataclass(frozen=True)
class Summary:
    """A whole run.

    Attributes:
      seconds: by cause; `STEP` is what was useful. They add up to `wall`.
      attempts: how often it was started.
    """

    seconds: dict[str, float]
    attempts: int

    @property
    def wall(self) -> float:
        """Seconds from the first start to the last line, without those after an attempt that finished the run."""
        return sum(self.seconds.values())

    @property
    def goodput(self) -> float:
        """Share of the wall time that went into steps that were kept, 0 … 1."""
        return self.seconds[STEP] / max(self.wall, 1e-9)

    def __str__(self) -> str:
        lost = sorted((item for item in self.seconds.items() if item[0] != STEP), key=lambda item: -item[1])
        parts = [f"{cause} {seconds / max(self.wall, 1e-9):.1%}" for cause, seconds in lost if seconds > 0]
        starts = "1 start" if self.attempts == 1 else f"{self.attempts} starts"
        return f"goodput {self.goodput:.1%} of {duration(self.wall)} ({starts}); lost: {', '.join(parts) or 'nothing'}"


def summarise(run_dir: str | os.PathLike) -> Summary:
    """Adds up RUN/goodput.jsonl.

    Raises:
      MetricsError: a line other than the last is not JSON.
    """
    attempts: dict[int, list[dict[str, Any]]] = {}
    for line in read(pathlib.Path(run_dir) / FILE):
        attempts.setdefault(line["attempt"], []).append(line)
    seconds = dict.fromkeys((*CAUSES, REPEATED, STOPPED), 0.0)
    kept = sys.maxsize  # the step from which a later attempt went on
    after: dict[str, Any] | None = None
    for _, lines in sorted(attempts.items(), reverse=True):
        last = lines[-1]
        for cause, spent in last["seconds"].items():
            seconds[cause] += spent
        useful = max((line["seconds"][STEP] for line in lines if line["step"] <= kept), default=0.0)
        seconds[REPEATED] += last["seconds"][STEP] - useful
        seconds[STEP] -= last["seconds"][STEP] - useful
        if after is not None and not last["finished"]:
            seconds[STOPPED] += max(after["started"] - last["started"] - sum(last["seconds"].values()), 0.0)
        kept, after = min(kept, last["resumed_from"]), last
    return Summary(seconds, len(attempts))


def process_start() -> float:
    """When this process was started, in seconds as `time.time()`; now, where the system does not say."""
    try:
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, AttributeError):
        return time.time()
