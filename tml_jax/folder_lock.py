"""One process at a time in a folder that it goes on in: two would write over each other, and both would lose work."""

import contextlib
import fcntl
import os
import pathlib
import socket
import time
from collections.abc import Iterator

LOCK = "lock"


class FolderBusyError(RuntimeError):
    """Another process is at work in the folder."""


@contextlib.contextmanager
def alone(folder: str | os.PathLike, flag: str = "--run_dir", patience: float = 10.0) -> Iterator[None]:
    """Holds FOLDER/lock. It goes with the process that holds it, however that ends.

    Args:
      folder: made where needed. Storage that knows no locks lets everybody in.
      flag: of the command that names it, for errors.
      patience: seconds to wait for a process that is just ending.

    Yields:
      While it is held.

    Raises:
      FolderBusyError: another process holds it.
    """
    path = pathlib.Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"{folder} cannot be made ({error.strerror}): give a folder that can be written, {flag}"
        ) from error
    with path.open("a+") as file:
        end = time.monotonic() + patience
        while not _taken(file.fileno()):
            if time.monotonic() > end:
                file.seek(0)
                raise FolderBusyError(
                    f"{folder} is in use by {file.read().strip() or 'another process'}: wait for it, end it, or give "
                    f"another {flag}"
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
