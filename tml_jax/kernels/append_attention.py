"""Attention of a few new elements to a ring cache with the learned relative bias, for TPU.

Online softmax over blocks of the cache, from the newest element backwards, as long as blocks are within the window and
written; all query heads of a kv head are one tile, and the cache is read once, as it lies. The bias needs no matrix
either: in a block the *age* newest − position of the keys falls by one from slot to slot, so that

  slab                    = the reversed table, rotated by the age of the block's first slot
  bias of query t by slot = relative[t] @ slab, rotated right by t

and only blocks with ages below the extent have one.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.relative_tiles import LANES, MASKED, dot

_SUBLANES = 8  # queries are padded to a multiple
Ref = jax.Array  # of VMEM: read and written by index


def append_attention(
    query: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    position: jax.Array,
    window: int,
    *,
    interpret: bool,
    block: int = 512,
) -> jax.Array:
    """Attention of new elements to a ring cache that holds their keys and values already; has no gradient.

    The same numbers as `tml_jax.model.attention.Attention` when it streams. Products take inputs of the query's dtype
    and accumulate in float32; the softmax is float32. XLA cannot partition it: call it inside `jax.shard_map` (with
    `check_vma=False`) over sessions or kv heads. Its cost estimate is that of a full cache.

    Args:
      query: (B, T, H, D).
      key_cache: (B, S, K, D) with H a multiple of K; position p is in slot p mod S. Slots that were never written may
        hold any number.
      value_cache: (B, S, K, D), of the same dtype.
      relative: (B, T, H, d_rel), relative states of the queries.
      table: (d_rel, extent), bias profiles by backward distance; rounded to the dtype of `relative`.
      position: (B, T) int32 of the queries, consecutive in a row: position[:, t] = position[:, 0] + t. Padding on the
        right counts on, as in `Append`; what comes out there means nothing.
      window: elements a query sees, itself included; at most S − T + 1, or the ring has lost some of them.
      interpret: run the kernel in Python, for tests; else it compiles for TPUs only.
      block: slots of a tile, at most; a multiple of 128 unless interpreted. S need not be a multiple.

    Returns:
      (B, T, H, D) of the query's dtype.

    Raises:
      ValueError: shapes that do not fit each other, a window that the ring cannot hold, or a block that no TPU takes.
    """
    batch, time, heads, width = query.shape
    slots, kv_heads = key_cache.shape[1:3]
    rank, extent = table.shape
    if heads % kv_heads or key_cache.shape != (batch, slots, kv_heads, width) or value_cache.shape != key_cache.shape:
        raise ValueError(
            f"query {query.shape}, caches {key_cache.shape} and {value_cache.shape}: need (B, T, H, D), (B, S, K, D)"
        )
    if relative.shape != (batch, time, heads, rank) or position.shape != (batch, time):
        raise ValueError(
            f"relative {relative.shape}, table {table.shape}, position {position.shape} do not fit query {query.shape}"
        )
    if not 1 <= window <= slots - time + 1:
        raise ValueError(f"a window of {window}: {slots} slots that take {time} elements hold 1 to {slots - time + 1}")
    if not interpret and block % LANES:
        raise ValueError(f"blocks of {block}: a TPU takes multiples of {LANES}")
    block, groups = min(block, slots), heads // kv_heads
    rows = -(-time // _SUBLANES) * _SUBLANES

    def by_kv_head(x: jax.Array) -> jax.Array:
        """(B, T, H, N) → (B, K, heads of it × rows, N)."""
        x = jnp.pad(x, ((0, 0), (0, rows - time), (0, 0), (0, 0)))
        return x.reshape(batch, rows, kv_heads, -1, x.shape[-1]).transpose(0, 2, 3, 1, 4).reshape(
            batch, kv_heads, groups * rows, -1
        )  # fmt: skip

    # Distances from the last column, 0, to the left, with zeros for all others that a block with a bias can have.
    lead = _whole_registers(rows)
    size = _whole_registers(extent + block + 2 * lead)
    reverse = jnp.pad(table.astype(relative.dtype), ((0, 0), (0, size - extent)))[:, ::-1].astype(jnp.float32)
    newest = position[:, -1]
    seen = _blocks_seen(newest, slots, block, window + time - 1)
    blocks = -(-slots // block)

    def cache_block(row: jax.Array, step: jax.Array, newest: Ref, seen: Ref) -> tuple[jax.Array, ...]:
        # Steps past the last block that is seen stay at it, so that nothing is fetched.
        return row, _block_of(newest[row], jnp.minimum(step, seen[row] - 1), slots, block), 0, 0

    cache_spec = pl.BlockSpec((None, block, kv_heads, width), cache_block)
    of_row = lambda *shape: pl.BlockSpec((None, *shape), lambda row, step, *_: (row, *[0] * len(shape)))  # noqa: E731
    scores = batch * heads * time * slots
    scores_with_bias = batch * heads * time * min(slots, extent + time + block)
    read = (query.size * 2 + relative.size) * query.dtype.itemsize + 2 * key_cache.size * key_cache.dtype.itemsize
    out = pl.pallas_call(
        functools.partial(_kernel, time=time, slots=slots, window=window, extent=extent, groups=groups, lead=lead),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, blocks),
            in_specs=[
                of_row(kv_heads, groups * rows, width),
                cache_spec,
                cache_spec,
                of_row(kv_heads, groups * rows, rank),
                pl.BlockSpec(reverse.shape, lambda row, step, *_: (0, 0)),
            ],
            out_specs=of_row(kv_heads, groups * rows, width),
            scratch_shapes=[
                pltpu.VMEM((kv_heads, groups * rows, size), jnp.float32) for size in (1, 1, width)
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((batch, kv_heads, groups * rows, width), query.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * scores * width + 2 * scores_with_bias * rank, transcendentals=scores, bytes_accessed=read
        ),
        interpret=interpret,
        name="append_attention",
    )(newest, seen, by_kv_head(query), key_cache, value_cache, by_kv_head(relative), reverse)  # fmt: skip
    out = out.reshape(batch, kv_heads, groups, rows, width)[:, :, :, :time]
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape)


def _whole_registers(columns: int) -> int:
    """As many columns, or the next more that rotations take on a TPU."""
    return -(-columns // LANES) * LANES


def _block_of(newest: jax.Array, step: jax.Array, slots: int, block: int) -> jax.Array:
    """The block of the cache that is so many steps before that of the newest position."""
    blocks = -(-slots // block)
    return jax.lax.rem(jax.lax.rem(newest, slots) // block - step + blocks, blocks)


def _blocks_seen(newest: jax.Array, slots: int, block: int, reach: int) -> jax.Array:
    """(B,) int32: how many blocks, from the newest backwards, hold a written slot of an age below `reach`."""
    at = _block_of(newest[:, None], jnp.arange(-(-slots // block))[None], slots, block) * block
    last = jnp.minimum(at + block, slots) - 1
    youngest = jnp.where(at // block == (newest[:, None] % slots) // block, 0, (newest[:, None] - last) % slots)
    return jnp.sum((at <= newest[:, None]) & (youngest < reach), axis=1, dtype=jnp.int32)


def _kernel(
    newest: Ref, seen: Ref, query: Ref, key: Ref, value: Ref, relative: Ref, reverse: Ref,
    out: Ref,
    largest: Ref, total: Ref, mixed: Ref,
    *, time: int, slots: int, window: int, extent: int, groups: int, lead: int,
) -> None:  # fmt: skip
    """query, out (K, G · rows, D), key, value (block, K, D), relative (K, G · rows, d_rel), reverse (d_rel, N)."""
    kv_heads, height, width = query.shape
    rows, block = height // groups, key.shape[0]
    row, step = pl.program_id(0), pl.program_id(1)
    start = _block_of(newest[row], step, slots, block) * block
    first_age = jax.lax.rem(jax.lax.rem(newest[row], slots) - start + slots, slots)  # of the block's first slot

    seam_near = slots - (block - 1) - (time - 1) < extent  # a short ring: the oldest elements have a bias, too

    @pl.when(step == 0)
    def _() -> None:
        largest[...] = jnp.full(largest.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        mixed[...] = jnp.zeros(mixed.shape, jnp.float32)

    def slab(age: jax.Array) -> jax.Array:
        """(d_rel, lead + block or more): for query 0 and slots from −lead on, where slot 0 is of the given age."""
        # Query t sees an age of n at a distance of n + t − (T − 1); distance 0 is the last column.
        shift = jax.lax.rem(age - (time - 1) + 1 + lead + 2 * reverse.shape[1], reverse.shape[1])
        return pltpu.roll(reverse[...], shift, 1)[:, : lead + _whole_registers(block)].astype(relative.dtype)

    def bias(states: jax.Array, slab: jax.Array) -> jax.Array:
        """(G · rows, block) for the slots of a slab, of (G · rows, d_rel)."""
        unskewed = dot(states, slab, (1, 0))
        heads = [unskewed[at : at + rows] for at in range(0, height, rows)]
        skewed = [pltpu.roll(x, 0, 1, stride=1, stride_axis=0)[:, lead : lead + block] for x in heads]
        return jnp.concatenate(skewed)

    def add(biased: bool) -> None:
        query_at = jax.lax.broadcasted_iota(jnp.int32, (groups, rows, block), 1).reshape(height, block)
        slot = jax.lax.broadcasted_iota(jnp.int32, (height, block), 1)
        past_seam = slot > first_age  # where the oldest elements follow the newest
        age = first_age - slot + jnp.where(past_seam, slots, 0)
        distance = age + query_at - (time - 1)
        sees = (distance >= 0) & (distance < window) & (age <= newest[row]) & (start + slot < slots)
        keys, values = (jnp.swapaxes(x[...].astype(query.dtype), 0, 1) for x in (key, value))
        if slots % block:  # what lies beyond the cache may be no number, and 0 · NaN is NaN
            inside = start + jax.lax.broadcasted_iota(jnp.int32, (block, width), 0) < slots
        slabs = (slab(first_age), slab(first_age + slots)) if biased else ()
        for head in range(kv_heads):
            scores = dot(query[head], keys[head], (1, 1)) * (1 / width)
            if biased:
                by_slot = bias(relative[head], slabs[0])
                if seam_near:
                    by_slot = jnp.where(past_seam, bias(relative[head], slabs[1]), by_slot)
                scores = scores + by_slot
            scores = jnp.where(sees, scores, MASKED)
            # A query that has seen nothing yet sums up garbage, which its first key scales to zero.
            new = jnp.maximum(largest[head], jnp.max(scores, axis=1, keepdims=True))
            weights, scale = jnp.exp(scores - new), jnp.exp(largest[head] - new)
            total[head] = total[head] * scale + jnp.sum(weights, axis=1, keepdims=True)
            held = values[head]
            if slots % block:
                held = jnp.where(inside, held, jnp.zeros_like(held))
            mixed[head] = mixed[head] * scale + dot(weights.astype(held.dtype), held, (1, 0))
            largest[head] = new

    near = first_age - (block - 1) - (time - 1) < extent
    pl.when((step < seen[row]) & near)(lambda: add(True))
    pl.when((step < seen[row]) & ~near)(lambda: add(False))

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        out[...] = (mixed[...] / total[...]).astype(out.dtype)
