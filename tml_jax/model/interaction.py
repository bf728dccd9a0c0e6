"""The interaction model: inputs → backbone → text, gates and mel. Training and streaming run this one module."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig
from tml_jax.model.attention import Append, Packed
from tml_jax.model.backbone import Backbone
from tml_jax.model.flow import TARGET, FlowHead
from tml_jax.model.inputs import ElementArrays, InputEmbeddings
from tml_jax.model.layers import fan_in_init
from tml_jax.parallel.placement import Placement
from tml_jax.parallel.stripes import fold, unfold


class InteractionModel(nn.Module):
    """Audio, video and text in; text, gates and mel out.

    Attributes:
      config: sizes.
      dtype: of activations and matrix products; parameters are float32 masters.
      remat: see `TrainConfig.remat`.
      placement: devices and transport of tokens to experts; None on one device.
      scanned: whether layers run in a loop, see `backbone.layer_plan`.
    """

    config: ModelConfig
    dtype: jnp.dtype = jnp.float32
    remat: str = "none"
    placement: Placement | None = None
    scanned: bool = True

    def setup(self) -> None:
        """Makes the parts."""
        cfg = self.config
        self.inputs = InputEmbeddings(cfg, self.dtype, self.placement)
        self.backbone = Backbone(cfg, self.remat, self.placement, self.scanned)
        self.unembedding = self.param("unembedding", fan_in_init(0), (cfg.d_model, cfg.vocab_size), jnp.float32)
        self.flow = FlowHead(cfg)

    def __call__(self, elements: ElementArrays, where: Packed) -> tuple[jax.Array, dict[str, Any]]:
        """Packed rows → hidden states.

        Args:
          elements: (B, T) elements with their side arrays.
          where: segments and positions.

        Returns:
          Hidden states (B, T, D), and extras by layer, see `MoE`.
        """
        elements, where = jax.tree.map(lambda x: fold(x, self.placement), (elements, where))
        hidden, _, extras = self.backbone(self.inputs(elements), where)
        hidden = unfold(hidden, self.placement)
        if self.is_initializing():
            self.velocity(jnp.zeros((1, TARGET)), jnp.zeros((1,)), hidden[:1, 0])
        return hidden, extras

    def append(self, elements: ElementArrays, where: Append, caches: Any, context: int) -> tuple[jax.Array, Any]:
        """Appends T elements to B streams.

        Args:
          elements: (B, T) elements, left-aligned.
          where: elements already there, and how many of the T are real.
          caches: streaming state.
          context: elements that global layers see.

        Returns:
          Hidden state after the last real element (B, D), and the new caches. A stream with no real element gets an
          arbitrary hidden state.
        """
        hidden, caches, _ = self.backbone(self.inputs(elements), where, caches, context)
        last = jnp.maximum(where.valid - 1, 0)[:, None, None]
        return jnp.take_along_axis(hidden, last, axis=1)[:, 0], caches

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Hidden states (…, D) → logits (…, text_vocab_size + control tokens) float32."""
        logits = (hidden / self.config.logit_divisor) @ self.unembedding.astype(self.dtype)
        # Cut here, and not off the matrix: that would be copied for every token, and between devices that split it.
        return logits[..., : self.config.logits_size].astype(jnp.float32)

    def velocity(self, noisy: jax.Array, time: jax.Array, hidden: jax.Array) -> jax.Array:
        """Velocity of the flow, see `FlowHead`."""
        return self.velocity_under(noisy, self.conditions(time, hidden))

    def conditions(self, time: jax.Array, hidden: jax.Array) -> Any:
        """What the velocity takes of time and hidden state, see `FlowHead.conditions`."""
        with jax.named_scope("flow"):
            return self.flow.conditions(time, hidden)

    def velocity_under(self, noisy: jax.Array, conditions: Any) -> jax.Array:
        """Velocity of the flow under `conditions`."""
        with jax.named_scope("flow"):
            return self.flow.velocity(noisy, conditions)

    def mel(self, noise: jax.Array, hidden: jax.Array) -> jax.Array:
        """Integrates the flow by Euler steps.

        Args:
          noise: (…, 400).
          hidden: (…, D), the hidden state before the element.

        Returns:
          Normalised mel (…, 400) float32.
        """
        steps = self.config.flow_steps
        times = jnp.arange(steps, dtype=jnp.float32).reshape(steps, *[1] * (noise.ndim - 1)) / steps
        conditions = self.conditions(times, hidden[None])
        x = noise
        for step in range(steps):
            x = x + self.velocity_under(x, jax.tree.map(lambda every, step=step: every[step], conditions)) / steps
        return x


def init_variables(model: InteractionModel, key: jax.Array) -> dict[str, Any]:
    """Parameters and router biases.

    Args:
      model: the module.
      key: randomness.

    Returns:
      `{"params": …, "balance": …}`, plain nested dicts of float32 arrays.
    """
    empty = lambda *shape, dtype=jnp.int32: jnp.zeros((1, *shape), dtype)  # noqa: E731
    elements = ElementArrays(
        stream=empty(1, dtype=jnp.int8),
        token=empty(1),
        slot=empty(1),
        audio_in=empty(1, 80, dtype=jnp.uint8),
        video=empty(1, 2, 40, 40, 3, dtype=jnp.uint8),
        audio_out=empty(1, 5, 80, dtype=jnp.float32),
    )
    variables = model.init(key, elements, Packed(segment=empty(1), position=empty(1)))
    return {"params": variables["params"], "balance": variables.get("balance", {})}
