"""Warnings that would come with every task: each wording once in a while, in one line."""

import logging
import time
from collections.abc import Callable

SECONDS = 60.0  # between two lines of the same wording
MOST = 100  # wordings that are remembered
LONGEST = 500  # characters


class Seldom:
    """Warns, but not twice of the same within a while."""

    def __init__(self, seconds: float = SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        """With nothing said yet.

        Args:
          seconds: between two lines of the same wording.
          clock: the time, seconds.
        """
        self._seconds, self._clock = seconds, clock
        self._said: dict[str, float] = {}

    def warn(self, text: str) -> None:
        """Logs one line, cut to `LONGEST`, unless it was logged just now."""
        line, now = " ".join(text.split())[:LONGEST], self._clock()
        if now - self._said.get(line, -float("inf")) < self._seconds:
            return
        self._said.pop(line, None)
        self._said[line] = now
        while len(self._said) > MOST:
            del self._said[next(iter(self._said))]
        logging.warning("%s", line)
