"""The kernels of `packed_attention`: what is done with one tile of pairs of one kv head and all its query heads.

Every kernel is called for one tile after the other. The tiles of a block of queries (or, for the gradient of keys, of a
block of keys) come in a row; what they sum up to lives in scratch from the first to the last.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from tml_jax.kernels.relative_tiles import MASKED, dot, offsets_with_bias, tile_bias, tile_by_distance

Ref = jax.Array  # of VMEM: read and written by index


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How T × S pairs are cut into tiles; the queries are the last T of the S elements.

    Attributes:
      time: T, a multiple of the block.
      block: queries and keys of a tile.
      window: elements a query sees, itself included.
      extent: distances that have a bias.
      interpret: run the kernels in Python.
      before: blocks of keys before the first block of queries; no more than the queries see.
    """

    time: int
    block: int
    window: int
    extent: int
    interpret: bool
    before: int = 0

    @property
    def blocks(self) -> int:
        """Blocks of queries."""
        return self.time // self.block

    @property
    def key_blocks(self) -> int:
        """Blocks of keys."""
        return self.before + self.blocks

    @property
    def keys(self) -> int:
        """S, a multiple of the block."""
        return self.key_blocks * self.block

    @property
    def back(self) -> int:
        """Blocks that the queries of a block see before their own."""
        return min(self.key_blocks - 1, (self.window + self.block - 2) // self.block)

    @property
    def near(self) -> int:
        """Offsets, from 0, at which tiles have a bias."""
        return min(self.back + 1, offsets_with_bias(self.extent, self.block))

    def tiles(self, by_key: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(N,) blocks of queries and (N,) blocks of keys of all tiles; those of one query (or key) come in a row."""
        own = [(q, q + self.before) for q in range(self.blocks)]  # a block of queries and its own of keys
        pairs = [(q, k) for q, last in own for k in range(max(0, last - self.back), last + 1)]
        pairs.sort(key=lambda pair: pair[::-1] if by_key else pair)
        of_query, of_key = np.asarray(pairs, np.int32).T
        return of_query, of_key


@dataclasses.dataclass(frozen=True)
class _Tile:
    """The tile that a kernel is called for.

    Attributes:
      offset: block of the queries' own keys minus block of keys.
      first: whether it is the first of its block of queries (or keys).
      last: whether it is the last.
      meets: whether segments of the queries can be among those of the keys.
    """

    offset: jax.Array
    first: jax.Array
    last: jax.Array
    meets: jax.Array

    @staticmethod
    def of(of_query: Ref, of_key: Ref, lowest: Ref, highest: Ref, tiling: Tiling, by_key: bool) -> "_Tile":
        """Reads the list of tiles, and the lowest and highest segment (B · key blocks,) of every block."""
        tile, row = pl.program_id(2), pl.program_id(0) * tiling.key_blocks
        own, key = of_query[tile] + tiling.before, of_key[tile]
        if by_key:
            first = own == jnp.maximum(key, tiling.before)
            last = own == jnp.minimum(key + tiling.back, tiling.key_blocks - 1)
        else:
            first, last = key == jnp.maximum(own - tiling.back, 0), own == key
        meets = (lowest[row + own] <= highest[row + key]) & (lowest[row + key] <= highest[row + own])
        return _Tile(own - key, first, last, meets)

    def compute(self, tiling: Tiling, body: Callable[[bool], None]) -> None:
        """Calls `body` where segments meet, with whether the tile has a bias (and perhaps pairs that look ahead)."""
        near = self.offset < tiling.near
        pl.when(self.meets & near)(lambda: body(True))
        if tiling.back >= tiling.near:
            pl.when(self.meets & ~near)(lambda: body(False))

    def seen(self, query_segment: Ref, key_segment: Ref, near: bool, tiling: Tiling) -> jax.Array:
        """Pairs that see each other, (block, block) bool, of segments (1, block) each."""
        seen = jnp.transpose(query_segment[...]) == key_segment[...]
        row = jax.lax.broadcasted_iota(jnp.int32, seen.shape, 0)
        column = jax.lax.broadcasted_iota(jnp.int32, seen.shape, 1)
        distance = self.offset * tiling.block + row - column
        if near:
            seen = seen & (distance >= 0)
        if tiling.window < tiling.keys:
            seen = seen & (distance < tiling.window)
        return seen


def _scores(
    query: jax.Array, key: jax.Array, relative: jax.Array, slab: jax.Array | None, seen: jax.Array
) -> jax.Array:
    """(block, block) float32, of query and key (block, D), relative (d_rel, block), slab None where no bias is."""
    scores = dot(query, key, (1, 1)) * (1 / query.shape[1])
    if slab is not None:
        scores = scores + tile_bias(relative, slab)
    return jnp.where(seen, scores, MASKED)


def forward_kernel(
    of_query: Ref, of_key: Ref, lowest: Ref, highest: Ref, query_segment: Ref, key_segment: Ref,
    query: Ref, key: Ref, value: Ref, relative: Ref, slabs: Ref,
    out: Ref, normaliser: Ref,
    largest: Ref, total: Ref, mixed: Ref,
    *, tiling: Tiling, by_key: bool,
) -> None:  # fmt: skip
    """Online softmax: out (G, block, D), and the logarithm of its normaliser (G, block)."""
    tile = _Tile.of(of_query, of_key, lowest, highest, tiling, by_key)

    @pl.when(tile.first)
    def _() -> None:
        largest[...] = jnp.full(largest.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        mixed[...] = jnp.zeros(mixed.shape, jnp.float32)

    def add(near: bool) -> None:
        seen = tile.seen(query_segment, key_segment, near, tiling)
        slab = slabs[tile.offset] if near else None
        for head in range(query.shape[0]):
            scores = _scores(query[head], key[...], relative[head], slab, seen)
            # A query that has seen nothing yet sums up garbage, which its own key, in the last tile, scales to zero.
            new = jnp.maximum(largest[head], jnp.max(scores, axis=1, keepdims=True))
            weights, scale = jnp.exp(scores - new), jnp.exp(largest[head] - new)
            total[head] = total[head] * scale + jnp.sum(weights, axis=1, keepdims=True)
            mixed[head] = mixed[head] * scale + dot(weights.astype(value.dtype), value[...], (1, 0))
            largest[head] = new

    tile.compute(tiling, add)

    @pl.when(tile.last)
    def _() -> None:
        for head in range(query.shape[0]):
            out[head] = (mixed[head] / total[head]).astype(out.dtype)
            normaliser[head : head + 1] = jnp.transpose(largest[head] + jnp.log(total[head]))


def _gradients(
    query: jax.Array, key: jax.Array, value: jax.Array, relative: jax.Array, slab: jax.Array | None, seen: jax.Array,
    of_out: jax.Array, normaliser: jax.Array, inner: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Softmax weights of a tile and the gradient of its scores, (block, block) float32, of one query head.

    normaliser and inner (out · its gradient) are (1, block), the rest as in `_scores`.
    """
    weights = jnp.exp(_scores(query, key, relative, slab, seen) - jnp.transpose(normaliser))
    return weights, weights * (dot(of_out, value, (1, 1)) - jnp.transpose(inner))


def query_gradient_kernel(
    of_query: Ref, of_key: Ref, lowest: Ref, highest: Ref, query_segment: Ref, key_segment: Ref,
    query: Ref, key: Ref, value: Ref, relative: Ref, slabs: Ref, of_out: Ref, normaliser: Ref, inner: Ref,
    slabs_by_distance: Ref,
    of_query_out: Ref, of_relative_out: Ref, of_slabs: Ref,
    query_sum: Ref, relative_sum: Ref,
    *, tiling: Tiling, by_key: bool,
) -> None:  # fmt: skip
    """Gradients of the query (G, block, D), of relative (G, d_rel, block) and of all slabs by distance."""
    tile = _Tile.of(of_query, of_key, lowest, highest, tiling, by_key)

    @pl.when(pl.program_id(2) == 0)
    def _() -> None:
        of_slabs[...] = jnp.zeros(of_slabs.shape, jnp.float32)

    @pl.when(tile.first)
    def _() -> None:
        query_sum[...] = jnp.zeros(query_sum.shape, jnp.float32)
        relative_sum[...] = jnp.zeros(relative_sum.shape, jnp.float32)

    def add(near: bool) -> None:
        seen = tile.seen(query_segment, key_segment, near, tiling)
        slab = slabs[tile.offset] if near else None
        for head in range(query.shape[0]):
            _, of_scores = _gradients(
                query[head], key[...], value[...], relative[head], slab, seen,
                of_out[head], normaliser[head : head + 1], inner[head : head + 1],
            )  # fmt: skip
            of_scores = of_scores.astype(query.dtype)
            query_sum[head] += dot(of_scores, key[...], (1, 0))
            if near:
                by_distance = tile_by_distance(of_scores)
                relative_sum[head] += dot(slabs_by_distance[tile.offset], by_distance, (1, 1))
                of_slabs[tile.offset] += dot(relative[head], by_distance, (1, 0))

    tile.compute(tiling, add)

    @pl.when(tile.last)
    def _() -> None:
        of_query_out[...] = (query_sum[...] * (1 / query.shape[2])).astype(of_query_out.dtype)
        of_relative_out[...] = relative_sum[...].astype(of_relative_out.dtype)


def key_gradient_kernel(
    of_query: Ref, of_key: Ref, lowest: Ref, highest: Ref, query_segment: Ref, key_segment: Ref,
    query: Ref, key: Ref, value: Ref, relative: Ref, slabs: Ref, of_out: Ref, normaliser: Ref, inner: Ref,
    of_key_out: Ref, of_value_out: Ref,
    key_sum: Ref, value_sum: Ref,
    *, tiling: Tiling, by_key: bool,
) -> None:  # fmt: skip
    """Gradients of keys and values (block, D), summed over the query heads that share them."""
    tile = _Tile.of(of_query, of_key, lowest, highest, tiling, by_key)

    @pl.when(tile.first)
    def _() -> None:
        key_sum[...] = jnp.zeros(key_sum.shape, jnp.float32)
        value_sum[...] = jnp.zeros(value_sum.shape, jnp.float32)

    def add(near: bool) -> None:
        seen = tile.seen(query_segment, key_segment, near, tiling)
        slab = slabs[tile.offset] if near else None
        for head in range(query.shape[0]):
            weights, of_scores = _gradients(
                query[head], key[...], value[...], relative[head], slab, seen,
                of_out[head], normaliser[head : head + 1], inner[head : head + 1],
            )  # fmt: skip
            value_sum[...] += dot(weights.astype(of_out.dtype), of_out[head], (0, 0))
            key_sum[...] += dot(of_scores.astype(query.dtype), query[head], (0, 0))

    tile.compute(tiling, add)

    @pl.when(tile.last)
    def _() -> None:
        of_key_out[...] = (key_sum[...] * (1 / query.shape[2])).astype(of_key_out.dtype)
        of_value_out[...] = value_sum[...].astype(of_value_out.dtype)
