"""Mixture of experts: sigmoid router with a balancing bias, routed experts, shared experts.

The router scores every expert with a sigmoid; score + correction bias choose the top k, while the weights are the
bare scores of the chosen and of all shared experts, normalised together (INK). There is no auxiliary loss: the bias,
which no gradient touches, moves against the load after every step (arXiv 2408.15664).

`experts_reference` runs every expert on every token; `experts_grouped` sorts tokens by expert and multiplies in
blocks; `experts_gathered` fetches the weights of a few tokens. All three give the same numbers.
"""

import functools

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig
from tml_jax.model.layers import fan_in_init

BLOCK = 64  # rows of one block of the grouped product
FEW_TOKENS = 32  # up to here fetching the weights of each token is cheaper than sorting


@flax.struct.dataclass
class Experts:
    """Weights of the routed experts: gate and up (E, D, F), down (E, F, D)."""

    gate: jax.Array
    up: jax.Array
    down: jax.Array


@flax.struct.dataclass
class Routing:
    """Which experts a token uses: expert (N, k) int32, weight (N, k) float32, shared_weight (N, shared) float32."""

    expert: jax.Array
    weight: jax.Array
    shared_weight: jax.Array


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
    _, expert = jax.lax.top_k(jax.nn.sigmoid(logits[:, :routed]) + bias, top_k)
    chosen = jnp.concatenate([jnp.take_along_axis(logits, expert, axis=1), logits[:, routed:]], axis=1)
    weight = jax.nn.softmax(jax.nn.log_sigmoid(chosen), axis=-1) * scale
    return Routing(expert, weight[:, :top_k], weight[:, top_k:])


