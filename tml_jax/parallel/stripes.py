"""Rows too long for one device: each is cut into stripes, one for every device along the mesh axis `sequence`.

To all that looks at single elements (embeddings, norms, experts, heads) a stripe is a row like any other: B rows of T
elements become B · S rows of T / S, and no number moves, because every device holds the same part of both. What looks
back gets the elements before its stripe from the devices that hold them: a short convolution three, a sliding layer its
window, from the neighbour; a global layer the keys and values of the whole row, gathered. Of the sides of a row (sound,
pictures, outputs) every device has an equal share, wherever their elements are; they meet in two exchanges a step.

Stripes are consecutive, so in global layers the device of the last one does the most.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from tml_jax.parallel.mesh import LOGICAL_TO_MESH
from tml_jax.parallel.placement import Placement

AXIS = LOGICAL_TO_MESH["along_row"]
ROWS = PartitionSpec(LOGICAL_TO_MESH["row"], AXIS)


def fold(x: jax.Array, placement: Placement | None) -> jax.Array:
    """Rows (B, N, …) as stripes (B · S, N / S, …); the same array where rows are whole."""
    return x if not _cut(placement) else _same(x, placement, ROWS, PartitionSpec(placement.batch_axes))


def unfold(x: jax.Array, placement: Placement | None) -> jax.Array:
    """The inverse of `fold`."""
    return x if not _cut(placement) else _same(x, placement, PartitionSpec(placement.batch_axes), ROWS)


def preceding(x: jax.Array, count: int, stripes: int) -> jax.Array:
    """The elements before a stripe. Call it inside `jax.shard_map`, on every device of the axis.

    Args:
      x: (R, L, …), this device's stripes.
      count: how many of those before.
      stripes: of a row, S.

    Returns:
      (R, count, …); zero before the start of the row.
    """
    length = x.shape[1]
    if count == 0 or stripes == 1:
        return jnp.zeros((x.shape[0], count, *x.shape[2:]), x.dtype)
    if count <= length:
        return jax.lax.ppermute(x[:, length - count :], AXIS, [(here, here + 1) for here in range(stripes - 1)])
    whole = jax.lax.all_gather(x, AXIS, axis=1, tiled=True)
    padded = jnp.pad(whole, [(0, 0), (count, 0)] + [(0, 0)] * (x.ndim - 2))
    return jax.lax.dynamic_slice_in_dim(padded, jax.lax.axis_index(AXIS) * length, count, axis=1)


def halo(x: jax.Array, count: int, placement: Placement | None) -> jax.Array:
    """The elements before every stripe, for what is computed outside `jax.shard_map`.

    Args:
      x: (B · S, L, …), split by stripes.
      count: how many, at most L.
      placement: devices; None on one.

    Returns:
      (B · S, count, …), split alike; zero before the start of the row.
    """
    if not _cut(placement):
        return jnp.zeros((x.shape[0], count, *x.shape[2:]), x.dtype)
    stripes = PartitionSpec(placement.batch_axes)
    run = lambda x: preceding(x, count, placement.stripes)  # noqa: E731
    return jax.shard_map(run, mesh=placement.mesh, in_specs=stripes, out_specs=stripes, check_vma=False)(x)


def take_slots(side: jax.Array, slot: jax.Array, placement: Placement | None) -> jax.Array:
    """What stands in the slots of the elements.

    Args:
      side: (B · S, N / S, D), of the whole row N.
      slot: (B · S, L) int32 in 0 … N − 1.
      placement: devices; None on one.

    Returns:
      (B · S, L, D).
    """
    if not _cut(placement):
        return jnp.take_along_axis(side, slot[..., None], axis=1)
    stripes = PartitionSpec(placement.batch_axes)

    def body(side: jax.Array, slot: jax.Array) -> jax.Array:
        whole = jax.lax.all_gather(side, AXIS, axis=1, tiled=True)
        return jnp.take_along_axis(whole, slot[..., None], axis=1)

    run = jax.shard_map(body, mesh=placement.mesh, in_specs=(stripes, stripes), out_specs=stripes, check_vma=False)
    return run(side, slot)


def take_positions(x: jax.Array, position: jax.Array, placement: Placement | None) -> jax.Array:
    """Elements of rows at positions.

    Args:
      x: (B, T, D), split along the rows.
      position: (B, N) int32 in 0 … T − 1, split alike.
      placement: devices; None on one.

    Returns:
      (B, N, D), split alike.
    """
    if not _cut(placement):
        return jnp.take_along_axis(x, position[..., None], axis=1)

    def body(x: jax.Array, position: jax.Array) -> jax.Array:
        position = jax.lax.all_gather(position, AXIS, axis=1, tiled=True)
        local = position - jax.lax.axis_index(AXIS) * x.shape[1]
        here = (local >= 0) & (local < x.shape[1])
        found = jnp.take_along_axis(x, jnp.where(here, local, 0)[..., None], axis=1)
        found = jnp.where(here[..., None], found, 0)
        return jax.lax.psum_scatter(found, AXIS, scatter_dimension=1, tiled=True)  # one summand is not zero

    run = jax.shard_map(body, mesh=placement.mesh, in_specs=(ROWS, ROWS), out_specs=ROWS, check_vma=False)
    return run(x, position)


def _cut(placement: Placement | None) -> bool:
    return placement is not None and placement.stripes > 1


def _same(x: jax.Array, placement: Placement, before: PartitionSpec, after: PartitionSpec) -> jax.Array:
    """What every device has stays where it is, and is called another part of the array."""
    run = jax.shard_map(lambda x: x, mesh=placement.mesh, in_specs=before, out_specs=after, check_vma=False)
    return run(x)
