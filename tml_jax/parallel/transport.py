"""How tokens reach their experts on other devices, and come back.

Tokens are split over devices like the rows of a batch, experts over the mesh axis `expert`. Three transports, one
interface, the same numbers as `experts_reference` as long as nothing is dropped:

  ring      every device gets the tokens of all devices of its `expert` axis, runs those that chose its experts, and
            the partial sums are added up on the way back. Needs no exchange by destination; moves every token.
  ragged    pairs of token and expert go to the device of their expert and back, in one ragged all-to-all each way.
            Moves what is needed. XLA has it for TPU and GPU; on CPU devices it is imitated by gathers.
  capacity  like ragged, but every device sends the same number of rows to every expert, some empty, the rest dropped.
            All shapes are known beforehand, and the products are plain batched ones.

A fourth, `whole`, is for the few tokens of a micro-turn: every device has them all and adds its experts' part.

All but `whole` have buffers of fixed size, `capacity` times what an even load needs, or for the worst case where it is
0. What does not fit is dropped (the token goes on without that expert) and counted.
"""

import functools
import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from tml_jax.kernels.few_tokens import few_tokens_mlp
from tml_jax.kernels.grouped_matmul import ROWS
from tml_jax.model.experts import (
    Experts,
    Routing,
    collect,
    combine,
    dispatch,
    grouped_mlp,
    lay_out,
    rows_or_zero,
    starts,
)
from tml_jax.parallel.mesh import LOGICAL_TO_MESH
from tml_jax.parallel.placement import Placement
from tml_jax.remat import keep

AXIS, HIDDEN = LOGICAL_TO_MESH["expert"], LOGICAL_TO_MESH["hidden"]
FEW_TOKENS = 64  # up to so many, the chosen experts alone are fetched


