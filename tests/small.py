"""A small model with every kind of layer: dense, sparse, sliding, global, scanned and not; and random weights."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from synthetic import make_conversation, tokenizer

from configs import tiny
from tml_jax.config import Config, ModelConfig, PackingConfig, ServeConfig, from_mapping
from tml_jax.data.elements import conversation_elements
from tml_jax.data.packing import Batch, pack
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.tokens import Control

SMALL = ModelConfig(
    d_model=32,
    num_layers=8,
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
    vocab_size=320,
    text_vocab_size=300,
    vision_stages=((1, 5, 5, 4), (1, 10, 10, 8), (1, 40, 40, 16), (2, 40, 40, 99)),
    flow_width=400,
    flow_blocks=1,
    max_text_out=3,
)
PACKING = PackingConfig(elements=192, audio_in=48, video=16, audio_out=48, outputs=80, segments=2)


def small_config(context: int = 400, max_text_in: int = 3) -> Config:
    """A run of the small model: the tiny configuration with its sizes."""
    config = from_mapping(tiny.get_config())
    return dataclasses.replace(config, name="small", model=SMALL, serve=ServeConfig(context, max_text_in))


def random_leaves(shapes: Any, seed: int) -> Any:
    """Weights as after training: nowhere zero or one, so that a wrong term shows.

    Args:
      shapes: tree of parameters, or of their shapes.
      seed: of the weights.

    Returns:
      The same tree of float32 arrays.
    """
    rng = np.random.default_rng(seed)

    def weights(path: tuple, leaf: Any) -> jax.Array:
        noise = rng.standard_normal(leaf.shape).astype(np.float32)
        if path[-1].key.endswith("scale"):
            return jnp.asarray(1 + 0.2 * noise)
        if path[-1].key.endswith("bias"):
            return jnp.asarray(0.1 * noise)
        return jnp.asarray(noise * np.float32(max(leaf.shape[:-1]) ** -0.5))

    return jax.tree_util.tree_map_with_path(weights, shapes)


def random_variables(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """Random weights of the whole model, with gates and spans as likely as the much more numerous text tokens.

    Returns:
      `{"params": …, "balance": …}`, float32.
    """
    shapes = jax.eval_shape(lambda key: init_variables(InteractionModel(config), key), jax.random.key(0))
    variables = random_leaves(shapes, seed)
    said = [config.text_vocab_size + control for control in SAID]
    variables["params"]["unembedding"] = variables["params"]["unembedding"].at[:, jnp.asarray(said)].multiply(4)
    return variables


SAID = (Control.LISTEN, Control.SPEAK, Control.DISPLAY, Control.END)  # what the model may say beside text


def random_batch(config: Config, rows: int, seed: int) -> Batch:
    """Packed rows of synthetic conversations, two of a second or less in each.

    Args:
      config: the run; its packing must hold them.
      rows: of the batch.
      seed: of the conversations.

    Returns:
      The batch, in numpy.
    """
    made = [make_conversation(1000 * seed + i, 0.6 + 0.1 * (i % 5)) for i in range(2 * rows)]
    elements = [conversation_elements(conversation, tokenizer(), config) for conversation in made]
    pairs = [[2 * row, 2 * row + 1] for row in range(rows)]
    return pack([[elements[i] for i in pair] for pair in pairs], pairs, config.data.packing)
