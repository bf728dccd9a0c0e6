"""What both sides of the comparison with the reference get: configurations, random weights, conversations.

Random numbers come from numpy's RandomState, whose streams never change (NEP 19), so that the golden file need not
hold the weights.
"""

import dataclasses
import pathlib
import zlib

import numpy as np

from tml_jax.config import ModelConfig
from tml_jax.eval.parity import Sequence, random_sequence
from tml_jax.interop.inkling_config import PLANNED_STAGES

SEED = 3  # of the weights
GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "inkling_golden.npz"


def stages(count: int) -> tuple:
    """The reference's folds of a patch in `count` stages; it releases weights for four."""
    return (*PLANNED_STAGES[count], (2, 40, 40, 1))


BASE = ModelConfig(
    d_model=32,
    num_layers=3,
    num_dense_layers=1,
    global_every=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    window=9,
    rel_extent=20,
    d_rel=4,
    dense_ffn=48,
    expert_ffn=24,
    num_experts=6,
    num_shared_experts=2,
    top_k=3,
    route_scale=2.5,
    logit_divisor=4.0,
    vocab_size=72,
    text_vocab_size=56,
    vision_stages=stages(2),
    flow_width=400,
    flow_blocks=1,
)
GOLDEN_CONFIG = dataclasses.replace(BASE, num_layers=8, log_scaling_floor=20, vision_stages=stages(4))


def uniform(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Independent numbers of zero mean and unit variance, by name and seed."""
    random = np.random.RandomState([seed, zlib.crc32(name.encode())])
    return (random.random_sample(shape) * 12**0.5 - 3**0.5).astype(np.float32)


def random_weight(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One tensor of the reference. Nothing is zero or one as after initialisation, so that a wrong term shows."""
    noise = uniform(name, shape, seed)
    if name.endswith(("q_norm.weight", "k_norm.weight")):
        return 2 + 0.5 * noise  # scores are scaled by 1 / head_dim: larger norms make attention choose
    if "norm" in name or name.endswith("global_scale"):
        return 1 + 0.3 * noise
    if name.endswith("e_score_correction_bias"):
        return 0.2 * noise
    if name.endswith(("conv1d.weight", "rel_logits_proj.proj")):
        return 0.4 * noise
    if "embed" in name:
        return noise
    return noise / np.float32(shape[-1] ** 0.5)


def random_weights(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    return {name: random_weight(name, shape, seed) for name, shape in shapes.items()}


def golden_sequences() -> list[Sequence]:
    """The two conversations of the golden file."""
    return [
        random_sequence(GOLDEN_CONFIG, "audio+image+text", 40, seed=11),
        random_sequence(GOLDEN_CONFIG, "text+audio", 60, seed=12),
    ]
