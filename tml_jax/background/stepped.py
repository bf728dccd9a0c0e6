"""A runner in step with the micro-turns: each task is done at once, its result handed over a set time later.

The same conversation gives the same results in the same micro-turns on any machine, faster than real time too. Not for
a server: a task is done within the micro-turn that asks for it, which waits for it up to the task's deadline.
"""

import dataclasses
import math
import queue
import time
from collections.abc import Callable

from tml_jax.background.backend import Backend
from tml_jax.background.runner import Channel, Job, Runner, RunnerOptions
from tml_jax.background.tasks import Result
from tml_jax.config import MICRO_TURN_SECONDS

USUAL_DELAY = 1.0  # seconds from a task to its result
MOST_RESULT = 20_000  # characters of a result; far more than a session reads (`Limits.result`)
_GRACE = 1.0  # seconds after a deadline, for the runner to say so itself


@dataclasses.dataclass(frozen=True)
class _Due:
    """A result, and the micro-turn that takes it in."""

    micro_turn: int
    result: Result


class SteppedChannel(Channel):
    """The way of one session: its time, and what is on the way to it."""

    def __init__(self) -> None:
        """At its first micro-turn."""
        super().__init__(1)
        self.micro_turn = -1
        self.due: list[_Due] = []


class SteppedRunner:
    """Does tasks with a backend, one after the other, for one session; it ends with it.

    Tries, deadlines and failures are those of `Runner`, which does the work.
    """

    def __init__(
        self,
        backend: Backend,
        delay: Callable[[int, int], float] = lambda number, revision: USUAL_DELAY,
        timed: bool = False,
        options: RunnerOptions | None = None,
    ) -> None:
        """Over a backend.

        Args:
          backend: does the tasks.
          delay: number and revision of a task → seconds from the micro-turn that asks to the one that takes in the
            result, which is a later one.
          timed: a task takes at least as long as the backend did; then other runs may differ.
          options: see `Runner`; None for the usual.
        """
        self._runner, self._delay, self._timed = Runner(backend, options or RunnerOptions()), delay, timed
        self._begun = False

    def open(self) -> SteppedChannel:
        """See `RunsTasks`."""
        if not self._begun:
            self._runner.start()
            self._begun = True
        return SteppedChannel()

    def begin(self, job: Job) -> bool:
        """See `RunsTasks`; waits until the task is done, has failed or is late."""
        began = time.monotonic()
        result = self._done(job)
        took = math.ceil((time.monotonic() - began) / MICRO_TURN_SECONDS) if self._timed else 1
        delay = self._delay(result.number, result.revision)
        due = job.channel.micro_turn + max(1, took, round(delay / MICRO_TURN_SECONDS))
        job.channel.due.append(_Due(due, result))
        return True

    def end(self, channel: SteppedChannel, number: int, revision: int) -> None:
        """See `RunsTasks`."""
        channel.due = [due for due in channel.due if (due.result.number, due.result.revision) != (number, revision)]

    def collect(self, channel: SteppedChannel) -> list[Result]:
        """See `RunsTasks`."""
        channel.micro_turn += 1
        ready = [due.result for due in channel.due if due.micro_turn <= channel.micro_turn]
        channel.due = [due for due in channel.due if due.micro_turn > channel.micro_turn]
        return ready

    def close(self, channel: SteppedChannel) -> None:
        """See `RunsTasks`."""
        channel.due = []
        self._runner.stop()

    def _done(self, job: Job) -> Result:
        """The whole result of a task, or its failure."""
        name = job.task.number, job.task.revision
        channel = self._runner.open()  # of its own, so that nothing of a task before is read
        seconds = (job.task.deadline - job.task.asked) * MICRO_TURN_SECONDS + _GRACE
        end, text = time.monotonic() + seconds, ""
        try:
            if not self._runner.begin(dataclasses.replace(job, channel=channel)):
                return Result(*name, failure="busy")
            while len(text) <= MOST_RESULT:
                result = channel.results.get(timeout=max(0.0, end - time.monotonic()))
                if result.failure:
                    return result
                text += result.text
                if result.last:
                    break
        except queue.Empty:  # a backend that holds its thread
            return Result(*name, failure="late")
        finally:
            self._runner.close(channel)
        return Result(*name, text[:MOST_RESULT], last=True)
