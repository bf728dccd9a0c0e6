"""The product of tokens with the weights of their experts, on one device.

`experts_reference` runs every expert on every token; `experts_grouped` sorts tokens by expert and multiplies in
blocks; `experts_gathered` fetches the weights of a few tokens; `experts_dense` is every expert on every token again, as
two products, for what lies between. All give the same numbers. How tokens reach experts on other devices is in
`tml_jax.parallel.transport`.
"""

import functools
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.kernels.grouped_matmul import grouped_matmul

BLOCK, SMALL_BLOCK = 128, 32  # rows of one block of the grouped product where an expert has many and where it has few
_COUNTED = 128  # keys that are counted together
_DENSE_ROWS = 1024  # (token, expert) pairs up to which running all is cheaper than sorting; for a replica, on a CPU


@flax.struct.dataclass
class Experts:
    """Weights of the routed experts.

    Attributes:
      gate: (E, D, F), as numbers or as int8.
      up: like gate.
      down: (E, F, D).
      scales: where they are int8, what each column of the three is to be multiplied by: (E, 1, F) twice and (E, 1, D).
    """

    gate: jax.Array
    up: jax.Array
    down: jax.Array
    scales: tuple[jax.Array, jax.Array, jax.Array] | None = None

    def numbers(self, dtype: jnp.dtype) -> "Experts":
        """The weights as numbers of a type."""
        three = (self.gate, self.up, self.down)
        if self.scales is None:
            return Experts(*(weights.astype(dtype) for weights in three))
        return Experts(*(w.astype(dtype) * scale.astype(dtype) for w, scale in zip(three, self.scales)))


@flax.struct.dataclass
class Routing:
    """Which experts a token uses: expert (N, k) int32, weight (N, k) float32, shared_weight (N, shared) float32."""

    expert: jax.Array
    weight: jax.Array
    shared_weight: jax.Array


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
    # Fetched first, and made numbers then: of experts in eight bits only the chosen ones are.
    picked = jax.tree.map(lambda weights: weights[routing.expert], experts).numbers(x.dtype)  # (N, k, …)
    hidden = jax.nn.silu(jnp.einsum("nd,nkdf->nkf", x, picked.gate))
    hidden = hidden * jnp.einsum("nd,nkdf->nkf", x, picked.up)
    return jnp.einsum("nkf,nkfd,nk->nd", hidden, picked.down, routing.weight.astype(x.dtype))


