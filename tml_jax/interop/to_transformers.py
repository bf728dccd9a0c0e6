"""A checkpoint of ours → a folder that transformers loads: the way back of `convert`, slice by slice.

A checkpoint that `convert` made and nothing has trained since becomes the release again, tensor for tensor and bit for
bit. Any other becomes a release of its own; where the reference cannot express its patch network, of the text model
alone (InklingForCausalLM).
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorstore as ts

from tml_jax.config import Config, ConfigError
from tml_jax.interop import inkling, inkling_config
from tml_jax.interop.array_store import open_arrays
from tml_jax.interop.convert import (
    KEEP,
    LAYOUT,
    MTP_FILE,
    ROWS_FILE,
    SOURCE,
    copy_rows,
    pieces,
    place_of,
    put_rows,
    read_json,
)
from tml_jax.interop.inkling import BACKBONE, RELEASE, Counterpart
from tml_jax.interop.journal import ConvertError, Log, Progress, check_new
from tml_jax.interop.tensor_files import INDEX, TensorFile, plan_files, read_header, write_index
from tml_jax.train.checkpoint import RELEASE_FILES, TOKENIZER, find_checkpoint, read_config

MOST_BYTES = 5_000_000_000  # of a tensor file; a larger tensor has one of its own
_FINGERPRINT = ".exporting"
_DTYPES = {"bfloat16": ts.bfloat16.numpy_dtype, "float32": np.dtype(np.float32), "float16": np.dtype(np.float16)}
# What the reference keeps in float32 whatever the rest has.
_WIDE = ("sconv", "gate.bias", "e_score_correction_bias", "gate.global_scale")

Tensors = list[tuple[str, np.dtype, tuple[int, ...]]]


@dataclasses.dataclass(frozen=True)
class Export:
    """What an export does.

    Attributes:
      files: tensor file → its tensors, in order.
      parts: tensor → the parameters it is made of; MTP tensors that were carried along are not among them.
      rows: parameter → rows to put back in place of the control tokens'.
      start: the first of those rows.
      documents: small file → its contents, or a file to copy.
      notes: what a user should know of it.
    """

    files: Mapping[str, Tensors]
    parts: Mapping[str, Counterpart]
    rows: Mapping[str, np.ndarray]
    start: int
    documents: Mapping[str, str | pathlib.Path]
    notes: tuple[str, ...]


def to_transformers(
    checkpoint: str | os.PathLike, target: str | os.PathLike, dtype: str | None = None, log: Log = print
) -> None:
    """Writes a folder that `from_pretrained` of transformers loads.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      target: the folder; new, or of an interrupted export of the same checkpoint.
      dtype: `bfloat16`, `float16` or `float32`, to round to; None keeps the numbers as they are.
      log: takes lines of progress.

    Raises:
      CheckpointError: there is no such checkpoint.
      ConvertError: `target` holds something else, or `dtype` is unknown.
    """
    run, folder = find_checkpoint(checkpoint)
    target = pathlib.Path(target).absolute()
    work = target.with_name(target.name + ".part")
    if dtype is not None and dtype not in _DTYPES:
        raise ConvertError(f"dtype {dtype!r}: expected one of {', '.join(_DTYPES)}")
    check_new(target)
    config, arrays = read_config(run), open_arrays(folder)
    converted = is_conversion(run, folder)
    todo = _exact(run, config, arrays) if dtype is None and converted else _own(run, config, arrays, dtype)
    if dtype is not None and converted:
        log("not written, as --dtype makes another release of it: MTP tensors")
    for note in todo.notes:
        log(note)
    _begin(work, _fingerprint(folder, todo))

    total = sum(int(np.prod(shape)) * kind.itemsize for tensors in todo.files.values() for _, kind, shape in tensors)
    progress = Progress(total, log)
    carried = read_header(run / SOURCE / MTP_FILE) if (run / SOURCE / MTP_FILE).exists() else {}
    for name, tensors in todo.files.items():
        if (work / name).exists():  # it has its name because it is complete
            progress.skip(sum(int(np.prod(shape)) * kind.itemsize for _, kind, shape in tensors))
            continue
        with TensorFile(work / name, tensors) as file:
            for tensor, kind, shape in tensors:
                if tensor not in todo.parts:
                    copy_rows(carried[tensor], file, progress)
                    continue
                for rows in _rows(todo, todo.parts[tensor], arrays, kind, shape):
                    file.write(rows)
                    progress.add(rows.nbytes)
    if len(todo.files) > 1:
        write_index(work, todo.files)
    for name, content in todo.documents.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, pathlib.Path):
            shutil.copyfile(content, work / name)
        else:
            (work / name).write_text(content)
    if target.exists():
        target.rmdir()
    (work / _FINGERPRINT).unlink()
    os.rename(work, target)
    log(f"wrote {target}: {len(todo.files)} tensor files, {total / 1e9:.2f} GB")


def is_conversion(run: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether a checkpoint is what `convert` made of a release, untrained."""
    return folder.name == "0" and (run / SOURCE / LAYOUT).is_file()


