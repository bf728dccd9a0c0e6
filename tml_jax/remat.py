"""What the backward pass of a layer finds, and what it computes again."""

from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

_KEPT = "kept"

# `TrainConfig.remat` → policy of `jax.checkpoint`, but for `none`.
POLICIES = {
    "dots": jax.checkpoint_policies.dots_saveable,
    "kept": jax.checkpoint_policies.save_only_these_names(_KEPT),
    "block": jax.checkpoint_policies.nothing_saveable,
}


def keep(values: Any) -> Any:
    """Marks arrays, or a tree of them, that take more time to compute again than room to keep: `remat=kept` does."""
    return jax.tree.map(lambda x: checkpoint_name(x, _KEPT), values)
