"""The arrays of one checkpoint: described, loaded and held against their checksums."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or of another model: says which one and what to do."""


class Damaged(Exception):
    """Files of a checkpoint are missing or do not hold what was written."""


def describe(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of the stored arrays, and what was stored beside them."""
    try:
        found = ocp.checkpointables_metadata(folder)
        parts, metadata = found.metadata, found.custom_metadata
        if parts.get("model") is None or "checksums" not in metadata or "data" not in metadata:
            raise Damaged("its description is incomplete")
        return parts, metadata
    except Damaged:
        raise
    except Exception as error:  # Orbax reports unreadable files with many types of exception.
        raise Damaged(brief(error)) from error


def load(folder: pathlib.Path, targets: dict[str, Any], saved: dict[str, Any], metadata: dict[str, Any]) -> Any:
    """Loads `targets` (parts of a checkpoint) and compares every array with its checksum.

    Orbax checks its own indices, but a flipped bit in the bulk of a large array would pass unnoticed.
    """
    for part, target in targets.items():
        if saved.get(part) is None:
            raise Damaged(f"the description of its {part} cannot be read")
        _check_same_arrays(folder, named(target), named(saved[part]))
    try:
        parts = ocp.load_checkpointables(folder, targets)
    except Exception as error:
        raise Damaged(brief(error)) from error
    for name, checksum in checksums(parts).items():
        if checksum != metadata["checksums"].get(name):
            raise Damaged(f"{name} does not hold what was written")
    return parts


def _check_same_arrays(folder: pathlib.Path, wanted: dict[str, Any], saved: dict[str, Any]) -> None:
    different = [f"{name} is not in the checkpoint" for name in wanted if name not in saved]
    different += [f"{name} is not in the model" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        ours, theirs = wanted[name], saved[name]
        if ours is not ocp.PLACEHOLDER and (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            different.append(f"{name}: {theirs.dtype}{theirs.shape} saved, {ours.dtype}{ours.shape} wanted")
    if different:
        shown = "; ".join(sorted(different)[:3]) + ("; …" if len(different) > 3 else "")
        raise CheckpointError(f"the checkpoint {folder} is of another model, {len(different)} arrays differ: {shown}")


def array_name(path: Any) -> str:
    """Path of a leaf in its tree, as checkpoints spell it: `params/inputs/text_table`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named(tree: Any) -> dict[str, Any]:
    """Name → leaf."""
    return {array_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def checksums(tree: Any) -> dict[str, int]:
    """Name → sum of the array's bits, read as unsigned integers, modulo 2³². Placeholders are left out."""
    # One after another: all at once they would be held a second time, as integers.
    return {name: int(_bit_sum(leaf)) for name, leaf in named(tree).items() if leaf is not ocp.PLACEHOLDER}


@jax.jit
def _bit_sum(x: jax.Array) -> jax.Array:
    kind = np.dtype(f"uint{8 * x.dtype.itemsize}")
    bits = x.astype(kind) if x.dtype == bool else jax.lax.bitcast_convert_type(x, kind)
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)


def brief(error: BaseException) -> str:
    """What an exception says, in one line of at most 200 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
