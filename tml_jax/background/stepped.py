"""A runner in step with the micro-turns: each task is done at once, its result handed over a set time later.

The same conversation gives the same results in the same micro-turns on any machine, faster than real time too. Not for
a server: a task is done within the micro-turn that asks for it.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import Callable

from tml_jax.background.backend import Backend, BackendError
from tml_jax.background.context import Package, package
from tml_jax.background.runner import Channel, Job
from tml_jax.background.tasks import Result
from tml_jax.config import MICRO_TURN_SECONDS

USUAL_DELAY = 1.0  # seconds from a task to its result


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
    """Does tasks with a backend, one after the other, for one session; it ends with it."""

    def __init__(
        self,
        backend: Backend,
        delay: Callable[[int, int], float] = lambda number, revision: USUAL_DELAY,
        timed: bool = False,
    ) -> None:
        """Over a backend.

        Args:
          backend: does the tasks.
          delay: number and revision of a task → seconds from the micro-turn that asks to the one that takes in the
            result, which is a later one.
          timed: a task takes at least as long as the backend did; then other runs may differ.
        """
        self._backend, self._delay, self._timed = backend, delay, timed
        self._loop = asyncio.Runner()

    def open(self) -> SteppedChannel:
        """See `RunsTasks`."""
        return SteppedChannel()

    def begin(self, job: Job) -> bool:
        """See `RunsTasks`."""
        name, began = (job.task.number, job.task.revision), time.monotonic()
        try:
            text = self._loop.run(_whole(self._backend, package(job.history, job.task, job.privacy)))
            result = Result(*name, text, last=True)
        except BackendError as error:
            result = Result(*name, failure=str(error))
        took = math.ceil((time.monotonic() - began) / MICRO_TURN_SECONDS) if self._timed else 1
        due = job.channel.micro_turn + max(1, took, round(self._delay(*name) / MICRO_TURN_SECONDS))
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
        self._loop.run(self._backend.close())
        self._loop.close()


async def _whole(backend: Backend, packed: Package) -> str:
    return "".join([piece async for piece in backend.run(packed)])
