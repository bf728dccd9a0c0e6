"""Mixture of experts: sigmoid router with a balancing bias, routed experts, shared experts.

The router scores every expert with a sigmoid; score + correction bias choose the top k, while the weights are the
bare scores of the chosen and of all shared experts, normalised together (INK). There is no auxiliary loss: the bias,
which no gradient touches, moves against the load after every step (arXiv 2408.15664).

The products themselves are in `experts.py`, the way to experts on other devices in `tml_jax.parallel.transport`.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig
from tml_jax.model.experts import Experts, Routing, experts_on_one_device
from tml_jax.model.layers import fan_in_init
from tml_jax.parallel.placement import Placement
from tml_jax.parallel.transport import exchange_experts
from tml_jax.remat import keep


def route(logits: jax.Array, bias: jax.Array, top_k: int, scale: jax.Array) -> Routing:
    """Chooses experts.

    Args:
      logits: (N, E + shared) float32.
      bias: (E,) float32 correction bias, for the choice only.
      top_k: routed experts a token uses.
      scale: scalar; the weights of a token sum to it.

    Returns:
      The routing.
    """
    routed = bias.shape[0]
    expert = keep(jax.lax.top_k(jax.nn.sigmoid(logits[:, :routed]) + bias, top_k)[1])
    chosen = jnp.concatenate([jnp.take_along_axis(logits, expert, axis=1), logits[:, routed:]], axis=1)
    weight = jax.nn.softmax(jax.nn.log_sigmoid(chosen), axis=-1) * scale
    return Routing(expert, weight[:, :top_k], weight[:, top_k:])


class MoE(nn.Module):
    """The feed-forward of the sparse layers.

    The correction bias is read from the `balance` collection, outside the parameters, so that no optimiser sees it.
    Expert weights may be int8; their scales are then in the collection `scales` (see `tml_jax.serve.weights`).
    """

    config: ModelConfig
    placement: Placement | None = None

    @nn.compact
    def __call__(self, x: jax.Array, counted: jax.Array | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Applies the experts.

        Args:
          x: (B, T, D).
          counted: (B, T) bool, elements that are no padding; None for all.

        Returns:
          (B, T, D), and extras: `load` (E,) float32, how many elements chose each expert, and `dropped` float32, how
          many of those choices found no room.
        """
        cfg = self.config
        model, count, shared, width = x.shape[-1], cfg.num_experts, cfg.num_shared_experts, cfg.expert_ffn
        tokens = x.reshape(-1, model)
        kernel = self.param("router", fan_in_init(0), (model, count + shared), jnp.float32)
        scale = self.param("global_scale", nn.initializers.ones, (), jnp.float32)
        bias = self.variable("balance", "bias", jnp.zeros, (count,), jnp.float32)
        with jax.named_scope("router"):
            logits = jnp.einsum(
                "nd,de->ne", tokens.astype(jnp.float32), kernel, precision=jax.lax.Precision.HIGHEST
            )  # ties between close scores must not depend on bfloat16
            routing = route(keep(logits), bias.value, cfg.top_k, cfg.route_scale * scale)

        def weights(prefix: str, experts: int) -> Experts:
            param = functools.partial(self.param, init_fn=fan_in_init(1))
            gate = param(f"{prefix}_gate", shape=(experts, model, width), dtype=jnp.float32)
            up = param(f"{prefix}_up", shape=(experts, model, width), dtype=jnp.float32)
            down = param(f"{prefix}_down", shape=(experts, width, model), dtype=jnp.float32)
            scales = None
            if self.has_variable("scales", f"{prefix}_gate"):
                scales = tuple(self.get_variable("scales", f"{prefix}_{name}") for name in ("gate", "up", "down"))
            return Experts(gate, up, down, scales)

        if self.placement is None:
            out, dropped = experts_on_one_device(tokens, routing, weights("expert", count)), 0
        else:
            if counted is not None:  # padding goes to no expert and takes no room
                routing = routing.replace(expert=jnp.where(counted.reshape(-1, 1), routing.expert, count))
            out, dropped = exchange_experts(tokens, routing, weights("expert", count), self.placement)
        common = weights("shared", shared).numbers(x.dtype)
        with jax.named_scope("shared_experts"):
            hidden = jax.nn.silu(keep(jnp.einsum("nd,sdf->nsf", tokens, common.gate)))
            hidden = hidden * keep(jnp.einsum("nd,sdf->nsf", tokens, common.up))
            hidden = hidden * routing.shared_weight[..., None].astype(x.dtype)
            out = out + jnp.einsum("nsf,sfd->nd", hidden, common.down)
        chosen = jnp.sum(jax.nn.one_hot(routing.expert, count), axis=1)
        if counted is not None:
            chosen = jnp.where(counted.reshape(-1, 1), chosen, 0.0)
        extras = {"load": jnp.sum(chosen, axis=0), "dropped": jnp.asarray(dropped, jnp.float32)}
        return keep(out).reshape(x.shape), extras


def update_balance(bias: jax.Array, load: jax.Array, rate: float) -> jax.Array:
    """Moves the correction bias one step against the load.

    Args:
      bias: (…, E).
      load: (…, E), elements that chose each expert, summed over every device.
      rate: size of the step.

    Returns:
      The new bias.
    """
    return bias + rate * jnp.sign(jnp.mean(load, axis=-1, keepdims=True) - load)
