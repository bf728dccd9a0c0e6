"""The arrays of a checkpoint, read and written slice by slice, so that none needs to fit in memory.

Orbax saves and loads whole arrays, or whole shards of them. Underneath, a checkpoint is a folder of zarr arrays
(tensorstore), which take slices. The reader opens those of any checkpoint. The writer fills arrays of its own, and at
the end lets Orbax make the checkpoint around them.
"""

import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorstore as ts
from flax.traverse_util import flatten_dict
from orbax.checkpoint import v1 as ocp

READ_BYTES = 4 << 20  # what one read takes at least; a device that needs part of an array reads few bytes too many
_MODEL = "model"  # the part of a checkpoint that holds params and balance (see train/checkpoint.py)
_TREE_FILE = "_METADATA"


def open_arrays(checkpoint: str | os.PathLike) -> dict[str, ts.TensorStore]:
    """Opens the model's arrays of a checkpoint for reading.

    Args:
      checkpoint: RUN/checkpoints/STEP.

    Returns:
      Path of the parameter, such as `params/inputs/text_table` → array, to be read by `array[slices].read().result()`.
    """
    folder = pathlib.Path(checkpoint).absolute() / _MODEL
    tree = json.loads((folder / _TREE_FILE).read_text())
    driver = "zarr3" if tree["use_zarr3"] else "zarr"
    arrays = {}
    for entry in tree["tree_metadata"].values():
        if entry["value_metadata"]["skip_deserialize"]:
            continue  # an empty part of the tree
        keys = [key["key"] for key in entry["key_metadata"]]
        stored = ".".join(keys)
        if tree["use_ocdbt"]:
            store = {"driver": "ocdbt", "base": f"file://{folder}/", "path": f"{stored}/"}
        else:
            store = {"driver": "file", "path": f"{folder / stored}/"}
        arrays["/".join(keys)] = ts.open({"driver": driver, "kvstore": store}, open=True, read=True).result()
    return arrays


def slices(array: ts.TensorStore, most_bytes: int) -> Iterator[np.ndarray]:
    """An array from its first number to its last, in pieces.

    Args:
      array: of `open_arrays`.
      most_bytes: of a piece, unless one row along the last axis has more.

    Yields:
      Pieces; laid one after another they are the array in row-major order.
    """
    if array.ndim <= 1 or math.prod(array.shape) * array.dtype.numpy_dtype.itemsize <= most_bytes:
        yield array.read().result()
        return
    row = math.prod(array.shape[1:]) * array.dtype.numpy_dtype.itemsize
    if row > most_bytes:
        for index in range(array.shape[0]):
            yield from slices(array[index], most_bytes)
        return
    rows = max(1, most_bytes // row)
    for first in range(0, array.shape[0], rows):
        yield array[first : min(first + rows, array.shape[0])].read().result()


class ArrayWriter:
    """Arrays in a folder, one folder each, which `finish` turns into a checkpoint."""

    def __init__(self, folder: pathlib.Path, shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]]) -> None:
        """Continues what is in `folder`, or begins.

        Args:
          folder: where the arrays are put.
          shapes: path of the parameter → shape and dtype.
        """
        self._folder, self._shapes = folder, dict(shapes)
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, path: str, piece: tuple[int, ...]) -> ts.TensorStore:
        """Opens one array, to be filled by `array[slices].write(piece).result()`.

        Args:
          path: of the parameter.
          piece: shape of what is written at a time; pieces begin at multiples of it.

        Returns:
          The array. All of it has to be written.
        """
        shape, dtype = self._shapes[path]
        chunk = read_chunk(piece, dtype.itemsize)
        codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
        grid, sizes = {"name": "regular"}, {"chunk_shape": list(piece)}
        if chunk != piece:  # a piece is one file, in which smaller parts can be read by themselves
            codecs = [{"name": "sharding_indexed", "configuration": {"chunk_shape": list(chunk), "codecs": codecs}}]
        spec = {
            "driver": "zarr3",
            "store_data_equal_to_fill_value": True,  # Orbax takes what is not there for damage
            "kvstore": {"driver": "file", "path": f"{self._folder / path.replace('/', '.')}/"},
            "metadata": {
                "shape": list(shape),
                "data_type": dtype.name,
                "chunk_grid": {**grid, "configuration": sizes},
                "codecs": codecs,
            },
        }
        return ts.open(spec, create=True, open=True, write=True, read=True).result()

    def finish(self, checkpoint: pathlib.Path, tree: Any, metadata: dict[str, Any]) -> None:
        """Makes the checkpoint.

        Args:
          checkpoint: the folder RUN/checkpoints/STEP; appears complete or not at all.
          tree: {"params", "balance"}, whose leaves are anything with shape and dtype.
          metadata: what is noted beside the arrays.
        """
        built = self._folder.with_name(self._folder.name + ".built")
        names = [path.replace("/", ".") for path in flatten_dict(tree, sep="/")]
        for name in names:  # what an earlier call had moved when it was killed
            if not (self._folder / name).exists() and (built / _MODEL / name).exists():
                os.rename(built / _MODEL / name, self._folder / name)
        shutil.rmtree(built, ignore_errors=True)
        # Orbax writes the same tree with one number for each array; then the real arrays take their places.
        small = jax.tree.map(lambda leaf: jnp.zeros((1,) * len(leaf.shape), leaf.dtype), tree)
        context = ocp.Context()
        context.array.saving.use_ocdbt = False
        with context:
            ocp.save_checkpointables(built, {_MODEL: small}, custom_metadata=metadata)
        model = built / _MODEL
        shutil.rmtree(model / "array_metadatas")  # chunk shapes and placement of the small arrays: the
        (model / "_sharding").unlink()  # arrays' own metadata hold theirs
        for name in names:
            shutil.rmtree(model / name)
            os.rename(self._folder / name, model / name)
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        os.rename(built, checkpoint)


def read_chunk(piece: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Shape of the smallest part of a piece that can be read by itself: halved along its longest even axes down to
    `READ_BYTES`."""
    chunk = list(piece)
    while math.prod(chunk) * itemsize > READ_BYTES:
        even = [axis for axis, size in enumerate(chunk) if size % 2 == 0]
        if not even:
            break
        longest = max(even, key=lambda axis: chunk[axis])
        chunk[longest] //= 2
    return tuple(chunk)