def _exact(run: pathlib.Path, config: Config, arrays: Mapping[str, ts.TensorStore]) -> Export:
    """The release again, but for its MTP layers where they were dropped."""
    layout = read_json(run / SOURCE / LAYOUT)
    kept = (run / SOURCE / MTP_FILE).exists()
    dropped = set() if kept else set(layout["mtp"])
    files = {
        name: [(tensor, ts.dtype(kind).numpy_dtype, tuple(shape)) for tensor, kind, shape in tensors]
        for name, tensors in layout["files"].items()
    }
    files = {name: [entry for entry in tensors if entry[0] not in dropped] for name, tensors in files.items()}
    files = {name: tensors for name, tensors in files.items() if tensors}
    spelling = inkling.spelling_of(name for tensors in files.values() for name, _, _ in tensors)
    rows = {name: tensor.read() for name, tensor in read_header(run / SOURCE / ROWS_FILE).items()}
    documents = _small_files(run)
    if dropped:  # then another index is written
        documents.pop(INDEX, None)
    notes = (f"not written: {len(dropped)} MTP tensors, which the conversion dropped (--mtp={KEEP} keeps them)",)
    return Export(
        files, _parts(config, arrays, spelling), rows, config.model.text_vocab_size, documents, notes if dropped else ()
    )


def _own(run: pathlib.Path, config: Config, arrays: Mapping[str, ts.TensorStore], dtype: str | None) -> Export:
    """A release of our own model."""
    try:
        release, spelling, notes = inkling_config.to_release(config.model), RELEASE, ()
    except ConfigError as error:
        release, spelling = inkling_config.to_backbone(config.model), BACKBONE
        notes = (f"the text model alone, without audio and pictures: {error}",)
    small = _small_files(run)  # where it began as a release: its processor, chat template and token ids
    origin = read_json(small["config.json"]) if "config.json" in small else {}
    _speak_for_ourselves(release, config, origin)
    parts = _parts(config, arrays, spelling)
    used = {path for part in parts.values() for path in part.parameters}
    lacking = "the reference" if spelling == RELEASE else "its text model"
    notes += tuple(f"not written: {path}, which {lacking} lacks" for path in arrays if path not in used)

    def kind(part: Counterpart) -> np.dtype:
        if dtype is None or any(name in part.tensor for name in _WIDE):
            return arrays[part.parameters[0]].dtype.numpy_dtype
        return _DTYPES[dtype]

    tensors = {name: (kind(part), part.shape) for name, part in parts.items()}
    kinds = [kind.name for kind, _ in tensors.values()]
    release["dtype"] = max(set(kinds), key=kinds.count)
    small.pop(INDEX, None)
    documents = {"tokenizer_config.json": json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}, indent=2) + "\n"}
    documents |= small
    documents |= {"config.json": json.dumps(release, indent=2) + "\n", "tokenizer.json": run / TOKENIZER}
    return Export(plan_files(tensors, MOST_BYTES), parts, {}, 0, documents, notes)


def _small_files(run: pathlib.Path) -> dict[str, str | pathlib.Path]:
    """Name → file, of the release that the run's weights began as; none where they did not."""
    small = run / RELEASE_FILES
    return {str(path.relative_to(small)): path for path in sorted(small.rglob("*")) if path.is_file()}


def _speak_for_ourselves(release: dict[str, Any], config: Config, origin: Mapping[str, Any]) -> None:
    """Gives a config.json the control tokens among its logits, and ids that mean what they mean here.

    Args:
      release: the config.json, which is changed.
      config: of the run.
      origin: config.json of the release that the run's weights began as; empty where they did not.
    """
    model = config.model
    release.get("text_config", release)["unpadded_vocab_size"] = model.logits_size
    release[inkling_config.EXPORTED] = config.name
    release |= {"bos_token_id": None, "eos_token_id": None}  # a micro-turn ends with a gate, and nothing ends for good
    if release["model_type"] != inkling_config.MODEL_TYPE:
        return
    theirs = {name: origin[name] for name in inkling_config.TOKEN_IDS if name in origin}
    if theirs:
        release |= theirs
    elif model.vocab_size - model.logits_size >= 2:
        release |= {"audio_token_id": model.vocab_size - 2, "image_token_id": model.vocab_size - 1}  # unused rows


def _parts(config: Config, arrays: Mapping[str, ts.TensorStore], spelling: str) -> dict[str, Counterpart]:
    shapes = {path: tuple(array.shape) for path, array in arrays.items()}
    return {part.tensor: part for part in inkling.counterparts(config.model, shapes, spelling)}


def _rows(
    todo: Export, part: Counterpart, arrays: Mapping[str, ts.TensorStore], kind: np.dtype, shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """A tensor of a type and shape, slice by slice along its first axis."""
    sources = [arrays[path] for path in part.parameters]
    for first, end in pieces(part, sources[0].dtype.numpy_dtype.itemsize):
        place = place_of(part, first, end)
        rows = part.layout.theirs(*(array[place].read().result() for array in sources))
        if part.parameters[0] in todo.rows:
            rows = np.array(rows)
            put_rows(rows, first, todo.rows[part.parameters[0]], todo.start)
        if part.layout.axis is not None:  # an unembedding may have had no padding
            rows = rows[: max(0, shape[0] - first * part.layout.rows)]
        yield rows.astype(kind, copy=False)


def _begin(work: pathlib.Path, fingerprint: str) -> None:
    """Opens the folder of an export, new or interrupted."""
    mark = work / _FINGERPRINT
    if work.exists() and (not mark.exists() or mark.read_text() != fingerprint):
        raise ConvertError(f"{work} is of another export: delete it to begin anew")
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(fingerprint)
    for torn in work.glob("*.part"):
        torn.unlink()


def _fingerprint(folder: pathlib.Path, todo: Export) -> str:
    files = [
        (file, [(name, kind.name, shape) for name, kind, shape in tensors]) for file, tensors in todo.files.items()
    ]
    facts = (str(folder), os.stat(folder).st_mtime_ns, sorted(files), sorted(todo.documents.items()))
    return hashlib.sha256(repr(facts).encode()).hexdigest()
