"""Long work that can be interrupted: what is done, on disk, and how far it is, in words."""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from tml_jax.files import write_whole

_SAY_EVERY = 5.0  # seconds between lines of progress

Log = Callable[[str], None]


class ConvertError(ValueError):
    """Something cannot be converted: a line for each thing that is wrong with it."""


def check_parents(folder: pathlib.Path) -> None:
    """Makes sure that a folder can be made where it is to be.

    Raises:
      ConvertError: something on the way to it is a file.
    """
    for parent in folder.parents:
        if parent.is_file():
            raise ConvertError(f"{folder} cannot be made: {parent} is a file")


def check_new(folder: pathlib.Path) -> None:
    """Makes sure that a folder may be written: it is not there yet, or empty.

    Raises:
      ConvertError: it holds something, or cannot be made.
    """
    check_parents(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConvertError(f"{folder} holds something already: give a new folder")


@contextlib.contextmanager
def new_folder(folder: pathlib.Path, files: Collection[str]) -> Iterator[pathlib.Path]:
    """A folder to fill, which gets its name when the block is left in good order, and is removed otherwise.

    Args:
      folder: the name, absolute.
      files: names of all that may be left of an earlier attempt that was killed.

    Yields:
      The folder to fill, beside the other.

    Raises:
      ConvertError: `folder` holds something already, or what lies beside it is no earlier attempt.
    """
    work = folder.with_name(folder.name + ".part")
    check_new(folder)
    if work.exists() and (not work.is_dir() or any(path.name not in files for path in work.iterdir())):
        raise ConvertError(f"{work} is in the way and holds more than an interrupted export: move it")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
        if folder.exists():
            folder.rmdir()
        os.rename(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


class Journal:
    """Which tensors are done, on disk: a conversion that was killed goes on after the last of them."""

    def __init__(self, path: pathlib.Path, fingerprint: str) -> None:
        """Begins a journal, or goes on with the one at `path`.

        Raises:
          ConvertError: the journal is of another conversion, or another process is at work on it.
        """
        self._lock = open(path.with_suffix(".lock"), "w")  # let go when the process ends, however it does
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConvertError(f"{path.parent}: another process is at work on this conversion: wait for it") from error
        self.done: set[str] = set()
        self.sums: dict[str, int] = {}  # parameter → bit sum so far
        lines = path.read_text().splitlines() if path.exists() else []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:  # torn by the kill, so not done
                break
        if entries and entries[0] != {"fingerprint": fingerprint}:
            raise ConvertError(
                f"{path.parent} is of another conversion (the source, the configuration or --mtp changed since): "
                "delete it to begin anew"
            )
        for entry in entries[1:]:
            self._take(entry["name"], entry["sums"])
        # Without a torn line, and never without what was done.
        write_whole(path, "".join(json.dumps(entry) + "\n" for entry in entries or [{"fingerprint": fingerprint}]))
        self._file = open(path, "a")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        self._lock.close()

    def add(self, name: str, sums: Mapping[str, int]) -> None:
        """Notes that a tensor is done; its parameters are on disk."""
        if name in self.done:
            return
        self._take(name, sums)
        self._file.write(json.dumps({"name": name, "sums": dict(sums)}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take(self, name: str, sums: Mapping[str, int]) -> None:
        self.done.add(name)
        for path, total in sums.items():
            self.sums[path] = (self.sums.get(path, 0) + total) % (1 << 32)


class Progress:
    """Says how many bytes are done, how fast, and how long the rest will take."""

    def __init__(self, total: int, log: Log) -> None:
        """Args: total bytes; where lines go."""
        self.total, self._log = total, log
        self._done, self._skipped = 0, 0
        self._began = self._said = time.monotonic()

    def skip(self, count: int) -> None:
        """Bytes that were done before."""
        self._done += count
        self._skipped += count

    def add(self, count: int) -> None:
        """Bytes that were done now."""
        self._done += count
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        rate = (self._done - self._skipped) / (now - self._began)
        left = (self.total - self._done) / max(rate, 1.0)
        again = f" ({self._skipped / 1e9:.2f} GB were there)" if self._skipped else ""
        self._log(
            f"{self._done / 1e9:.2f} of {self.total / 1e9:.2f} GB{again}  {rate / 1e6:.0f} MB/s  {left:.0f} s left"
        )
