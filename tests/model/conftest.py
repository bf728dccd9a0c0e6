"""A small model with every kind of layer: dense, sparse, sliding, global, scanned and not."""

import jax
import pytest

from tml_jax.config import ModelConfig
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.tokens import Control

SMALL = ModelConfig(
    d_model=32,
    num_layers=7,
    num_dense_layers=1,
    global_every=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    window=12,
    rel_extent=24,
    d_rel=4,
    log_scaling_floor=20,
    dense_ffn=48,
    expert_ffn=24,
    num_experts=4,
    num_shared_experts=1,
    top_k=2,
    route_scale=2.0,
    vocab_size=64,
    text_vocab_size=64 - len(Control),
    vision_stages=((1, 5, 5, 4), (1, 10, 10, 8), (1, 40, 40, 16), (2, 40, 40, 32)),
    flow_width=400,
    flow_blocks=1,
    max_text_out=3,
)


@pytest.fixture(scope="session")
def small_model() -> InteractionModel:
    return InteractionModel(SMALL)


@pytest.fixture(scope="session")
def small_variables(small_model):
    variables = init_variables(small_model, jax.random.key(0))
    # Trained weights are nowhere zero or one; neither are these, so that a wrong term shows.
    leaves, tree = jax.tree.flatten(variables)
    leaves = [
        leaf + 0.2 * leaf.std() * jax.random.normal(jax.random.fold_in(jax.random.key(1), i), leaf.shape)
        + 0.05 * jax.random.normal(jax.random.fold_in(jax.random.key(2), i), leaf.shape)
        for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, leaves)
