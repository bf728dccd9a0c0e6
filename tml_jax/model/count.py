"""Counts parameters by part, without allocating any."""

import math
from collections.abc import Mapping

import jax

from tml_jax.config import ModelConfig
from tml_jax.model.interaction import InteractionModel, init_variables

PARTS = {
    "text embedding": ("text_table",),
    "audio embedding": ("audio_in/",),
    "own-audio embedding": ("own_audio/",),
    "patch network": ("inputs/video/",),
    "attention": ("attention/",),
    "dense MLPs": ("mlp/",),
    "routers": ("moe/router", "moe/global_scale"),
    "routed experts": ("moe/expert_",),
    "shared experts": ("moe/shared_",),
    "branch convolutions": ("attention_conv/", "mlp_conv/"),
    "norms": ("norm",),
    "unembedding": ("unembedding",),
    "flow head": ("flow/",),
}  # the first part whose pattern is in a parameter's path takes it


def count_parameters(config: ModelConfig) -> dict[str, int]:
    """Parameters of each part of the model.

    Args:
      config: the model.

    Returns:
      Part → number of parameters, in the order of `PARTS`.
    """
    shapes = jax.eval_shape(lambda key: init_variables(InteractionModel(config), key), jax.random.key(0))["params"]
    # Longest pattern first: `flow/condition_norm` is of the flow head, not a norm.
    patterns = [("flow head", "flow/")] + [(part, pattern) for part in PARTS for pattern in PARTS[part]]
    counts = dict.fromkeys(PARTS, 0)
    for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]:
        name = "/".join(str(key.key) for key in path)
        part = next((part for part, pattern in patterns if pattern in name), None)
        if part is None:
            raise ValueError(f"parameter {name} belongs to no part of {__name__}.PARTS")
        counts[part] += math.prod(leaf.shape)
    return counts


def active_parameters(config: ModelConfig, counts: Mapping[str, int]) -> int:
    """Parameters that one text token meets: of the routed experts its top k, of the tables its one row.

    The audio and video inputs and the flow head, which a text token does not pass, are left out; so is the text
    table, of which it reads one row.

    Args:
      config: the model.
      counts: of `count_parameters`.

    Returns:
      The number.
    """
    idle = ("audio embedding", "own-audio embedding", "patch network", "flow head", "text embedding")
    used = sum(number for part, number in counts.items() if part not in idle)
    return used - counts["routed experts"] * (config.num_experts - config.top_k) // config.num_experts
