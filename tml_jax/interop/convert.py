"""A release of the open Inkling weights → a checkpoint of ours, slice by slice, and the way back.

The target is a run folder as `launch.train` makes it, with one checkpoint, of step 0, and beside it in `source/` what
the way back needs to be exact: the release's small files, the layout of its tensor files, the rows that gave way to
control tokens, and its layers for predicting several tokens at once, where they are kept. Numbers keep the release's
types. Nothing in the target looks like a checkpoint before all of it is there; an interrupted conversion goes on.
"""

import collections
import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from flax.traverse_util import flatten_dict, unflatten_dict

from tml_jax.config import Config
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.interop import inkling, inkling_config
from tml_jax.interop.array_store import ArrayWriter
from tml_jax.interop.inkling import MTP, OWN_PARTS, Counterpart
from tml_jax.interop.journal import ConvertError, Journal, Log, Progress, check_parents
from tml_jax.interop.tensor_files import DTYPES, Tensor, TensorFile, read_tensors
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.tokens import Control
from tml_jax.train.checkpoint import CHECKPOINTS, RELEASE_FILES, TOKENIZER, write_config

SOURCE, FILES = RELEASE_FILES.split("/")
LAYOUT, MTP_FILE, ROWS_FILE = "layout.json", "mtp.safetensors", "replaced_rows.safetensors"
KEEP, DROP = "keep", "drop"  # what becomes of the release's MTP layers
PIECE_BYTES = 32 << 20  # most bytes of a slice of a parameter, where a tensor is laid out in slices
SMALL_FILE = 64 << 20  # larger files of a release, other than its tensors, are left behind
_IN_FLIGHT = 4  # slices being written while the next is read
_TABLE, _UNEMBEDDING = "params/inputs/text_table", "params/unembedding"
_WORK, _JOURNAL = ".converting", "journal.jsonl"


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a conversion does.

    Attributes:
      config: of the run that is made.
      parts: tensors with the parameters they fill.
      tensors: all tensors of the release.
      types: path of the parameter → shape as stored and dtype.
      fresh: paths of the parameters that no tensor fills.
      kept: names of the release's MTP tensors that are carried along.
      dropped: names of those that are left.
    """

    config: Config
    parts: tuple[Counterpart, ...]
    tensors: Mapping[str, Tensor]
    types: Mapping[str, tuple[tuple[int, ...], np.dtype]]
    fresh: tuple[str, ...]
    kept: tuple[str, ...]
    dropped: tuple[str, ...]


def plan(source: pathlib.Path, config: Config, mtp: str | None) -> Plan:
    """Reads the headers of a release and holds them against the model.

    Args:
      source: folder of the release: config.json, tokenizer.json, safetensors files.
      config: settings of the run; the sizes of the model come from the release.
      mtp: KEEP or DROP, what becomes of its MTP layers; None where it has none.

    Returns:
      What there is to do.

    Raises:
      ConvertError: tensors are missing, too many, or of the wrong shape or type, or `mtp` is not decided.
      ConfigError: its config.json asks for another model.
      TensorFileError: its files are damaged.
    """
    release = read_json(source / "config.json")
    model = inkling_config.from_release(release, config.model)
    tensors = read_tensors(source)
    shapes = {path: leaf.shape for path, leaf in abstract_parameters(model).items()}
    parts = tuple(inkling.counterparts(model, shapes, inkling.spelling_of(tensors)))
    names = {part.tensor for part in parts}
    extra = [name for name in tensors if name not in names]
    found_mtp = tuple(name for name in extra if name.startswith(MTP))
    problems, types = [], {}
    for part in parts:
        if part.tensor not in tensors:
            problems.append(f"missing: {part.tensor} {part.shape}, which fills {' and '.join(part.parameters)}")
            continue
        tensor = tensors[part.tensor]
        unpadded = part.parameters == (_UNEMBEDDING,) and tensor.shape == (model.text_vocab_size, *part.shape[1:])
        if tensor.shape != part.shape and not unpadded:
            problems.append(f"wrong shape: {part.tensor} is {tensor.shape}, its config.json asks for {part.shape}")
        if tensor.dtype not in DTYPES:
            problems.append(f"wrong type: {part.tensor} is {tensor.dtype}, read are {', '.join(DTYPES)} (unquantised)")
            continue
        for path in part.parameters:
            kind = shapes[path], DTYPES[tensor.dtype]
            if types.setdefault(path, kind) != kind:
                problems.append(f"wrong type: {part.tensor} is {tensor.dtype}, in other layers {types[path][1].name}")
    problems += [f"extra: {name} {tensors[name].shape} fills nothing" for name in extra if name not in found_mtp]
    unread = [name for name in found_mtp if mtp == KEEP and tensors[name].dtype not in DTYPES]
    problems += [f"wrong type: {name} is {tensors[name].dtype}, read are {', '.join(DTYPES)}" for name in unread]
    if found_mtp and mtp not in (KEEP, DROP):
        problems.append(
            f"extra: {len(found_mtp)} tensors under {MTP} (layers that predict several tokens at once, which this "
            f"model lacks): say --mtp={KEEP} to carry them along for the way back, or --mtp={DROP}"
        )
    if problems:
        raise ConvertError("\n".join(problems))
    fresh = tuple(path for path in shapes if path not in types)
    types |= {path: (shapes[path], np.dtype(np.float32)) for path in fresh}
    return Plan(
        dataclasses.replace(config, model=model),
        parts,
        tensors,
        types,
        fresh,
        found_mtp if mtp == KEEP else (),
        found_mtp if mtp == DROP else (),
    )


def from_release(
    source: str | os.PathLike, target: str | os.PathLike, config: Config, mtp: str | None = None, log: Log = print
) -> None:
    """Converts a release into a run with one checkpoint.

    Args:
      source: folder of the release, see `plan`.
      target: folder of the run; new, or of an interrupted conversion of the same release.
      config: settings of the run; the sizes of the model come from the release.
      mtp: see `plan`.
      log: takes lines of progress.

    Raises:
      ConvertError: see `plan`; or `target` holds something else.
      ConfigError, TensorFileError: see `plan`.
    """
    source, target = pathlib.Path(source), pathlib.Path(target).absolute()
    if source.is_file():
        raise ConvertError(f"{source} is a file: give the folder of a release")
    check_parents(target)
    work = target / _WORK
    if target.is_relative_to(source.absolute()):
        raise ConvertError(f"{target} lies inside of the release {source}: give a folder elsewhere")
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not work.exists())):
        raise ConvertError(f"{target} holds something already: give a new folder")
    if (target / CHECKPOINTS / "0").exists():  # killed after the last step but cleaning up
        shutil.rmtree(work)
        log(f"{target} was complete already")
        return
    todo = plan(source, config, mtp)
    if not (source / "tokenizer.json").is_file():
        raise ConvertError(f"{source / 'tokenizer.json'} is missing: copy all of the release, its small files too")
    tokenizer = Tokenizer.load(source / "tokenizer.json")
    if tokenizer.size > todo.config.model.text_vocab_size:
        raise ConvertError(
            f"{source / 'tokenizer.json'} has {tokenizer.size} tokens, the model rows for "
            f"{todo.config.model.text_vocab_size}: give the tokenizer of this release"
        )
    work.mkdir(parents=True, exist_ok=True)
    with Journal(work / _JOURNAL, _fingerprint(todo)) as journal:  # which no two processes can hold
        writer = ArrayWriter(work / "arrays", todo.types)
        kept = work / SOURCE
        _write_source(source, kept, todo, log)
        replaced = _control_rows(todo, kept / ROWS_FILE)
        for line in _describe_fresh(todo):
            log(line)

        names = [part.tensor for part in todo.parts] + list(todo.kept)
        progress = Progress(sum(todo.tensors[name].size for name in names), log)
        for part in todo.parts:
            size = todo.tensors[part.tensor].size
            if part.tensor in journal.done:
                progress.skip(size)
            else:
                sums = _convert_tensor(part, todo, writer, replaced.get(part.parameters[0]), progress)
                journal.add(part.tensor, sums)
        for path, value in _fresh_values(todo).items():
            array = writer.open(path, value.shape)
            array.write(value).result()
            journal.add(path, {path: bit_sum(value)})
        if todo.kept and MTP in journal.done:
            progress.skip(sum(todo.tensors[name].size for name in todo.kept))
        elif todo.kept:
            log(f"carrying {len(todo.kept)} tensors of MTP layers along in {target / SOURCE / MTP_FILE}")
            _copy_tensors(kept / MTP_FILE, {name: todo.tensors[name] for name in todo.kept}, progress)
            journal.add(MTP, {})
        if todo.dropped:
            log(f"dropped: {len(todo.dropped)} tensors under {MTP}")

        write_config(target, todo.config)
        shutil.copyfile(source / "tokenizer.json", target / TOKENIZER)
        shutil.rmtree(target / SOURCE, ignore_errors=True)
        shutil.copytree(kept, target / SOURCE)
        tree = unflatten_dict(
            {path: jax.ShapeDtypeStruct(shape, dtype) for path, (shape, dtype) in todo.types.items()}, sep="/"
        )
        place = {"next_step": 0, "tokenizer": tokenizer.fingerprint, "data": ""}
        metadata = {"data": place, "checksums": {f"model/{path}": total for path, total in journal.sums.items()}}
        writer.finish(target / CHECKPOINTS / "0", {"params": {}, "balance": {}} | tree, metadata)
        shutil.rmtree(work)
        size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in todo.types.values())
        log(f"wrote {target}: {len(todo.types)} arrays, {size / 1e9:.2f} GB")


def abstract_parameters(model: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Path → shape of every parameter and router bias of a ModelConfig; nothing is allocated."""
    variables = jax.eval_shape(functools.partial(init_variables, InteractionModel(model)), jax.random.key(0))
    return flatten_dict(variables, sep="/")


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Contents of a JSON file.

    Raises:
      ConvertError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConvertError(f"{path} is missing: give the folder of a release") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConvertError(f"{path} is not JSON ({error})") from error


