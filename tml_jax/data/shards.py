"""Folders of conversation records: ArrayRecord shards and an index that says what is complete.

`shard-00000.array_record`, … hold msgpack records (see `record.py`), each readable on its own; `index.json` holds the
format number, the number of records of each shard, and their ids.
"""

import contextlib
import itertools
import json
import os
import pathlib
import shutil
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from array_record.python import array_record_data_source, array_record_module

from tml_jax.data.record import FORMAT, Conversation, from_bytes, to_bytes

INDEX = "index.json"
Path = str | os.PathLike


class DataError(ValueError):
    """A folder of records is missing or unfit: says which, why and what to do."""


class DamagedError(DataError):
    """A shard itself cannot be read, whatever its records are."""


def write_shards(
    records: Iterable[Conversation], directory: Path, records_per_shard: int = 500, overwrite: bool = False
) -> int:
    """Writes records into a new folder that appears complete or not at all.

    The same records always give the same bytes. Shards are written into a sibling folder, which is renamed at the end.

    Args:
      records: conversations, consumed once, in order; their ids must differ.
      directory: the folder to make; its parents are made too.
      records_per_shard: most records in one file.
      overwrite: whether an existing folder is replaced, once the new one is complete.

    Returns:
      The number of records written.

    Raises:
      DataError: the folder exists already or holds other files than records, there are no records, or an id occurs
        twice. Nothing is left behind.
    """
    if records_per_shard <= 0:
        raise ValueError(f"records_per_shard = {records_per_shard}: must be above 0")
    return write_folder(lambda folder: _write_into(folder, records, records_per_shard), directory, overwrite)


