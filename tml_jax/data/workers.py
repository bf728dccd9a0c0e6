"""What processes that work for another one have in common."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

_WATCH_SECONDS = 2.0
_PART = 100  # records that are worked on together
_PARTS_PAY = 10  # parts that are worth a process of their own

Result = TypeVar("Result")


@functools.cache  # once a process
def end_with(parent: int, alive: multiprocessing.connection.Connection | None = None) -> None:
    """Ends this worker soon after its parent: one that was killed cannot tell its workers to stop.

    And leaves Ctrl-C, which a terminal sends to all, to the parent. A thread, because the signal that Linux offers for
    this comes with the end of the parent's thread, not its process.

    Args:
      parent: process number of the parent.
      alive: the end of a pipe that the parent closes when what this worker makes is not wanted any more; it ends at
        once. (An event of `multiprocessing` would make the parent wait for workers that were killed.)
    """

    def watch() -> None:
        while os.getppid() == parent:  # an orphan gets another parent
            if alive is None:
                time.sleep(_WATCH_SECONDS)
            elif alive.poll(_WATCH_SECONDS):
                break
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
    if threading.current_thread() is threading.main_thread():  # no other may say how signals are met
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """A process that is started here never hears Ctrl-C, not even while it imports; this one hears it afterwards.

    A worker that died of it would look like a fault, if that were noticed first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def pool(processes: int) -> Iterator[concurrent.futures.ProcessPoolExecutor]:
    """So many workers, which end with this process, and at once where it stops with an error or is interrupted."""
    context = multiprocessing.get_context("spawn")  # threads of JAX may run here already, so no fork
    alive, wanted = context.Pipe(duplex=False)
    with (
        alive,
        wanted,
        concurrent.futures.ProcessPoolExecutor(
            processes, mp_context=context, initializer=end_with, initargs=(os.getpid(), alive)
        ) as workers,
    ):
        try:
            with _deaf():
                for _ in range(processes):
                    workers.submit(os.getpid)  # starts one
            yield workers
        except BaseException:
            wanted.close()  # or what they are at would be waited for
            raise


def in_parts(work: Callable[[range], Result], records: Sequence[Any]) -> Iterator[Result]:
    """Works on all records part by part; by several processes where they are many, and on disk.

    Args:
      work: is given the numbers of some records. Picklable, its result too.
      records: all of them; those on disk have the attribute `directory`.

    Yields:
      What `work` returns for each part, in order.
    """
    parts = [range(start, min(start + _PART, len(records))) for start in range(0, len(records), _PART)]
    processes = min(os.cpu_count() or 1, len(parts) // _PARTS_PAY) if hasattr(records, "directory") else 1
    if processes <= 1:
        yield from map(work, parts)
        return
    with pool(processes) as workers:
        yield from workers.map(work, parts)
