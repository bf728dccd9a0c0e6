"""Runs tasks in a loop and a thread of its own, so that no backend, however it behaves, holds up a micro-turn.

The thread of the ticks only ever puts orders into one bounded queue and takes results out of another, and neither
waits: what does not fit is refused there and then. A task is tried again, later each time, while nothing of its result
has come; it ends with its deadline at the latest, in whatever state its backend is.
"""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import queue
import random
import threading
import typing

from tml_jax.background.backend import Backend, BackendError
from tml_jax.background.context import Package, Privacy, package
from tml_jax.background.history import History
from tml_jax.background.tasks import Result, Task
from tml_jax.config import MICRO_TURN_SECONDS

MOST_PIECE = 20_000  # characters
_LOG = logging.getLogger(__name__)
_FULL_SECONDS = 0.05  # between two tries to hand over a result


@dataclasses.dataclass(frozen=True)
class RunnerOptions:
    """How to run tasks.

    Attributes:
      concurrent: tasks of all sessions that run at once; the others wait.
      per_session: tasks of one session that do, so that a few sessions do not take all places.
      attempts: how often a task is tried.
      first_seconds: time for the first sign of a backend, in each attempt.
      next_seconds: time for each further one.
      backoff: seconds before the second attempt, about; each later one waits twice as long.
      most_backoff: seconds, the longest wait.
      orders: tasks that may wait to be taken over.
      results: of a session that may wait.
    """

    concurrent: int = 8
    per_session: int = 3
    attempts: int = 3
    first_seconds: float = 15.0
    next_seconds: float = 30.0
    backoff: float = 0.5
    most_backoff: float = 8.0
    orders: int = 256
    results: int = 256

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: expected more than 0")


class Channel:
    """The way of one session to the runner and back."""

    def __init__(self, results: int, places: int = 1) -> None:
        """With room for so many results, and so many tasks that run at once."""
        self.results: queue.Queue[Result] = queue.Queue(results)
        self.places = asyncio.Semaphore(places)  # of the runner's loop
        self.ended: set[tuple[int, int]] = set()  # number and revision of what must not go on
        self.closed = False


@dataclasses.dataclass(frozen=True)
class Job:
    """A task to begin: what it is, and the conversation that it came up in."""

    channel: Channel
    task: Task
    history: History
    privacy: Privacy


class RunsTasks(typing.Protocol):
    """What a desk needs of a runner; all of it returns at once."""

    def open(self) -> Channel:
        """The way of a new session."""

    def begin(self, job: Job) -> bool:
        """Begins a task; false where that is not possible now."""

    def end(self, channel: Channel, number: int, revision: int) -> None:
        """Ends a revision of a task."""

    def collect(self, channel: Channel) -> list[Result]:
        """What has come since the last time; asked once in each micro-turn."""

    def close(self, channel: Channel) -> None:
        """Ends all tasks of a session that is over."""