def exchange_experts(
    x: jax.Array, routing: Routing, experts: Experts, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    """Runs tokens through their experts, wherever those are.

    Args:
      x: (N, D), split over `placement.batch_axes`.
      routing: which experts; an id of E or more stands for none.
      experts: their weights, E split over the mesh axis `expert`, F over `tensor`; D is gathered where it is split.
      placement: the mesh and the transport.

    Returns:
      (N, D), split like x, and the number of pairs of token and expert that were dropped, int32.
    """
    mesh, rows = placement.mesh, PartitionSpec(placement.batch_axes)
    columns, inner, whole = (PartitionSpec(AXIS, *rest) for rest in ((None, HIDDEN), (HIDDEN, None), (None, None)))
    scales = None if experts.scales is None else (columns, columns, whole)
    wide = Experts(columns, columns, inner, scales)
    if experts.scales is None:  # before they are gathered, so that half as much is
        experts = experts.numbers(x.dtype)

    def body(x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts) -> tuple[jax.Array, jax.Array]:
        out, dropped = _TRANSPORTS[placement.transport](x, expert, weight.astype(x.dtype), experts, placement)
        out = jax.lax.psum(out, HIDDEN) if mesh.shape[HIDDEN] > 1 else out
        return out, jax.lax.psum(dropped, placement.batch_axes) if placement.batch_axes else dropped

    run = jax.shard_map(
        body, mesh=mesh, in_specs=(rows, rows, rows, wide), out_specs=(rows, PartitionSpec()), check_vma=False
    )
    return run(x, routing.expert, routing.weight, experts)


def _ring(
    x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    room = _room(expert.size, placement)
    with jax.named_scope("dispatch"):
        x, expert, weight = (jax.lax.all_gather(value, AXIS, tiled=True) for value in (x, expert, weight))
    out, dropped = _own_part(x, expert, weight, experts, room, placement)
    with jax.named_scope("combine"):
        return jax.lax.psum_scatter(out, AXIS, scatter_dimension=0, tiled=True), dropped


def _whole(
    x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    if placement.tpu and len(x) <= FEW_TOKENS:
        out = _few(x, expert, weight, experts, placement)
    else:
        out, _ = _own_part(x, expert, weight, experts, ROWS * math.ceil(expert.size / ROWS), placement)
    return jax.lax.psum(out, AXIS), jnp.zeros((), jnp.int32)


def _few(x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, placement: Placement) -> jax.Array:
    """What this device's experts add to a few tokens."""
    local, top_k = experts.gate.shape[0], expert.shape[1]
    own = expert - jax.lax.axis_index(AXIS) * local
    matrix = jnp.sum(jax.nn.one_hot(own, local) * weight[..., None].astype(jnp.float32), axis=1)
    even = top_k / (local * placement.mesh.shape[AXIS])  # share of the tokens that choose an expert, by an even load
    share = 1 - (1 - even) ** len(x)
    three = experts.gate, experts.up, experts.down
    out = few_tokens_mlp(x, matrix, three, experts.scales, share=share, interpret=False)
    return out.astype(x.dtype)


def _own_part(
    x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, room: int, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    """What this device's experts add to every token (N, D), in at most `room` pairs, and how many were dropped."""
    experts = experts.numbers(x.dtype)
    local, top_k, pairs = experts.gate.shape[0], expert.shape[1], expert.size
    key = (expert - jax.lax.axis_index(AXIS) * local).reshape(-1)
    key = jnp.where((key >= 0) & (key < local), key, local)
    _, order, wanted = _sorted(key, local)
    sizes = _clipped(wanted, room)
    pair_of_row = jnp.where(jnp.arange(room) < jnp.sum(sizes), jnp.resize(order, room), pairs)
    token = pair_of_row // top_k
    out = grouped_mlp(rows_or_zero(x, token), sizes, experts, tpu=placement.tpu)
    out = out * rows_or_zero(weight.reshape(-1), pair_of_row)[:, None]
    return jnp.zeros_like(x).at[token].add(out, mode="drop"), jnp.sum(wanted - sizes)


def _capacity(
    x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    experts = experts.numbers(x.dtype)
    local, top_k, pairs, width = experts.gate.shape[0], expert.shape[1], expert.size, x.shape[1]
    devices = placement.mesh.shape[AXIS]
    count = local * devices
    even = pairs * placement.capacity / count if placement.capacity else x.shape[0]
    room = 8 * math.ceil(even / 8)  # rows for one expert
    key = expert.reshape(-1)
    sorted_place, order, sizes = _sorted(key, count)
    start = starts(sizes, axis=0)
    rank = sorted_place - jnp.take(start, key, mode="clip")
    slot = jnp.where(rank < room, key * room + rank, count * room).reshape(-1, top_k)
    place = start[:, None] + jnp.arange(room)
    present = jnp.arange(room) < sizes[:, None]
    pair_of_row = jnp.where(present, order[jnp.minimum(place, pairs - 1)], pairs).reshape(-1)
    slot, pair_of_row = keep((slot, pair_of_row))

    def exchange(rows: jax.Array) -> jax.Array:
        """(E · room, …) → (devices, E / devices, room, …): to whom and for which of his experts ↔ from whom."""
        return jax.lax.all_to_all(rows.reshape(devices, local, room, -1), AXIS, 0, 0)

    with jax.named_scope("dispatch"):
        rows = exchange(dispatch(x, slot, pair_of_row))
        # The weights go along and meet what comes before the last product: no gradient then asks for what comes after.
        row_weight = dispatch(weight.reshape(-1, 1), slot.reshape(-1, 1), pair_of_row)
        # Rows that hold nobody's pair weigh nothing, or they would add to the gradients of experts.
        row_weight = exchange(jnp.where(pair_of_row[:, None] < pairs, row_weight, 0))
    with jax.named_scope("experts"):  # rows stay as they came, or all of them would be copied
        hidden = jax.nn.silu(jnp.einsum("serd,edf->serf", rows, experts.gate))
        hidden = hidden * jnp.einsum("serd,edf->serf", rows, experts.up) * row_weight
        out = jnp.einsum("serf,efd->serd", hidden, experts.down)
    with jax.named_scope("combine"):
        out = combine(exchange(out).reshape(count * room, width), slot, pair_of_row)
    return out, jnp.sum(jnp.maximum(sizes - room, 0))


def _ragged(
    x: jax.Array, expert: jax.Array, weight: jax.Array, experts: Experts, placement: Placement
) -> tuple[jax.Array, jax.Array]:
    experts = experts.numbers(x.dtype)
    local, top_k, pairs = experts.gate.shape[0], expert.shape[1], expert.size
    devices = placement.mesh.shape[AXIS]
    room = _room(pairs, placement)
    key = expert.reshape(-1)
    place, order, sizes = _sorted(key, local * devices)
    rows = dispatch(x, place.reshape(-1, top_k), order)

    # Rows that go from every device to every expert; what the buffer of a receiver cannot hold is cut off.
    wanted = jax.lax.all_gather(sizes, AXIS).reshape(devices, devices, local)  # from, to, expert
    taken = jnp.moveaxis(wanted, 1, 0).reshape(devices, -1)
    taken = jnp.moveaxis(jax.vmap(lambda row: _clipped(row, room))(taken).reshape(devices, devices, local), 0, 1)
    sent, asked = jnp.sum(taken, axis=2), jnp.sum(wanted, axis=2)
    plan = _Plan(sent, starts(asked, axis=1), starts(sent, axis=0))
    with jax.named_scope("dispatch"):
        received = _exchange(rows, room, plan, placement.tpu)

    me = jax.lax.axis_index(AXIS)
    from_each = jax.lax.dynamic_index_in_dim(taken, me, axis=1, keepdims=False)  # (from, expert)
    ends = jnp.cumsum(from_each.reshape(-1))
    group = jnp.searchsorted(ends, jnp.arange(room), side="right")
    back, by_expert, _ = _sorted(jnp.where(group < devices * local, group % local, local), local)
    sorted_rows = dispatch(received, back[:, None], by_expert)
    out = grouped_mlp(sorted_rows, jnp.sum(from_each, axis=0), experts, tpu=placement.tpu)
    out = collect(out, back, by_expert)

    with jax.named_scope("combine"):
        out = _exchange(out, pairs, plan.reversed(), placement.tpu)
    out = collect(out, place, order).reshape(-1, top_k, x.shape[1])
    dropped = jnp.sum(sizes) - jnp.sum(jax.lax.dynamic_index_in_dim(taken, me, axis=0))
    return jnp.einsum("nkd,nk->nd", out, weight), dropped


_TRANSPORTS: dict[str, Callable] = {"ring": _ring, "ragged": _ragged, "capacity": _capacity, "whole": _whole}


def _room(pairs: int, placement: Placement) -> int:
    """Rows of a buffer for the pairs that reach one device, in whole tiles."""
    return ROWS * math.ceil(pairs * (placement.capacity or placement.mesh.shape[AXIS]) / ROWS)


def _sorted(key: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sorts keys, stably.

    Args:
      key: (P,) int32, not negative; all from `count` on are alike and come last.
      count: see `key`.

    Returns:
      The place of each key when sorted (P,); its inverse, which key comes to each place (P,); and how many there are of
      each of 0 … count − 1.
    """
    place, sizes = lay_out(jnp.minimum(key, count), count + 1)
    order = jnp.zeros_like(place).at[place].set(jnp.arange(key.size, dtype=jnp.int32), unique_indices=True)
    return place, order, sizes[:count]


def _clipped(sizes: jax.Array, room: int) -> jax.Array:
    """Sizes (G,) of consecutive groups, cut so that their sum is at most `room`."""
    ends = jnp.minimum(jnp.cumsum(sizes), room)
    return jnp.diff(ends, prepend=jnp.zeros((1,), ends.dtype))


@flax.struct.dataclass
class _Plan:
    """Which rows go where: (from device, to device) int32 each.

    Attributes:
      count: rows sent.
      read: where the sender begins to read them.
      write: where the receiver begins to write them.
    """

    count: jax.Array
    read: jax.Array
    write: jax.Array

    def reversed(self) -> "_Plan":
        return _Plan(self.count.T, self.write.T, self.read.T)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 3))
def _exchange(rows: jax.Array, size: int, plan: _Plan, tpu: bool) -> jax.Array:
    """Sends rows (R, D) by a plan; returns what is received, (size, D), zero where nothing is."""
    me = jax.lax.axis_index(AXIS)
    if tpu:
        mine = lambda x: jax.lax.dynamic_index_in_dim(x, me, keepdims=False)  # noqa: E731
        return jax.lax.ragged_all_to_all(
            rows, jnp.zeros((size, rows.shape[1]), rows.dtype), mine(plan.read), mine(plan.count), mine(plan.write),
            mine(plan.count.T), axis_name=AXIS,
        )  # fmt: skip
    everything = jax.lax.all_gather(rows, AXIS, tiled=True)
    count, read, write = (
        jax.lax.dynamic_index_in_dim(x, me, axis=1) for x in (plan.count, plan.read, plan.write)
    )  # (from, 1)
    offset = jnp.arange(size) - write  # (from, size)
    here = (offset >= 0) & (offset < count)
    source = jnp.arange(len(count))[:, None] * rows.shape[0] + read + offset
    index = jnp.sum(jnp.where(here, source, 0), axis=0)
    return jnp.where(jnp.any(here, axis=0)[:, None], everything[index], 0)


def _exchange_forward(rows: jax.Array, size: int, plan: _Plan, tpu: bool) -> tuple[jax.Array, tuple[jax.Array, _Plan]]:
    return _exchange(rows, size, plan, tpu), (jnp.zeros((rows.shape[0], 0)), plan)


def _exchange_backward(size: int, tpu: bool, saved: tuple, gradient: jax.Array) -> tuple[jax.Array, None]:
    del size
    rows, plan = saved
    return _exchange(gradient, rows.shape[0], plan.reversed(), tpu), None


_exchange.defvjp(_exchange_forward, _exchange_backward)
