"""Safetensors files, read and written row by row, so that no tensor needs to fit in memory.

The format (eight bytes of length, a JSON header, the tensors one after another, row-major and little-endian) is that of
the safetensors library, which writes whole tensors only and reads through a memory map, whose pages count as memory.
Here rows are read and written with plain file calls. A folder of several files has an index that says which tensor is
in which file.
"""

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import BinaryIO

import ml_dtypes
import numpy as np

from tml_jax.files import write_whole

INDEX = "model.safetensors.index.json"
DTYPES = {"F32": np.dtype(np.float32), "F16": np.dtype(np.float16), "BF16": np.dtype(ml_dtypes.bfloat16)}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH_BYTES, _LONGEST_HEADER = 8, 100_000_000  # the library refuses longer headers too
_ALIGNMENT = 8


class TensorFileError(ValueError):
    """A file is not what it should be: says which, and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Where a tensor lies.

    Attributes:
      path: the file.
      dtype: as the header spells it, such as `BF16`.
      shape: sizes of the axes.
      start: bytes before it in the file.
      size: its bytes.
    """

    path: pathlib.Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    def read(self, first: int = 0, end: int | None = None) -> np.ndarray:
        """Rows first … end − 1 of the first axis, all by default; a scalar counts as one row.

        Raises:
          TensorFileError: the type is not among `DTYPES`, or the file ends early.
        """
        if self.dtype not in DTYPES:
            raise TensorFileError(f"{self.path}: a tensor of type {self.dtype}; read are {', '.join(DTYPES)}")
        dtype, row = DTYPES[self.dtype], self.shape[1:]
        rows = self.shape[0] if self.shape else 1
        end = rows if end is None else end
        count = (end - first) * math.prod(row)
        with open(self.path, "rb", buffering=0) as file:
            data = np.fromfile(file, dtype, count, offset=self.start + first * math.prod(row) * dtype.itemsize)
        if data.size != count:
            raise TensorFileError(f"{self.path} ends before its tensors do: copy it again")
        return data.reshape((end - first, *row) if self.shape else ())


