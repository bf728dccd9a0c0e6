"""Weights as they are kept to serve: matrices in the type they are multiplied in, experts in eight bits if wished.

Memory is what a micro-turn waits for, so a matrix is kept in the type of its products; what is small, or added up in
float32, stays float32. In eight bits every column of a matrix has its own scale, so that its largest number becomes 127
(the usual symmetric rounding, as in LLM.int8(), arXiv 2208.07339, without its exceptions). Only the routed experts, 97%
of the flagship, are rounded.
"""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from tml_jax.config import Config
from tml_jax.model.backbone import unstacked
from tml_jax.parallel.mesh import parameter_shardings
from tml_jax.train.checkpoint import restore_part

ROUNDED = ("expert_gate", "expert_up", "expert_down")
_WIDE = ("router", "scale", "bias")


def weights_for_serving(variables: dict[str, Any], config: Config) -> dict[str, Any]:
    """The weights of a model, layer by layer, as `serve.dtype` and `serve.weights` ask for them.

    Args:
      variables: {"params", "balance"} of the model as it trains.
      config: the run.

    Returns:
      Those of the model with `scanned=False`, in other types; with `scales` where experts are rounded, see
      `quantize_experts`.
    """
    variables = unstacked(variables, config.model)
    if config.serve.weights == "int8":
        variables = quantize_experts(variables)
    return {**variables, "params": narrowed(variables["params"], config.serve.dtype)}


def narrowed(params: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Parameters with their matrices of products in another type; what is small, or added up, stays as it is."""
    narrow = lambda path, leaf: leaf if _stays_wide(path, leaf) else leaf.astype(dtype)  # noqa: E731
    return jax.tree_util.tree_map_with_path(narrow, params)


def convert_for_serving(variables: dict[str, Any], config: Config, mesh: Mesh | None) -> dict[str, Any]:
    """`weights_for_serving`, of all variables or of some, on the devices where they are; `mesh` None on one device."""
    convert = functools.partial(weights_for_serving, config=config)
    where = None if mesh is None else parameter_shardings(mesh, jax.eval_shape(convert, variables))
    return jax.jit(convert, out_shardings=where)(variables)


def load_rounded(folder: pathlib.Path, targets: dict[str, Any], config: Config, mesh: Mesh | None) -> dict[str, Any]:
    """Loads a checkpoint as `weights_for_serving` keeps it: first all else, then the experts, stack by stack.

    Beside what is kept there is never more than one of these parts as it was saved: devices that hold the experts in
    eight bits need not have room for them as they are.

    Args:
      folder: the checkpoint.
      targets: {"params", "balance"} of `jax.ShapeDtypeStruct` with shardings, as saved.
      config: the run.
      mesh: the devices; None for one.

    Returns:
      See `weights_for_serving`.

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    paths = flatten_dict(targets)
    stacks = [{path} for path in paths if path[-1] in ROUNDED]
    kept = {}
    for part in ({path for path in paths if path[-1] not in ROUNDED}, *stacks):  # the largest while there is room
        read = restore_part(folder, targets, part)
        kept |= flatten_dict(convert_for_serving(read, config, mesh))
        del read
    return unflatten_dict(kept)


def _stays_wide(path: tuple, leaf: jax.Array) -> bool:
    """Whether a parameter is no matrix of products, or is rounded already, and so keeps its type."""
    *_, owner, name = ("", *(part.key for part in path))
    return leaf.dtype == jnp.int8 or leaf.ndim < 2 or name in _WIDE or owner.endswith("conv")


def quantize_experts(variables: dict[str, Any]) -> dict[str, Any]:
    """Rounds the routed experts to int8.

    Args:
      variables: {"params", "balance"} of the model.

    Returns:
      The same with int8 experts, and `scales`: for each, by the same path, (…, E, 1, columns) float32.
    """
    params, scales = flatten_dict(variables["params"]), {}
    for path, leaf in params.items():
        if path[-1] in ROUNDED:
            largest = jnp.max(jnp.abs(leaf.astype(jnp.float32)), axis=-2, keepdims=True)
            scales[path] = jnp.where(largest > 0, largest / 127, 1.0)
            params[path] = jnp.round(leaf / scales[path]).astype(jnp.int8)
    return {**variables, "params": unflatten_dict(params), "scales": unflatten_dict(scales)}
