"""One process at a time in the folder of a run: two would save over each other, and both would lose steps."""

import contextlib
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Iterator

LOCK = "lock"


class RunBusyError(RuntimeError):
    """Another process is at work in the folder of the run."""


@contextlib.contextmanager
def alone(run_dir: str | os.PathLike, patience: float = 10.0) -> Iterator[None]:
    """Holds RUN/lock. It goes with the process that holds it, however that ends.

    Args:
      run_dir: folder of the run, made where needed. Storage that knows no locks lets everybody in.
      patience: seconds to wait for a process that is just ending.

    Yields:
      While it is held.

    Raises:
      RunBusyError: another process holds it.
    """
    path = pathlib.Path(run_dir) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{run_dir} cannot be made ({error.strerror}): give a folder that can be written, --run_dir"
        ) from error
    with path.open("a+") as file:
        end = time.monotonic() + patience
        while not _taken(file.fileno()):
            if time.monotonic() > end:
                file.seek(0)
                raise RunBusyError(
                    f"{run_dir} is in use by {file.read().strip() or 'another process'}: wait for it, end it, or give "
                    "another --run_dir"
                )
            time.sleep(0.2)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # such as a mounted bucket
        return True
    return True