def read_tensors(folder: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of a folder of safetensors files, without reading their numbers.

    Args:
      folder: holds an index, or files that are a release without one.

    Returns:
      Name → tensor, in the order of the files.

    Raises:
      TensorFileError: there are no files, some are missing or damaged, or the index contradicts them: a line for each
        thing that is wrong.
    """
    folder = pathlib.Path(folder)
    index = folder / INDEX
    if index.is_file():
        try:
            wanted = dict(json.loads(index.read_text())["weight_map"])
            files = sorted({str(file) for file in wanted.values()})
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise TensorFileError(f"{index} is not an index of safetensors files ({error!r})") from error
    else:
        wanted, files = None, sorted(path.name for path in folder.glob("*.safetensors"))
    if not files:
        raise TensorFileError(f"{folder} holds no safetensors files: give the folder of a release")
    tensors: dict[str, Tensor] = {}
    problems, unread = [], set()
    for name in files:
        try:
            found = read_header(folder / name)
        except TensorFileError as error:
            problems.append(str(error))
            unread.add(name)
            continue
        twice = sorted(found.keys() & tensors.keys())
        problems += [f"{tensor} is in {tensors[tensor].path.name} and again in {name}" for tensor in twice]
        tensors |= found
    for name, file in (wanted or {}).items():
        if file not in unread and (name not in tensors or tensors[name].path.name != file):
            problems.append(f"{index.name} says that {name} is in {file}, where it is not")
    if problems:
        raise TensorFileError("\n".join(problems))
    return tensors


def read_header(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of one file, in the order in which they lie in it.

    Raises:
      TensorFileError: it is missing or damaged.
    """
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            if not 0 < length <= _LONGEST_HEADER:
                raise TensorFileError(f"{path} is not a safetensors file")
            header = json.loads(file.read(length))
            tensors = {}
            for name, entry in sorted(_entries(header), key=lambda item: item[1]["data_offsets"]):
                start, end = entry["data_offsets"]
                where = _LENGTH_BYTES + length + start
                tensors[name] = Tensor(path, entry["dtype"], tuple(entry["shape"]), where, end - start)
    except FileNotFoundError as error:
        raise TensorFileError(f"{path} is missing") from error
    except TensorFileError:
        raise
    except (UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise TensorFileError(f"{path}: its header is damaged ({error!r})") from error
    for name, tensor in tensors.items():
        sizes_ok = all(type(size) is int and size >= 0 for size in tensor.shape)
        if not sizes_ok:
            raise TensorFileError(f"{path}: its header is damaged ({name} has the shape {tensor.shape})")
        if tensor.dtype in DTYPES and tensor.size != math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize:
            raise TensorFileError(f"{path}: {name} has {tensor.size} bytes, not what {tensor.shape} takes")
    last = _LENGTH_BYTES + length
    for name, tensor in tensors.items():  # in the order of the file, one behind another, as the format demands
        if tensor.start != last:
            raise TensorFileError(f"{path}: its header is damaged ({name} does not begin where the one before ends)")
        last += tensor.size
    if path.stat().st_size != last:
        raise TensorFileError(f"{path} has {path.stat().st_size} bytes, its header speaks of {last}: copy it again")
    return tensors


def _entries(header: Mapping) -> Iterator[tuple[str, dict]]:
    return ((name, entry) for name, entry in header.items() if name != "__metadata__")


class TensorFile:
    """One safetensors file while it is being written; it gets its name only when it is complete.

    Use it as a context manager: leaving it in good order completes the file.
    """

    def __init__(self, path: pathlib.Path, tensors: Sequence[tuple[str, np.dtype, tuple[int, ...]]]) -> None:
        """Lays out the file.

        Args:
          path: the file.
          tensors: name, dtype and shape of each, in the order in which they will be written.
        """
        self._path, self._part = path, path.with_name(path.name + ".part")
        header, start = {"__metadata__": {"format": "pt"}}, 0
        for name, dtype, shape in tensors:
            end = start + math.prod(shape) * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
            start = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._size = _LENGTH_BYTES + len(text) + start
        self._file: BinaryIO = open(self._part, "wb")
        self._file.write(len(text).to_bytes(_LENGTH_BYTES, "little") + text)

    def write(self, rows: np.ndarray) -> None:
        """Appends the next rows of the tensor at hand, or the whole of it."""
        self._file.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)

    def __enter__(self) -> "TensorFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        written = self._file.tell()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is not None:
            return
        if written != self._size:
            raise ValueError(f"{self._path}: {written} bytes were written, {self._size} announced")
        os.replace(self._part, self._path)


def plan_files(
    tensors: Mapping[str, tuple[np.dtype, tuple[int, ...]]], most_bytes: int
) -> dict[str, list[tuple[str, np.dtype, tuple[int, ...]]]]:
    """Hands tensors out to files, in order.

    Args:
      tensors: name → dtype and shape.
      most_bytes: of a file; a larger tensor gets one of its own.

    Returns:
      File name → its tensors.
    """
    groups: list[list[tuple[str, np.dtype, tuple[int, ...]]]] = [[]]
    used = 0
    for name, (dtype, shape) in tensors.items():
        size = math.prod(shape) * dtype.itemsize
        if groups[-1] and used + size > most_bytes:
            groups.append([])
            used = 0
        groups[-1].append((name, dtype, shape))
        used += size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups)}


def write_index(folder: pathlib.Path, files: Mapping[str, Sequence[tuple[str, np.dtype, tuple[int, ...]]]]) -> None:
    """Writes the index of several files."""
    total = sum(math.prod(shape) * dtype.itemsize for tensors in files.values() for _, dtype, shape in tensors)
    weight_map = {name: file for file, tensors in files.items() for name, _, _ in tensors}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_whole(folder / INDEX, json.dumps(index, indent=2) + "\n")