def write_folder(
    write: Callable[[pathlib.Path], list[dict[str, Any]]], directory: Path, overwrite: bool = False
) -> int:
    """Makes a folder of records of which others write the shards, complete or not at all.

    Args:
      write: is given a new folder, writes shards into it (see `write_shard`) and returns what that returned, in order.
      directory: as in `write_shards`.
      overwrite: as in `write_shards`.

    Returns:
      The number of records written.

    Raises:
      DataError: as `write_shards`. Nothing is left behind.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and overwrite:
        check_replaceable(directory)
    if directory.exists() and not overwrite:
        raise DataError(f"{directory} exists already: remove it, allow overwriting, or choose another folder")
    partial = directory.with_name(f".{directory.name}.partial-{socket.gethostname()}-{os.getpid()}")
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        for left in directory.parent.glob(f".{directory.name}.partial-*"):
            if _writer_is_gone(left):
                shutil.rmtree(left, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise DataError(
            f"{directory} cannot be made ({error.strerror}): choose a folder that can be written to"
        ) from error
    try:
        shards = write(partial)
        if not shards:
            raise DataError(f"{directory}: there are no records to write")
        index = {"format": FORMAT, "records": sum(shard["count"] for shard in shards), "shards": shards}
        with open(partial / INDEX, "w", encoding="utf-8") as file:
            json.dump(index, file, indent=1)
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        if directory.exists():
            old = directory.with_name(f".{directory.name}.old-{uuid.uuid4().hex[:8]}")
            directory.rename(old)
            partial.rename(directory)
            shutil.rmtree(old)
        else:
            partial.rename(directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return index["records"]


def check_replaceable(directory: Path) -> None:
    """Makes sure that a folder holds records and nothing else, so that it may be replaced.

    Raises:
      DataError: it does not; says what else there is.
    """
    if not (pathlib.Path(directory) / INDEX).is_file():
        raise DataError(f"{directory} is no folder of records, and is left alone: choose another")
    known = {INDEX, *open_shards(directory).files}
    others = sorted(path.name for path in pathlib.Path(directory).iterdir() if path.name not in known)
    if others:
        raise DataError(f"{directory} holds other files than records ({', '.join(others[:3])}): it is left alone")


def _writer_is_gone(partial: pathlib.Path) -> bool:
    """Whether the process of this machine that was writing a folder has ended."""
    host, _, process = partial.name.partition(".partial-")[2].rpartition("-")
    if host != socket.gethostname() or not process.isdigit() or int(process) == os.getpid():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _write_into(folder: pathlib.Path, records: Iterable[Conversation], records_per_shard: int) -> list[dict[str, Any]]:
    """Writes the shards and returns their part of the index."""
    shards: list[dict[str, Any]] = []
    seen: set[str] = set()

    def unseen() -> Iterator[Conversation]:
        for record in records:
            if record.id in seen:
                raise DataError(f"record id {record.id!r} occurs twice: ids must differ within a folder")
            seen.add(record.id)
            yield record

    remaining = unseen()
    for first in remaining:
        rest = itertools.islice(remaining, records_per_shard - 1)
        shards.append(write_shard(folder, len(shards), itertools.chain([first], rest)))
    return shards


def write_shard(folder: pathlib.Path, number: int, records: Iterable[Conversation]) -> dict[str, Any]:
    """Writes shard `number` of a folder and returns its part of the index."""
    shard: dict[str, Any] = {"file": f"shard-{number:05d}.array_record", "count": 0, "ids": []}
    # One record to a group: any record can be read without its neighbours.
    writer = array_record_module.ArrayRecordWriter(str(folder / shard["file"]), "group_size:1")

    def write(act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except RuntimeError as error:  # as the writer says of a full disk
            raise DataError(f"{folder / shard['file']} could not be written: {error}") from error

    try:
        for record in records:
            write(writer.write, to_bytes(record))
            shard["count"] += 1
            shard["ids"].append(record.id)
        write(writer.close)
    finally:
        with contextlib.suppress(RuntimeError):
            writer.close()  # where something went wrong before
    return shard


def _sync(path: pathlib.Path) -> None:
    """Forces a file or folder to disk, so that the rename cannot overtake the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Shards:
    """The records of a folder as a sequence. Cheap to pickle: files are opened at the first read in each process.

    Attributes:
      directory: the folder.
      ids: id of every record, in order.
      files: names of its shards.
    """

    def __init__(self, directory: pathlib.Path, files: tuple[str, ...], ids: tuple[str, ...]):
        self.directory = directory
        self.ids = ids
        self.files = files
        self._source: array_record_data_source.ArrayRecordDataSource | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Conversation:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {self.directory}: there are {len(self)}")
        position = int(index) % len(self)
        try:
            if self._source is None:
                paths = [str(self.directory / name) for name in self.files]
                self._source = array_record_data_source.ArrayRecordDataSource(paths)
            return from_bytes(self._source[position])
        except RuntimeError as error:  # of the library, where a file is cut off or overwritten
            raise DamagedError(
                f"{self.directory}: a shard is damaged ({error}); remove the folder, and the same command makes what "
                "is generated anew"
            ) from error
        except ValueError as error:
            raise DataError(f"{self.directory}, record {self.ids[position]!r}: {error}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_source": None}


def open_shards(directory: Path) -> Shards:
    """Opens a folder made by `write_shards`.

    Raises:
      DataError: the folder is missing, incomplete, empty, or of another format.
    """
    directory = pathlib.Path(directory)
    remedy = "make it with `python -m launch.prepare --output`, in a new folder"
    if not directory.is_dir():
        raise DataError(
            f"{directory}: no such folder of records (relative paths start at the working directory); {remedy}"
        )
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        version, shards = index["format"], index["shards"]
        files = tuple(shard["file"] for shard in shards)
        ids = tuple(name for shard in shards for name in shard["ids"])
        counts = [shard["count"] for shard in shards]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{directory}: {INDEX} is missing or broken ({error!r}); {remedy}") from error
    if version != FORMAT:
        raise DataError(f"{directory}: records of format {version}, expected {FORMAT}; prepare the data again")
    missing = [name for name in files if not (directory / name).is_file()]
    if missing:
        raise DataError(f"{directory}: lacks {', '.join(missing)}; {remedy}")
    if not ids or len(ids) != sum(counts):
        raise DataError(f"{directory}: {INDEX} lists {len(ids)} ids for {sum(counts)} records; {remedy}")
    return Shards(directory, files, ids)