class Runner:
    """One backend and its tasks."""

    def __init__(self, backend: Backend, options: RunnerOptions = RunnerOptions()) -> None:
        """Not running yet.

        Args:
          backend: does the tasks; used in the runner's loop alone.
          options: how.
        """
        self._backend, self._options = backend, options
        self._orders: queue.Queue[Job] = queue.Queue(options.orders)
        self._waking = False
        self._random = random.Random()
        self._places, self._ended = asyncio.Semaphore(options.concurrent), asyncio.Event()
        self._packing = asyncio.Lock()
        self._jobs: dict[tuple[Channel, int, int], asyncio.Task] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="background", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Ends all tasks. A backend that does not let go in time is left behind."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._ended.set)
        if self._thread.is_alive():
            self._thread.join(seconds)

    # What follows up to `close` is for the thread of the ticks. None of it waits.

    def open(self) -> Channel:
        """The way of a new session."""
        return Channel(self._options.results, self._options.per_session)

    def begin(self, job: Job) -> bool:
        """Begins a task. Returns false where too many orders wait already, or the runner has ended."""
        try:
            self._orders.put_nowait(job)
        except queue.Full:
            return False
        return self._awake()

    def end(self, channel: Channel, number: int, revision: int) -> None:
        """Ends a revision of a task, however many orders wait."""
        channel.ended.add((number, revision))
        self._awake()

    def collect(self, channel: Channel) -> list[Result]:
        """What has come since the last time."""
        results = []
        with contextlib.suppress(queue.Empty):
            while len(results) < self._options.results:
                results.append(channel.results.get_nowait())
        return results

    def close(self, channel: Channel) -> None:
        """Ends all tasks of a session that is over."""
        channel.closed = True
        self._awake()

    def _awake(self) -> bool:
        """Has the loop look at what is new; false where it has ended."""
        if self._waking and not self._loop.is_closed():  # it has not begun to look
            return True
        try:
            self._waking = True
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            self._waking = False
            return False
        return True

    # From here on all is in the runner's loop.

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        main = self._loop.create_task(self._main())
        try:
            while not main.done():
                try:
                    self._loop.run_until_complete(main)
                except BaseException:  # SystemExit in a task that a backend began: the loop stops, and goes on here
                    _LOG.exception("something in the background ended its loop; it goes on")
        finally:
            self._loop.close()

    async def _main(self) -> None:
        await self._ended.wait()
        jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        try:
            await self._backend.close()
        except Exception as error:  # whatever a backend raises
            _LOG.error("the background did not close: %r", error)

    def _wake(self) -> None:
        self._waking = False  # first, so that what comes from now on wakes it again
        with contextlib.suppress(queue.Empty):
            while True:
                self._begin(self._orders.get_nowait())
        for (channel, *key), job in list(self._jobs.items()):
            if channel.closed or tuple(key) in channel.ended:
                job.cancel()
                channel.ended.discard(tuple(key))

    def _begin(self, job: Job) -> None:
        name = job.channel, *_name(job)
        self._jobs[name] = asyncio.create_task(self._do(job))
        self._jobs[name].add_done_callback(lambda _: self._jobs.pop(name, None))

    async def _do(self, job: Job) -> None:
        seconds = (job.task.deadline - job.task.asked) * MICRO_TURN_SECONDS
        waits = getattr(self._backend, "waits", None)
        try:
            async with asyncio.timeout(seconds), contextlib.AsyncExitStack() as places:
                free = waits is not None and waits(job.task.requests[-1])
                if not free:
                    await places.enter_async_context(job.channel.places)
                    await places.enter_async_context(self._places)
                with contextlib.suppress(queue.Full):  # what it says is news enough
                    job.channel.results.put_nowait(Result(*_name(job), begun=True))
                await self._attempts(job, await self._packed(job), None if free else self._options.next_seconds)
        except TimeoutError:
            self._fail(job, "late")
        except BackendError as error:
            self._fail(job, str(error))
        except Exception as error:  # whatever a backend raises
            _LOG.error("task %d failed: %r", job.task.number, error)
            _LOG.debug("task %d", job.task.number, exc_info=True)
            self._fail(job, "error")
        except (SystemExit, KeyboardInterrupt):  # of a backend; it would end the loop of all
            _LOG.exception("task %d would have ended the background", job.task.number)
            self._fail(job, "unavailable")

    async def _packed(self, job: Job) -> Package:
        """One at a time, and only what is read: it is work in Python, which the ticks feel."""
        read = getattr(self._backend, "reads_turns", True)
        async with self._packing if read else contextlib.nullcontext():
            pack = functools.partial(package, job.history, job.task, job.privacy, read)
            return await asyncio.to_thread(pack)

    async def _attempts(self, job: Job, packed: Package, next_seconds: float | None) -> None:
        for attempt in range(self._options.attempts):
            if attempt:
                longest = min(self._options.most_backoff, self._options.backoff * 2 ** (attempt - 1))
                await asyncio.sleep(longest * self._random.uniform(0.5, 1.0))
            try:
                await self._attempt(job, packed, next_seconds)
                return
            except BackendError as error:
                if not error.again or attempt + 1 == self._options.attempts:
                    raise

    async def _attempt(self, job: Job, packed: Package, next_seconds: float | None) -> None:
        """One try. Once text has come there is no other, or the model would hear it twice."""
        heard = False
        async with contextlib.aclosing(self._backend.run(packed)) as pieces:
            signed = False
            while True:
                try:
                    async with asyncio.timeout(next_seconds if signed else self._options.first_seconds):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    break
                except TimeoutError as error:
                    raise BackendError("unavailable", again=not heard) from error
                except BackendError as error:
                    raise BackendError(str(error), error.again and not heard) from error
                if not isinstance(piece, str):
                    raise BackendError("error")
                signed = True
                if piece:
                    heard = True
                    await self._send(job, Result(*_name(job), piece[:MOST_PIECE]))
                await asyncio.sleep(0)  # one that never waits must not keep the loop from the others
        await self._send(job, Result(*_name(job), last=True))

    async def _send(self, job: Job, result: Result) -> None:
        while True:
            try:
                job.channel.results.put_nowait(result)
                return
            except queue.Full:
                await asyncio.sleep(_FULL_SECONDS)

    def _fail(self, job: Job, reason: str) -> None:
        with contextlib.suppress(queue.Full):  # then its deadline tells the model
            job.channel.results.put_nowait(Result(*_name(job), failure=reason))


def _name(job: Job) -> tuple[int, int]:
    return job.task.number, job.task.revision
