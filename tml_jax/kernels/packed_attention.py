"""Attention over packed rows with the learned relative bias, for TPU: neither scores nor bias are ever in memory.

Online softmax over tiles of `block` × `block` pairs, as in FlashAttention (arXiv 2205.14135, 2307.08691): the gradient
recomputes the scores from the logarithm of their normaliser. The bias of a tile is in `relative_tiles`. Only tiles that
hold a pair within the window are in the grid (a list says which blocks every step reads), so a window costs what it
sees and a global layer half of all pairs; of those, tiles whose segments do not meet are passed over.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.packed_attention_kernels import (
    Tiling,
    forward_kernel,
    key_gradient_kernel,
    query_gradient_kernel,
)
from tml_jax.kernels.relative_tiles import LANES, skewed_slabs, slabs_by_distance
from tml_jax.remat import keep


def packed_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    window: int,
    *,
    interpret: bool,
    block: int = 512,
) -> jax.Array:
    """Causal attention within segments of packed rows; differentiable in all but `segment`.

    The same numbers as `tml_jax.model.attention.attend_packed_reference`. Products take inputs of the given dtype and
    accumulate in float32; the softmax is float32. XLA cannot partition it: call it inside `jax.shard_map` (with
    `check_vma=False`) over rows or kv heads.

    Args:
      query: (B, T, H, D), the last T of S elements.
      key: (B, S, K, D) with H a multiple of K, of the query's dtype.
      value: (B, S, K, D), of the query's dtype.
      relative: (B, T, H, d_rel), relative states of the queries.
      table: (d_rel, extent), bias profiles by backward distance; rounded to the dtype of `relative`.
      segment: (B, S) int32.
      window: elements a query sees, itself included; S or more for everything.
      interpret: run the kernels in Python, for tests; else they compile for TPUs only.
      block: queries and keys of a tile, at most; a multiple of 128 unless interpreted. T need not be a multiple.

    Returns:
      (B, T, H, D) of the query's dtype.

    Raises:
      ValueError: shapes that do not fit each other, a window below 1, or a block that no TPU takes.
    """
    batch, time, heads, width = query.shape
    kv_heads, rank = key.shape[2], relative.shape[3]
    keys = key.shape[1]
    alike = key.shape == (batch, keys, kv_heads, width) == value.shape and keys >= time
    if heads % kv_heads or not alike:
        raise ValueError(
            f"query {query.shape}, key {key.shape}, value {value.shape}: need (B, T, H, D), (B, S, K, D), S at least T"
        )
    if relative.shape[:3] != (batch, time, heads) or table.shape[0] != rank or segment.shape != (batch, keys):
        raise ValueError(
            f"relative {relative.shape}, table {table.shape}, segment {segment.shape} do not fit query {query.shape}"
        )
    if window < 1:
        raise ValueError(f"a window of {window}: a query sees itself at least, so give 1 or more")
    if not interpret and block % LANES:
        raise ValueError(f"blocks of {block}: a TPU takes multiples of {LANES}")
    least = 8 if interpret else LANES
    block = min(block, -(-time // least) * least)
    padded = -(-time // block) * block
    seen = min(keys - time, window - 1)  # keys before the first query that some query sees
    key, value, segment = (x[:, keys - time - seen :] for x in (key, value, segment))
    before = -(-seen // block)
    tiling = Tiling(padded, block, window, table.shape[1], interpret, before)

    def by_kv_head(x: jax.Array, front: int = 0) -> jax.Array:
        """(B, N, heads, …) → (B, K, heads / K, N padded, …). Nothing real sees the padding: what comes first is of no
        segment."""
        x = jnp.pad(x, ((0, 0), (front, padded - time), (0, 0), (0, 0)))
        return x.reshape(batch, x.shape[1], kv_heads, -1, x.shape[-1]).transpose(0, 2, 3, 1, 4)

    # d_rel before T: a minor dimension of 16 would be padded to 128 in memory.
    query, relative = by_kv_head(query), by_kv_head(relative).swapaxes(3, 4)
    front = before * block - seen
    key, value = by_kv_head(key, front)[:, :, 0], by_kv_head(value, front)[:, :, 0]
    segment = jnp.pad(segment, ((0, 0), (0, padded - time)))
    segment = jnp.pad(segment, ((0, 0), (front, 0)), constant_values=-1)
    out = _attend(query, key, value, relative, table.astype(relative.dtype), segment, tiling)
    return out.transpose(0, 3, 1, 2, 4).reshape(batch, padded, heads, width)[:, :time]


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def _attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    tiling: Tiling,
) -> jax.Array:
    """query (B, K, G, T, D), key and value (B, K, S, D), relative (B, K, G, d_rel, T) → (B, K, G, T, D)."""
    return _forward(query, key, value, relative, table, segment, tiling)[0]


def _forward(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    tiling: Tiling,
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    groups, width = query.shape[2], query.shape[4]
    slabs = skewed_slabs(table.astype(relative.dtype), tiling.near, tiling.block)
    made = _call(
        forward_kernel,
        tiling,
        segment,
        [("query", query), ("key", key), ("key", value), ("relative", relative), ("slabs", slabs)],
        [("query", query.dtype), ("rows", jnp.float32)],
        [(groups, tiling.block, 1), (groups, tiling.block, 1), (groups, tiling.block, width)],
        products=2,
        bias_products=1,
    )
    out, normaliser = keep(made)
    return out, (query, key, value, relative, table, segment, out, normaliser)


def _backward(tiling: Tiling, saved: tuple[jax.Array, ...], of_out: jax.Array) -> tuple[jax.Array | None, ...]:
    query, key, value, relative, table, segment, out, normaliser = saved
    groups, width, rank = query.shape[2], query.shape[4], table.shape[0]
    slabs = skewed_slabs(table.astype(relative.dtype), tiling.near, tiling.block)
    in_order = functools.partial(slabs_by_distance, offsets=tiling.near, block=tiling.block)
    by_distance, fold = jax.vjp(in_order, table.astype(jnp.float32))
    inner = jnp.sum(out.astype(jnp.float32) * of_out.astype(jnp.float32), axis=-1)
    operands = [("query", query), ("key", key), ("key", value), ("relative", relative), ("slabs", slabs)]
    operands += [("query", of_out), ("rows", normaliser), ("rows", inner)]
    of_query, of_relative, of_slabs = _call(
        query_gradient_kernel,
        tiling,
        segment,
        [*operands, ("slabs", by_distance.astype(relative.dtype))],
        [("query", query.dtype), ("relative", relative.dtype), ("slab sums", jnp.float32)],
        [(groups, tiling.block, width), (groups, rank, tiling.block)],
        products=3,
        bias_products=3,
    )
    of_key, of_value = _call(
        key_gradient_kernel,
        tiling,
        segment,
        operands,
        [("key", key.dtype), ("key", value.dtype)],
        [(tiling.block, width), (tiling.block, width)],
        products=4,
        bias_products=1,
        by_key=True,
    )
    (of_table,) = fold(jnp.sum(of_slabs, axis=(0, 1)))
    return of_query, of_key, of_value, of_relative, of_table.astype(table.dtype), None


_attend.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    tiling: Tiling,
    segment: jax.Array,
    operands: list[tuple[str, jax.Array]],
    results: list[tuple[str, jnp.dtype]],
    scratch: list[tuple[int, ...]],
    products: int,
    bias_products: int,
    by_key: bool = False,
) -> list[jax.Array]:
    """Runs a kernel over all tiles of all rows and kv heads.

    Args:
      kernel: takes four scalar arrays, both segments, operands, results and scratch as references.
      tiling: of the pairs.
      segment: (B, S) int32.
      operands: kind, which says how it is laid out and cut, and array.
      results: kind and dtype.
      scratch: shapes of float32 buffers that live from tile to tile.
      products: matrix products of a tile and query head over D or into D, for the cost.
      bias_products: the same over d_rel or into d_rel, of tiles with a bias.
      by_key: the order of tiles; see `Tiling.tiles`.

    Returns:
      The results.
    """
    (_, query), (_, _), (_, _), (_, relative), *_ = operands
    batch, kv_heads, groups, time, width = query.shape
    rank, block, near = relative.shape[3], tiling.block, tiling.near
    # By kind: whole shape after (B, K), what of it a tile sees, and where that stands given the tile's two blocks.
    kinds = {
        "query": ((groups, time, width), (groups, block, width), lambda q, k: (0, q, 0)),
        "key": ((tiling.keys, width), (block, width), lambda q, k: (k, 0)),
        "relative": ((groups, rank, time), (groups, rank, block), lambda q, k: (0, 0, q)),
        "rows": ((groups, time), (groups, block), lambda q, k: (0, q)),
        "slab sums": ((near, rank, 2 * block), (near, rank, 2 * block), lambda q, k: (0, 0, 0)),
    }

    def spec(kind: str) -> pl.BlockSpec:
        if kind == "slabs":
            return pl.BlockSpec((near, rank, 2 * block), lambda b, h, tile, *_: (0, 0, 0))
        _, part, where = kinds[kind]
        at = lambda b, h, tile, of_query, of_key, *_: (b, h, *where(of_query[tile], of_key[tile]))  # noqa: E731
        return pl.BlockSpec((None, None, *part), at)

    of_query, of_key = tiling.tiles(by_key)
    parts = segment.reshape(batch, tiling.key_blocks, block)
    bounds = [jnp.min(parts, axis=2).reshape(-1), jnp.max(parts, axis=2).reshape(-1)]
    own = lambda b, h, tile, of_query, *_: (b, 0, of_query[tile] + tiling.before)  # noqa: E731
    segment_of_query = pl.BlockSpec((None, 1, block), own)
    segment_of_key = pl.BlockSpec((None, 1, block), lambda b, h, tile, _, of_key, *__: (b, 0, of_key[tile]))

    tiles, tiles_near = len(of_query), int(np.sum(of_query - of_key < near))
    times = batch * kv_heads * groups * block**2
    flops = 2 * times * (tiles * products * width + tiles_near * bias_products * 2 * rank)
    fetched = sum(x.size * x.dtype.itemsize for _, x in operands)
    fetched += sum(batch * kv_heads * np.prod(kinds[kind][0]) * jnp.dtype(dtype).itemsize for kind, dtype in results)
    once = tiling.blocks if by_key else tiling.key_blocks
    again = (tiles - once) * batch * kv_heads * block * query.dtype.itemsize  # blocks of the inner order
    fetched += again * (groups * (2 * width + rank) if by_key else 2 * width)
    return pl.pallas_call(
        functools.partial(kernel, tiling=tiling, by_key=by_key),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=(batch, kv_heads, tiles),
            in_specs=[segment_of_query, segment_of_key, *(spec(kind) for kind, _ in operands)],
            out_specs=[spec(kind) for kind, _ in results],
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=[jax.ShapeDtypeStruct((batch, kv_heads, *kinds[kind][0]), dtype) for kind, dtype in results],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=int(flops), transcendentals=int(times * tiles), bytes_accessed=int(fetched)
        ),
        interpret=tiling.interpret,
        name=f"packed_attention_{kernel.__name__}",
    )(of_query, of_key, *bounds, segment[:, None], segment[:, None], *(x for _, x in operands))