def pieces(part: Counterpart, itemsize: int) -> list[tuple[int, int]]:
    """First and end index, along `part.layout.axis`, of the slices in which a tensor is laid out anew."""
    axis, shape = part.layout.axis, part.parameter_shape
    if axis is None:
        return [(0, 0)]
    count = piece_shape(part, itemsize)[axis]
    return [(first, min(first + count, shape[axis])) for first in range(0, shape[axis], count)]


def piece_shape(part: Counterpart, itemsize: int) -> tuple[int, ...]:
    """Shape of a slice of a parameter: 2ⁿ indices along the axis, in at most PIECE_BYTES where n > 0."""
    axis, shape = part.layout.axis, list(part.parameter_shape)
    if axis is not None and shape[axis]:
        row = math.prod(shape) // shape[axis] * itemsize
        shape[axis] = min(shape[axis], 1 << max(0, (PIECE_BYTES // max(row, 1)).bit_length() - 1))
    return tuple(shape)


def place_of(part: Counterpart, first: int, end: int) -> tuple[slice | int, ...]:
    """Where a slice lies in the stored parameter."""
    index: list[slice | int] = [slice(None)] * len(part.parameter_shape)
    if part.layout.axis is not None:
        index[part.layout.axis] = slice(first, end)
    return tuple(index) if part.period is None else (part.period, *index)


def bit_sum(x: np.ndarray) -> int:
    """Sum of the bits of an array, read as unsigned integers, modulo 2³²; as checkpoints note it."""
    bits = np.ascontiguousarray(x).reshape(-1).view(f"uint{8 * x.dtype.itemsize}")
    return int(np.sum(bits, dtype=np.uint64) % (1 << 32))


def _convert_tensor(
    part: Counterpart, todo: Plan, writer: ArrayWriter, rows: np.ndarray | None, progress: Progress
) -> dict[str, int]:
    """Writes the parameters of one tensor; returns their bit sums. `rows` replace those of the control tokens."""
    tensor, axis = todo.tensors[part.tensor], part.layout.axis
    dtype = DTYPES[tensor.dtype]
    piece = piece_shape(part, dtype.itemsize)
    stored = piece if part.period is None else (1, *piece)
    arrays = [writer.open(path, stored) for path in part.parameters]
    sums, flying = dict.fromkeys(part.parameters, 0), collections.deque[ts.Future]()
    for first, end in pieces(part, dtype.itemsize):
        if axis is None:
            data = tensor.read()
        else:
            low, high = first * part.layout.rows, end * part.layout.rows
            data = tensor.read(low, min(high, tensor.shape[0]))
            if len(data) < high - low:  # an unembedding without its padding
                data = np.concatenate([data, np.zeros((high - low - len(data), *data.shape[1:]), dtype)])
            if rows is not None:
                put_rows(data, low, rows, todo.config.model.text_vocab_size)
        shape = tuple(end - first if i == axis else size for i, size in enumerate(part.parameter_shape))
        for path, array, value in zip(part.parameters, arrays, part.layout.ours(data, shape)):
            value = np.asarray(value, order="C")
            sums[path] = (sums[path] + bit_sum(value)) % (1 << 32)
            flying.append(array[place_of(part, first, end)].write(value))
        while len(flying) > _IN_FLIGHT:
            flying.popleft().result()
        progress.add(data.nbytes)
    for future in flying:
        future.result()
    return sums


def put_rows(data: np.ndarray, low: int, rows: np.ndarray, start: int) -> None:
    """Overwrites, in rows `low` … of a table, those among start … start + len(rows) − 1."""
    first, end = max(low, start), min(low + len(data), start + len(rows))
    if first < end:
        data[first - low : end - low] = rows[first - start : end - start]


def _control_rows(todo: Plan, kept: pathlib.Path) -> dict[str, np.ndarray]:
    """Fresh rows for the control tokens, by parameter, as spread as the rows of text; keeps the rows they replace."""
    start = todo.config.model.text_vocab_size
    fresh, old = {}, {}
    rng = np.random.default_rng(todo.config.train.seed)
    for part in todo.parts:
        if part.parameters[0] not in (_TABLE, _UNEMBEDDING):
            continue
        tensor = todo.tensors[part.tensor]
        spread = np.std(tensor.read(0, min(1024, start)).astype(np.float32))
        drawn = rng.standard_normal((len(Control), tensor.shape[1]), np.float32) * spread
        fresh[part.parameters[0]] = drawn.astype(DTYPES[tensor.dtype])
        old[part.parameters[0]] = tensor.read(start, max(start, min(start + len(Control), tensor.shape[0])))
    with TensorFile(kept, [(name, rows.dtype, rows.shape) for name, rows in old.items()]) as file:
        for rows in old.values():
            file.write(rows)
    return fresh


def _fresh_values(todo: Plan) -> dict[str, np.ndarray]:
    """Initial values of what the release lacks, those of a new model of the same seed."""

    def chosen(key: jax.Array) -> dict[str, jax.Array]:
        variables = flatten_dict(init_variables(InteractionModel(todo.config.model), key), sep="/")
        return {path: variables[path] for path in todo.fresh}

    # Compiled, only what is returned is ever computed.
    values = jax.jit(chosen)(jax.random.key(todo.config.train.seed))
    return {path: np.asarray(value) for path, value in values.items()}


def _describe_fresh(todo: Plan) -> list[str]:
    unexpected = [path for path in todo.fresh if not path.startswith(OWN_PARTS)]
    if unexpected:
        raise ConvertError("\n".join(f"missing: nothing fills {path}" for path in unexpected))
    start = todo.config.model.text_vocab_size
    lines = [f"initialised: {path} {todo.types[path][0]}" for path in todo.fresh]
    lines += [f"initialised: row {start + control} of both text tables, {control.name}" for control in Control]
    return lines


def _write_source(source: pathlib.Path, kept: pathlib.Path, todo: Plan, log: Log) -> None:
    """Copies the release's small files, names the others, and notes which tensor lies where in which file."""
    shutil.rmtree(kept / FILES, ignore_errors=True)
    (kept / FILES).mkdir(parents=True)
    read = {tensor.path for tensor in todo.tensors.values()}
    for path in sorted(source.rglob("*")):
        if not path.is_file() or path in read:
            continue
        if path.suffix == ".safetensors":
            log(f"left behind: {path.relative_to(source)}, which the index does not name")
            continue
        if path.stat().st_size > SMALL_FILE:
            log(f"left behind: {path.relative_to(source)}, {path.stat().st_size / 1e6:.0f} MB")
            continue
        (kept / FILES / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept / FILES / path.relative_to(source))
    files: dict[str, list] = {}
    for name, tensor in todo.tensors.items():
        if name not in todo.dropped:
            files.setdefault(tensor.path.name, []).append([name, DTYPES[tensor.dtype].name, list(tensor.shape)])
    (kept / LAYOUT).write_text(json.dumps({"files": files, "mtp": [*todo.kept, *todo.dropped]}))


def _copy_tensors(path: pathlib.Path, tensors: Mapping[str, Tensor], progress: Progress) -> None:
    """Writes tensors into one file, piece by piece."""
    with TensorFile(path, [(name, DTYPES[t.dtype], t.shape) for name, t in tensors.items()]) as file:
        for tensor in tensors.values():
            copy_rows(tensor, file, progress)


def copy_rows(tensor: Tensor, file: TensorFile, progress: Progress) -> None:
    """Appends a tensor to a file, as it is."""
    rows = tensor.shape[0] if tensor.shape else 1
    step = max(1, PIECE_BYTES // max(1, tensor.size // max(rows, 1)))
    for first in range(0, rows, step):
        data = tensor.read(first, min(first + step, rows))
        file.write(data)
        progress.add(data.nbytes)


def _fingerprint(todo: Plan) -> str:
    """Changes with anything that a conversion rests on."""
    facts = [
        (name, tensor.path.name, tensor.dtype, tensor.shape, tensor.start, tensor.path.stat().st_mtime_ns)
        for name, tensor in todo.tensors.items()
    ]
    text = repr((facts, todo.config.model, todo.config.train.seed, todo.kept, PIECE_BYTES))
    return hashlib.sha256(text.encode()).hexdigest()
