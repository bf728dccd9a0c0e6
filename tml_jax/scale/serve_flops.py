"""Floating point operations of the steps of a micro-turn on one device, counted by hand as in `flops`.

What a micro-turn waits for is memory, so operations are no measure of it; the count is there to be held against the
compiler's, which shows that nothing was left out of its account.
"""

import math
from collections.abc import Mapping

from tml_jax.config import AUDIO_ELEMENTS, BATCH_AXES, DMEL_LEVELS, MEL_BINS, OWN_FRAMES, Config
from tml_jax.kernels.grouped_matmul import ROWS
from tml_jax.model.attention import BLOCK_APPEND, ring_slots
from tml_jax.parallel.transport import FEW_TOKENS
from tml_jax.scale.flops import flow_flops, layer_flops, patch_flops
from tml_jax.serve.windows import block_sizes


def step_flops(config: Config, mesh: Mapping[str, int], step: str, sessions: int, frames: bool) -> dict[str, float]:
    """Counts one step.

    Args:
      config: the run.
      mesh: axis → devices.
      step: `input`, `text` or `audio`.
      sessions: in one call.
      frames: whether a frame is in the input.

    Returns:
      Part → operations of one device.
    """
    model = config.model
    elements = block_sizes(config)[1 if frames else 0] if step == "input" else 1
    every, tensor = sessions * elements, mesh["tensor"]
    if sessions % mesh["data"] == 0:
        every //= mesh["data"]  # of one copy of the experts
    shards = math.prod(mesh[axis] for axis in BATCH_AXES)
    tokens = sessions * elements // shards if sessions % shards == 0 else every
    parts = {part: each * tokens / tensor for part, each in layer_flops(model).items()}
    parts["routers"] *= tensor  # small, and whole on every device
    pairs = _expert_pairs(config, mesh["expert"], every)
    sparse = model.num_layers - model.num_dense_layers
    parts["routed experts"] = sparse * pairs * 2 * 3 * model.d_model * model.expert_ffn / tensor
    parts["attention"] = (sessions / (shards if sessions % shards == 0 else 1)) * _attention(config, tensor, elements)
    if step == "input":
        parts["audio in"] = 2 * MEL_BINS * DMEL_LEVELS * model.d_model * AUDIO_ELEMENTS * tokens / elements
        if frames:
            parts["video"] = patch_flops(model) * math.prod(config.data.video_grid) * tokens / elements
    elif step == "text":
        parts["unembedding"] = 2 * model.d_model * model.vocab_size * tokens / tensor
    else:
        parts["own audio in"] = 2 * OWN_FRAMES * MEL_BINS * DMEL_LEVELS * model.d_model * tokens
        parts["flow"] = flow_flops(model) * model.flow_steps * tokens
    return parts


def _expert_pairs(config: Config, expert: int, tokens: int) -> float:
    """Pairs of token and expert that a device multiplies in one layer, as `parallel.transport` does."""
    model = config.model
    if tokens > FEW_TOKENS:
        return ROWS * math.ceil(tokens * model.top_k / ROWS)
    chosen = model.num_experts / expert * (1 - (1 - model.top_k / model.num_experts) ** tokens)
    return tokens * chosen


def _attention(config: Config, tensor: int, elements: int) -> float:
    """Operations of one session in the attention of all layers; the kernel's own estimate, with full caches."""
    model, total = config.model, 0.0
    for layer in range(model.num_layers):
        is_global = model.is_global(layer)
        heads, _, width = model.heads(is_global)
        slots = ring_slots(model, is_global, config.serve.context, block_sizes(config)[-1], config.serve.dtype)
        extent = model.rel_extent if is_global else model.window
        with_bias = min(slots, extent + elements + min(BLOCK_APPEND, slots))
        total += heads / tensor * elements * (4 * slots * width + 2 * with_bias * model.d_rel)
    return total