def experts_dense(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Every expert on every token, what was not chosen weighted with zero before the last product."""
    experts = experts.numbers(x.dtype)
    count = len(experts.gate)
    weight = jnp.sum(jax.nn.one_hot(routing.expert, count) * routing.weight[..., None], axis=1).astype(x.dtype)
    # One product for each expert with its matrix as it lies; one for all would need the matrices turned round first.
    every = jnp.broadcast_to(x, (count, *x.shape))
    hidden = jax.nn.silu(jnp.einsum("end,edf->enf", every, experts.gate))
    hidden = hidden * jnp.einsum("end,edf->enf", every, experts.up) * weight.T[..., None]
    return jnp.swapaxes(hidden, 0, 1).reshape(len(x), -1) @ experts.down.reshape(-1, x.shape[1])


def experts_on_one_device(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """The cheapest of the three for so many tokens and experts."""
    tokens, top_k = routing.expert.shape
    count = len(experts.gate)
    # Fetching copies weights that the dense product only reads once, for all tokens, and in a tenth of the time.
    if 10 * tokens * top_k <= count:
        return experts_gathered(x, routing, experts)
    if tokens * count <= _DENSE_ROWS:
        return experts_dense(x, routing, experts)
    return experts_grouped(x, routing, experts)


def experts_grouped(x: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """Sorts the (token, expert) pairs by expert, pads each group to whole blocks, multiplies block by block.

    No token is dropped: there is room for every pair, whatever the load. Weights are fetched by a product with a
    one-hot matrix, which is cheap beside the products themselves for the few experts of a replica, not for hundreds.
    """
    experts = experts.numbers(x.dtype)
    tokens, top_k = routing.expert.shape
    count = experts.gate.shape[0]
    pair_expert = routing.expert.reshape(-1)
    size = BLOCK if pair_expert.size >= count * BLOCK else SMALL_BLOCK
    blocks = -(-tokens * top_k // size) + count
    slot, load = lay_out(pair_expert, count, lambda load: size * starts(-(-load // size)))  # row of each pair: (N k,)
    pair_of_row = jnp.full(blocks * size, tokens * top_k, jnp.int32).at[slot].set(jnp.arange(tokens * top_k))
    last_block = jnp.cumsum(-(-load // size))
    expert_of_block = jnp.searchsorted(last_block, jnp.arange(blocks), side="right")
    picked = jax.nn.one_hot(expert_of_block, count, dtype=x.dtype)  # (blocks, E), zero past the last group
    with jax.named_scope("dispatch"):
        rows = dispatch(x, slot.reshape(tokens, top_k), pair_of_row).reshape(blocks, size, -1)
    with jax.named_scope("experts"):
        both = jnp.concatenate([experts.gate, experts.up], axis=-1)  # one product instead of two narrow ones
        gate, up = jnp.split(jnp.einsum("brd,bdf->brf", rows, _of_blocks(both, picked)), 2, axis=-1)
        hidden = jax.nn.silu(gate) * up
        out = jnp.einsum("brf,bfd->brd", hidden, _of_blocks(experts.down, picked)).reshape(blocks * size, -1)
    with jax.named_scope("combine"):
        pairs = collect(out, slot, pair_of_row).reshape(tokens, top_k, -1)
        return jnp.einsum("nkd,nk->nd", pairs, routing.weight.astype(x.dtype))


def starts(counts: jax.Array, axis: int = 0) -> jax.Array:
    """Where groups of these sizes begin when they lie one after the other."""
    return jnp.cumsum(counts, axis=axis) - counts


def lay_out(
    key: jax.Array, count: int, first: Callable[[jax.Array], jax.Array] = starts
) -> tuple[jax.Array, jax.Array]:
    """Gives every key a place among its like, in the order they come: a stable sort.

    By counting, because a sort that compares takes the compiler for TPUs half a minute each.

    Args:
      key: (P,) int32 in 0 … count − 1.
      count: of different keys.
      first: from how many there are of each key (count,) to the place of the first of each (count,).

    Returns:
      The place of each key (P,), and how many there are of each (count,); int32.
    """
    blocked = jnp.pad(key, (0, -key.size % _COUNTED), constant_values=count).reshape(-1, _COUNTED)
    here = blocked[..., None] == jnp.arange(count)
    within = jnp.cumsum(here.astype(jnp.int32), axis=1)
    blocks = within[:, -1]
    sizes = jnp.sum(blocks, axis=0)
    before = starts(blocks) + first(sizes)
    place = jnp.sum(jnp.where(here, within - 1 + before[:, None], 0), axis=-1)
    return place.reshape(-1)[: key.size], sizes


def _of_blocks(weights: jax.Array, picked: jax.Array) -> jax.Array:
    """Weights of each block's expert, (E, I, J) and one-hot (blocks, E) → (blocks, I, J).

    As a product, whose gradient is a product too, not a scatter; over matrices laid flat, or the gradient's would be
    turned round first.
    """
    flat = picked @ weights.reshape(len(weights), -1)
    return flat.reshape(-1, *weights.shape[1:])


@jax.named_scope("experts")
def grouped_mlp(rows: jax.Array, sizes: jax.Array, experts: Experts, *, tpu: bool) -> jax.Array:
    """Each group of rows through its expert.

    Args:
      rows: (M, D), sorted by expert; rows past the last group may hold anything that is finite.
      sizes: (E,) int32, rows of each expert.
      experts: their weights.
      tpu: see `grouped_matmul`.

    Returns:
      (M, D), zero past the last group.
    """
    matmul = functools.partial(grouped_matmul, sizes=sizes, tpu=tpu)
    hidden = jax.nn.silu(matmul(rows, experts.gate)) * matmul(rows, experts.up)
    return matmul(hidden, experts.down)


def rows_or_zero(x: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of x (N, …) by their index (M,), zero where there are not so many → (M, …)."""
    return jnp.take(x, index, axis=0, mode="fill", fill_value=0)


def _sum_of_pairs(rows: jax.Array, slot: jax.Array) -> jax.Array:
    """Sum of the rows (R, D) of each token's pairs, slot (N, k), R or more where there is none → (N, D)."""
    slot = slot.T  # choices first: tiles of TPUs hold eight tokens, not six choices padded to eight
    pairs = jnp.take(rows, slot.reshape(-1), axis=0, mode="clip").reshape(*slot.shape, -1)
    return jnp.sum(jnp.where((slot < len(rows))[..., None], pairs, 0), axis=0)


@jax.custom_vjp
def dispatch(x: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> jax.Array:
    """Lays tokens out in the rows of their pairs. Its gradient is a gather, where autodiff would scatter.

    Args:
      x: (N, D) tokens.
      slot: (N, k), row of each pair; R or more where a pair has none.
      pair_of_row: (R,), pair (token · k + choice) of each row; N k or more where a row has none.

    Returns:
      (R, D); rows without a pair hold some token, so what comes of them must count for nothing, and be finite.
    """
    return jnp.take(x, pair_of_row // slot.shape[1], axis=0, mode="clip")  # to zero them would be one more pass


def _dispatch_forward(x: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return dispatch(x, slot, pair_of_row), slot


def _dispatch_backward(slot: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return _sum_of_pairs(gradient, slot), None, None


dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def collect(rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> jax.Array:
    """The row of every pair, the inverse of `dispatch`. Its gradient is a gather, where autodiff would scatter.

    Args:
      rows: (R, D).
      slot: (N k,), row of each pair; R or more where a pair has none.
      pair_of_row: (R,), pair of each row; N k or more where a row has none.

    Returns:
      (N k, D), zero for pairs without a row.
    """
    del pair_of_row
    return rows_or_zero(rows, slot)


def _collect_forward(rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> tuple[jax.Array, jax.Array]:
    return rows_or_zero(rows, slot), pair_of_row


def _collect_backward(pair_of_row: jax.Array, gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return rows_or_zero(gradient, pair_of_row), None, None


collect.defvjp(_collect_forward, _collect_backward)


@jax.custom_vjp
def combine(rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array) -> jax.Array:
    """Adds up the rows of every token's pairs: `dispatch` turned round, and the gradient of one is the other.

    Args:
      rows: (R, D).
      slot: (N, k), row of each pair; R or more where a pair has none.
      pair_of_row: (R,), pair (token · k + choice) of each row; N k or more where a row has none.

    Returns:
      (N, D). The gradient of rows without a pair is that of some token, as with `dispatch`.
    """
    del pair_of_row
    return _sum_of_pairs(rows, slot)


def _combine_forward(
    rows: jax.Array, slot: jax.Array, pair_of_row: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return combine(rows, slot, pair_of_row), (slot, pair_of_row)


def _combine_backward(saved: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array, None, None]:
    return dispatch(gradient, *saved), None, None


combine.defvjp(_combine_forward, _combine_backward)