def experts_reference(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Every expert on every token, weighted by the routing; the slow reference.

    Args:
      x: (N, D).
      routing: which experts.
      experts: their weights.

    Returns:
      (N, D).
    """
    hidden = jax.nn.silu(jnp.einsum("nd,edf->nef", x, experts.gate)) * jnp.einsum("nd,edf->nef", x, experts.up)
    out = jnp.einsum("nef,efd->ned", hidden, experts.down)
    count = experts.gate.shape[0]
    weight = jnp.sum(jax.nn.one_hot(routing.expert, count) * routing.weight[..., None], axis=1)
    return jnp.einsum("ned,ne->nd", out, weight.astype(x.dtype))


def experts_gathered(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Matrix–vector products with the fetched weights of each token's experts: for the few tokens of a micro-turn."""
    pick = lambda weights: weights[routing.expert]  # noqa: E731  (N, k, …)
    hidden = jax.nn.silu(jnp.einsum("nd,nkdf->nkf", x, pick(experts.gate)))
    hidden = hidden * jnp.einsum("nd,nkdf->nkf", x, pick(experts.up))
    return jnp.einsum("nkf,nkfd,nk->nd", hidden, pick(experts.down), routing.weight.astype(x.dtype))


def experts_grouped(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Sorts the (token, expert) pairs by expert, pads each group to whole blocks, multiplies block by block.

    No token is dropped: there is room for every pair, whatever the load.
    """
    tokens, top_k = routing.expert.shape
    count = experts.gate.shape[0]
    pair_expert = routing.expert.reshape(-1)
    blocks = -(-tokens * top_k // BLOCK) + count
    one_hot = jax.nn.one_hot(pair_expert, count, dtype=jnp.int32)
    load = jnp.sum(one_hot, axis=0)
    rank = jnp.take_along_axis(jnp.cumsum(one_hot, axis=0), pair_expert[:, None], axis=1)[:, 0] - 1
    group_blocks = -(-load // BLOCK)
    first_block = jnp.cumsum(group_blocks) - group_blocks
    slot = first_block[pair_expert] * BLOCK + rank  # (N k,) row of each pair
    pair_of_row = jnp.full(blocks * BLOCK, tokens * top_k, jnp.int32).at[slot].set(jnp.arange(tokens * top_k))
    last_block = jnp.cumsum(group_blocks)
    expert_of_block = jnp.searchsorted(last_block, jnp.arange(blocks), side="right")
    # Weights are fetched by a product with a one-hot matrix: its gradient is a product too, not a scatter.
    picked = jax.nn.one_hot(expert_of_block, count, dtype=x.dtype)  # (blocks, E), zero past the last group
    pick = lambda weights: jnp.einsum("be,eij->bij", picked, weights)  # noqa: E731

    rows = _dispatch(x, slot.reshape(tokens, top_k), pair_of_row).reshape(blocks, BLOCK, -1)
    hidden = jax.nn.silu(jnp.einsum("brd,bdf->brf", rows, pick(experts.gate)))
    hidden = hidden * jnp.einsum("brd,bdf->brf", rows, pick(experts.up))
    out = jnp.einsum("brf,bfd->brd", hidden, pick(experts.down)).reshape(blocks * BLOCK, -1)
    pairs = _collect(out, slot, pair_of_row).reshape(tokens, top_k, -1)
    return jnp.einsum("nkd,nk->nd", pairs, routing.weight.astype(x.dtype))


@jax.custom_vjp
def _dispatch(x: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> jax.Array:
    """x (N, D) → rows (R, D): row r holds the token of pair `pair_of_row[r]`, zero where there is none."""
    padded = jnp.concatenate([x, jnp.zeros_like(x[:1])])
    return padded[pair_of_row // slot.shape[1]]


def _dispatch_forward(x: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _dispatch(x, slot, pair_of_row), slot


def _dispatch_backward(slot: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return jnp.sum(gradient[slot], axis=1), None, None


_dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def _collect(rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> jax.Array:
    """rows (R, D) → (N k, D): the row of every pair. Its gradient is a gather, where autodiff would scatter."""
    del pair_of_row
    return rows[slot]


def _collect_forward(rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return rows[slot], pair_of_row


def _collect_backward(pair_of_row: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    padded = jnp.concatenate([gradient, jnp.zeros_like(gradient[:1])])
    return padded[pair_of_row], None, None


_collect.defvjp(_collect_forward, _collect_backward)


class MoE(nn.Module):
    """The feed-forward of the sparse layers.

    The correction bias is read from the `balance` collection, outside the parameters, so that no optimiser sees it.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x: jax.Array, counted: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Applies the experts.

        Args:
          x: (B, T, D).
          counted: (B, T) bool, elements that count towards the load; None for all.

        Returns:
          (B, T, D), and the load: (E,) float32, how many elements chose each expert.
        """
        cfg = self.config
        model, count, shared, width = x.shape[-1], cfg.num_experts, cfg.num_shared_experts, cfg.expert_ffn
        tokens = x.reshape(-1, model)
        kernel = self.param("router", fan_in_init(0), (model, count + shared), jnp.float32)
        scale = self.param("global_scale", nn.initializers.ones, (), jnp.float32)
        bias = self.variable("balance", "bias", jnp.zeros, (count,), jnp.float32)
        logits = jnp.einsum(
            "nd,de->ne", tokens.astype(jnp.float32), kernel, precision=jax.lax.Precision.HIGHEST
        )  # ties between close scores must not depend on bfloat16
        routing = route(logits, bias.value, cfg.top_k, cfg.route_scale * scale)

        def weights(prefix: str, experts: int) -> Experts:
            param = functools.partial(self.param, init_fn=fan_in_init(1))
            gate = param(f"{prefix}_gate", shape=(experts, model, width), dtype=jnp.float32)
            up = param(f"{prefix}_up", shape=(experts, model, width), dtype=jnp.float32)
            down = param(f"{prefix}_down", shape=(experts, width, model), dtype=jnp.float32)
            return Experts(gate.astype(x.dtype), up.astype(x.dtype), down.astype(x.dtype))

        routed = experts_gathered if tokens.shape[0] <= FEW_TOKENS else experts_grouped
        out = routed(tokens, routing, weights("expert", count))
        common = weights("shared", shared)
        hidden = jax.nn.silu(jnp.einsum("nd,sdf->nsf", tokens, common.gate))
        hidden = hidden * jnp.einsum("nd,sdf->nsf", tokens, common.up)
        hidden = hidden * routing.shared_weight[..., None].astype(x.dtype)
        out = out + jnp.einsum("nsf,sfd->nd", hidden, common.down)
        chosen = jnp.sum(jax.nn.one_hot(routing.expert, count), axis=1)
        if counted is not None:
            chosen = jnp.where(counted.reshape(-1, 1), chosen, 0.0)
        return out.reshape(x.shape), jnp.sum(chosen, axis=0)


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
