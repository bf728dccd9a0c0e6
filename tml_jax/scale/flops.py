"""Floating point operations of a train step and of a micro-turn, counted by hand from the sizes of the model.

Two counts. `useful` is what the mathematics asks for: causal attention over what is seen, the chosen experts, one
forward and two backward products for each matrix; a utilisation (MFU) divides it by what the chips could do. `program`
is what the compiled step executes besides: whole tiles of attention, the recomputation of layers in the backward pass
(remat), the empty rows of expert buffers. It is held against the compiler's own count. A multiplication and an
addition are two operations; only products of matrices are counted.
"""

import dataclasses
import math

from tml_jax.config import DMEL_LEVELS, MEL_BINS, OWN_FRAMES, PATCH, Config, ModelConfig
from tml_jax.model.attention import BLOCK_GLOBAL, BLOCK_SLIDING
from tml_jax.model.flow import TARGET

# Products of (T, T) matrices in the attention kernel: forward 2; backward 2 + 1 for queries and 2 + 2 for keys.
FORWARD_PRODUCTS, BACKWARD_PRODUCTS = 2, 7
_PARTS = ("projections", "keys and values", "dense MLPs", "routers", "routed experts", "shared experts")
# Forward passes that are repeated in the backward pass, by `TrainConfig.remat`.
_AGAIN: dict[str, dict[str, int]] = {
    "none": {},
    "dots": {"attention": 1},  # its kernel is no product to JAX
    "kept": {"routed experts": 1, "keys and values": 1},
    "block": dict.fromkeys((*_PARTS, "attention"), 1),
}


@dataclasses.dataclass(frozen=True)
class Flops:
    """Operations of a step over the whole batch.

    Attributes:
      useful: part of the model → operations that the mathematics asks for.
      program: part → operations that the program executes.
    """

    useful: dict[str, float]
    program: dict[str, float]


def train_flops(config: Config, stripes: int = 1) -> Flops:
    """Counts a train step.

    Args:
      config: the run.
      stripes: of a row, the size of the mesh axis `sequence`.

    Returns:
      The operations.
    """
    model, packing = config.model, config.data.packing
    rows, time = config.data.batch_size, packing.elements
    elements = rows * time
    again: dict[str, float] = dict(_AGAIN[config.train.remat])
    if config.train.remat == "kept" and config.mesh.transport == "capacity":
        again["routed experts"] = 2 / 3  # pairs are weighted before the third product, so nobody asks for what it gives
    if config.train.remat == "dots" and config.mesh.transport != "capacity":
        again["routed experts"] = 1  # their kernel is no product to JAX either
    layers = layer_flops(model)
    useful, program = {}, {}
    for part, each in layers.items():
        useful[part] = 3 * each * elements
        program[part] = (3 + again.get(part, 0)) * each * elements
    program["routed experts"] *= config.mesh.capacity or 1  # with room for any load it cannot be known

    pairs = [seen_pairs(time, None if model.is_global(layer) else model.window) for layer in range(model.num_layers)]
    tiles = [
        tile_pairs(time, None, BLOCK_GLOBAL, stripes)
        if model.is_global(layer)
        else tile_pairs(time, model.window, BLOCK_SLIDING, stripes)
        for layer in range(model.num_layers)
    ]
    width = [math.prod(model.heads(model.is_global(layer))[::2]) for layer in range(model.num_layers)]
    product = [2 * rows * each for each in width]
    useful["attention"] = sum(p * n * 3 * FORWARD_PRODUCTS for p, n in zip(product, pairs))
    passes = FORWARD_PRODUCTS * (1 + again.get("attention", 0)) + BACKWARD_PRODUCTS
    program["attention"] = sum(p * n * passes for p, n in zip(product, tiles))

    ends = {
        "audio in": 2 * MEL_BINS * DMEL_LEVELS * model.d_model * rows * packing.audio_in,
        "own audio in": 2 * OWN_FRAMES * MEL_BINS * DMEL_LEVELS * model.d_model * rows * packing.audio_out,
        "video": patch_flops(model) * rows * packing.video,
        "unembedding": 2 * model.d_model * model.logits_size * rows * packing.outputs,
        "flow": flow_flops(model) * rows * packing.audio_out * config.train.flow_draws,
    }
    for part, once in ends.items():
        useful[part] = program[part] = 3 * once
    return Flops(useful, program)


def layer_flops(model: ModelConfig) -> dict[str, float]:
    """Part → operations of one forward pass of one element through all layers, but for the pairs of attention."""
    parts = dict.fromkeys(_PARTS, 0.0)
    for layer in range(model.num_layers):
        heads, kv_heads, width = model.heads(model.is_global(layer))
        parts["projections"] += 2 * model.d_model * (2 * heads * width + heads * model.d_rel)
        parts["keys and values"] += 2 * model.d_model * 2 * kv_heads * width
        if model.is_dense(layer):
            parts["dense MLPs"] += 2 * 3 * model.d_model * model.dense_ffn
            continue
        expert = 2 * 3 * model.d_model * model.expert_ffn
        parts["routers"] += 2 * model.d_model * (model.num_experts + model.num_shared_experts)
        parts["routed experts"] += expert * model.top_k
        parts["shared experts"] += expert * model.num_shared_experts
    return parts


def seen_pairs(time: int, window: int | None) -> int:
    """Pairs of query and key in one row of `time` elements of one segment; all earlier ones, or those of a window."""
    if window is None or window >= time:
        return time * (time + 1) // 2
    return window * (window + 1) // 2 + (time - window) * window


def tile_pairs(time: int, window: int | None, block: int, stripes: int = 1) -> int:
    """Pairs in the tiles that the attention kernels run for a row, each stripe as many as the last one."""
    window, length = window or time, time // stripes
    before = -(-min(window - 1, time - length) // block)  # blocks of keys before those of a stripe
    blocks = -(-length // block)
    most = min(before + blocks, -(-(window - 1) // block) + 1)
    return stripes * block * block * sum(min(before + index + 1, most) for index in range(blocks))


def patch_flops(model: ModelConfig) -> float:
    """Operations of one patch through the patch network."""
    total, before, depth = 0.0, (1, 1, 1), PATCH[3]
    for index, (*covers, channels) in enumerate(model.vision_stages):
        folded = math.prod(size // was for size, was in zip(covers, before)) * depth
        depth = model.d_model if index == len(model.vision_stages) - 1 else channels
        cells = math.prod(size // cover for size, cover in zip(PATCH[:3], covers))
        total += 2 * cells * folded * depth
        before = covers
    return total


def flow_flops(model: ModelConfig) -> float:
    """Operations of one evaluation of the flow's velocity."""
    width = model.flow_width
    inputs = model.d_model * width + 128 * width + TARGET * width
    blocks = model.flow_blocks * (3 * width * width + 2 * width * width)
    return 2 * (inputs + blocks + 2 * width * width + width * TARGET)
