"""The learned relative bias of a tile of pairs, without a gather: skewed by rotations, for use inside TPU kernels.

In a tile the bias depends on the row and on the distance query − key, which is constant along diagonals:

  bias of row i by distance = relative[i] @ slab      (rank) × (rank, 2 · block), the distances that the tile has
  bias of the tile          = row i of that, rotated right by i, the first `block` columns

and the way back, for the gradient, rotates row i of the tile's gradient so that equal distances stand below each
other. A *slab* is the part of the table that tiles of one *offset* need: the block of the query minus that of the key.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

LANES = 128  # width of a vector register; blocks are multiples of it on a TPU
MASKED = -1e30


def offsets_with_bias(extent: int, block: int) -> int:
    """Offsets, from 0, at which some pair is nearer than `extent`."""
    return (extent + block - 2) // block + 1


def slabs_by_distance(table: jax.Array, offsets: int, block: int) -> jax.Array:
    """Slabs of a table in ascending order of distance.

    Args:
      table: (d_rel, extent), bias profiles by backward distance.
      offsets: how many, from 0.
      block: queries and keys of a tile.

    Returns:
      (offsets, d_rel, 2 · block); column c holds the distance (offset − 1) · block + 1 + c, zero outside the table.
    """
    halves = _halves(table, offsets, block)
    return jnp.concatenate([halves[:-1], halves[1:]], axis=2)


def skewed_slabs(table: jax.Array, offsets: int, block: int) -> jax.Array:
    """Slabs as `tile_bias` takes them: column c holds the distance offset · block − c, or 2 · block more past `block`.

    Args:
      table: (d_rel, extent), bias profiles by backward distance.
      offsets: how many, from 0.
      block: queries and keys of a tile.

    Returns:
      (offsets, d_rel, 2 · block); zero outside the table.
    """
    halves = _halves(table, offsets, block)[:, :, ::-1]
    return jnp.concatenate([halves[:-1], halves[1:]], axis=2)


def _halves(table: jax.Array, offsets: int, block: int) -> jax.Array:
    """(offsets + 1, d_rel, block): ascending distances from (n − 1) · block + 1 on."""
    used = table[:, : offsets * block + 1]
    profile = jnp.pad(used, ((0, 0), (block - 1, offsets * block + 1 - used.shape[1])))
    return profile.reshape(len(table), offsets + 1, block).swapaxes(0, 1)


def dot(x: jax.Array, y: jax.Array, over: tuple[int, int]) -> jax.Array:
    """Product of two matrices over one axis of each, accumulated in float32 and not rounded before it is."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    contracted = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(x, y, contracted, precision=precision, preferred_element_type=jnp.float32)


def tile_bias(relative: jax.Array, slab: jax.Array) -> jax.Array:
    """Bias of a tile.

    Args:
      relative: (d_rel, block), relative states of the tile's queries.
      slab: (d_rel, 2 · block) of `skewed_slabs`.

    Returns:
      (block, block) float32; anything where the distance is negative.
    """
    by_distance = dot(relative, slab, (0, 0))
    return pltpu.roll(by_distance, 0, 1, stride=1, stride_axis=0)[:, : relative.shape[1]]


def tile_by_distance(tile: jax.Array) -> jax.Array:
    """A tile's pairs in columns of equal distance.

    Row i has to go left by i, but rotations only go further right from row to row. So the keys are reversed first: the
    order of chunks by placing them, and the order within a chunk by a product with a permutation, which is exact.

    Args:
      tile: (block, block), queries × keys.

    Returns:
      (block, 2 · block) of the same dtype, with the columns of `slabs_by_distance`.
    """
    block = tile.shape[1]
    size = math.gcd(block, LANES)
    row = jax.lax.broadcasted_iota(jnp.int32, (size, size), 0)
    column = jax.lax.broadcasted_iota(jnp.int32, (size, size), 1)
    reverse = (row + column == size - 1).astype(tile.dtype)
    chunks = [dot(tile[:, at : at + size], reverse, (1, 0)) for at in range(0, block, size)]
    wide = jnp.concatenate([*chunks[::-1], jnp.zeros((block, block), jnp.float32)], axis=1)
    return pltpu.roll(wide, 0, 1, stride=1, stride_axis=0).astype(tile.dtype)
