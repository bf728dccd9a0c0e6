"""Expert weights in eight bits: half the memory of bfloat16, and half the bytes that a micro-turn waits for.

Every column of a matrix has its own scale, so that its largest number becomes 127 (the usual symmetric rounding, as in
LLM.int8(), arXiv 2208.07339, without its exceptions). Only the routed experts, 97% of the flagship, are rounded.
"""

from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

ROUNDED = ("expert_gate", "expert_up", "expert_down")


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
