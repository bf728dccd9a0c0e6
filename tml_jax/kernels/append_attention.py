"""Attention of a few new elements to a ring cache with the learned relative bias, for TPU; it writes them in place.

Online softmax over blocks of the cache, from the newest element backwards, as long as blocks are within the window and
written; all query heads of a kv head are one tile, and the cache is read once, as it lies. The bias needs no matrix
either: in a block the *age* newest − position of the keys falls by one from slot to slot, so that

  slab                    = the reversed table, rotated by the age of the block's first slot
  bias of query t by slot = relative[t] @ slab, rotated right by t

and only blocks with ages below the extent have one.

The new elements reach the cache here because a scatter before the kernel costs more than all the rest: the compiler
counts it as reading and writing the whole cache. The one or two blocks that they fall into are fetched anyway, get them
in VMEM, and the tiles that changed, of a few slots each, go back to where they came from: the cache is input and output
at once. A block may be fetched before or after that, as all else in a tile is written back as it was.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from tml_jax.kernels.relative_tiles import LANES, MASKED, dot

_SUBLANES = 8  # queries are padded to a multiple
Ref = jax.Array  # of VMEM: read and written by index


def tile_slots(dtype: jnp.dtype) -> int:
    """Slots of a tile, which a TPU reads and writes at once: a ring holds whole tiles."""
    return _SUBLANES * 4 // jnp.dtype(dtype).itemsize


def append_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    position: jax.Array,
    window: int,
    *,
    interpret: bool,
    block: int = 512,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Writes new elements into a ring cache, in place if it is donated, and attends to it; has no gradient.

    The same numbers as `tml_jax.model.attention.attend_appended`. Products take inputs of the query's dtype
    and accumulate in float32; the softmax is float32. XLA cannot partition it: call it inside `jax.shard_map` (with
    `check_vma=False`) over sessions or kv heads. Its cost estimate is that of a full cache.

    Args:
      query: (B, T, H, D).
      key: (B, T, K, D) with H a multiple of K, rounded to the dtype of the cache.
      value: like key.
      key_cache: (B, K, S, D); position p is in slot p mod S. Slots that were never written may hold any number.
      value_cache: (B, K, S, D), of the same dtype.
      relative: (B, T, H, d_rel), relative states of the queries.
      table: (d_rel, extent), bias profiles by backward distance; rounded to the dtype of `relative`.
      position: (B, T) int32 of the queries, consecutive in a row: position[:, t] = position[:, 0] + t. Padding on the
        right counts on, as in `Append`; what comes out there means nothing.
      window: elements a query sees, itself included; at most S − T + 1, or the ring has lost some of them.
      interpret: run the kernel in Python, for tests; else it compiles for TPUs only.
      block: slots of a tile, at most; a multiple of 128 unless interpreted. S need not be a multiple of it, only of
        `tile_slots`.

    Returns:
      (B, T, H, D) of the query's dtype, and both caches with the new elements.

    Raises:
      ValueError: shapes that do not fit each other, a window that the ring cannot hold, or a block or a number of slots
        that no TPU takes.
    """
    batch, time, heads, width = query.shape
    kv_heads, slots = key_cache.shape[1:3]
    rank, extent = table.shape
    if heads % kv_heads or key_cache.shape != (batch, kv_heads, slots, width) or value_cache.shape != key_cache.shape:
        raise ValueError(
            f"query {query.shape}, caches {key_cache.shape} and {value_cache.shape}: need (B, T, H, D), (B, K, S, D)"
        )
    if key.shape != (batch, time, kv_heads, width) or value.shape != key.shape:
        raise ValueError(f"key {key.shape} and value {value.shape} do not fit query {query.shape} and the caches")
    if relative.shape != (batch, time, heads, rank) or position.shape != (batch, time):
        raise ValueError(
            f"relative {relative.shape}, table {table.shape}, position {position.shape} do not fit query {query.shape}"
        )
    if not 1 <= window <= slots - time + 1:
        raise ValueError(f"a window of {window}: {slots} slots that take {time} elements hold 1 to {slots - time + 1}")
    if not interpret and block % LANES:
        raise ValueError(f"blocks of {block}: a TPU takes multiples of {LANES}")
    block, groups = min(block, slots), heads // kv_heads
    tile = tile_slots(key_cache.dtype)
    if slots % tile or block % tile:
        raise ValueError(f"{slots} slots in blocks of {block}: both must be multiples of {tile}")
    rows = -(-time // _SUBLANES) * _SUBLANES
    touched = -(-(time + tile - 1) // tile) * tile  # slots of the tiles that get something new, at most

    def by_kv_head(x: jax.Array) -> jax.Array:
        """(B, T, H, N) → (B, K, heads of it × rows, N)."""
        x = jnp.pad(x, ((0, 0), (0, rows - time), (0, 0), (0, 0)))
        return x.reshape(batch, rows, kv_heads, -1, x.shape[-1]).transpose(0, 2, 3, 1, 4).reshape(
            batch, kv_heads, groups * rows, -1
        )  # fmt: skip

    def new_slots(x: jax.Array) -> jax.Array:
        """(B, T, K, D) → (B, K, touched, D)."""
        x = jnp.swapaxes(x.astype(key_cache.dtype), 1, 2)
        return jnp.pad(x, ((0, 0), (0, 0), (0, touched - time), (0, 0)))

    # Distances from the last column, 0, to the left, with zeros for all others that a block with a bias can have.
    lead = _whole_registers(rows)
    size = _whole_registers(extent + block + 2 * lead)
    reverse = jnp.pad(table.astype(relative.dtype), ((0, 0), (0, size - extent)))[:, ::-1].astype(jnp.float32)
    newest = position[:, -1]
    seen = _blocks_seen(newest, slots, block, window + time - 1)
    blocks = -(-slots // block)

    def cache_block(row: jax.Array, step: jax.Array, newest: Ref, seen: Ref) -> tuple[jax.Array, ...]:
        # Steps past the last block that is seen stay at it, so that nothing is fetched.
        return row, 0, _block_of(newest[row], jnp.minimum(step, seen[row] - 1), slots, block), 0

    cache_spec, written = pl.BlockSpec((None, kv_heads, block, width), cache_block), pl.BlockSpec(memory_space=pl.ANY)
    of_row = lambda *shape: pl.BlockSpec((None, *shape), lambda row, step, *_: (row, *[0] * len(shape)))  # noqa: E731
    scores = batch * heads * time * slots
    scores_with_bias = batch * heads * time * min(slots, extent + time + block)
    new = 2 * batch * kv_heads * touched * width * key_cache.dtype.itemsize  # read, and written to the cache
    read = (query.size * 2 + relative.size) * query.dtype.itemsize + 2 * key_cache.size * key_cache.dtype.itemsize
    out, *caches = pl.pallas_call(
        functools.partial(_kernel, time=time, slots=slots, window=window, extent=extent, groups=groups, lead=lead),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, blocks),
            in_specs=[
                of_row(kv_heads, groups * rows, width),
                of_row(kv_heads, touched, width),
                of_row(kv_heads, touched, width),
                cache_spec,
                cache_spec,
                of_row(kv_heads, groups * rows, rank),
                pl.BlockSpec(reverse.shape, lambda row, step, *_: (0, 0)),
            ],
            out_specs=[of_row(kv_heads, groups * rows, width), written, written],
            scratch_shapes=[
                *(pltpu.VMEM((kv_heads, groups * rows, size), jnp.float32) for size in (1, 1, width)),
                *(pltpu.VMEM((kv_heads, block, width), key_cache.dtype) for _ in range(2)),
                pltpu.VMEM((kv_heads, touched, width), jnp.float32),
                pltpu.SemaphoreType.DMA,
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct((batch, kv_heads, groups * rows, width), query.dtype),
            *(jax.ShapeDtypeStruct(cache.shape, cache.dtype) for cache in (key_cache, value_cache)),
        ],
        input_output_aliases={5: 1, 6: 2},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=4 * scores * width + 2 * scores_with_bias * rank,
            transcendentals=scores,
            bytes_accessed=read + 2 * new,
        ),
        interpret=interpret,
        name="append_attention",
    )(newest, seen, by_kv_head(query), new_slots(key), new_slots(value), key_cache, value_cache, by_kv_head(relative),
      reverse)  # fmt: skip
    out = out.reshape(batch, kv_heads, groups, rows, width)[:, :, :, :time]
    return out.transpose(0, 3, 1, 2, 4).reshape(query.shape), *caches


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
    newest: Ref, seen: Ref,
    query: Ref, new_key: Ref, new_value: Ref, key: Ref, value: Ref, relative: Ref, reverse: Ref,
    out: Ref, key_cache: Ref, value_cache: Ref,
    largest: Ref, total: Ref, mixed: Ref, keys_now: Ref, values_now: Ref, shifted: Ref, sent: Ref,
    *, time: int, slots: int, window: int, extent: int, groups: int, lead: int,
) -> None:  # fmt: skip
    """One block of a session's cache.

    query, out (K, G · rows, D), new_key, new_value (K, touched, D), key, value (K, block, D) as they were before,
    relative (K, G · rows, d_rel), reverse (d_rel, N), key_cache, value_cache (B, K, S, D) in memory.
    """
    kv_heads, height, width = query.shape
    rows, block = height // groups, key.shape[1]
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

    def add(biased: bool, key: Ref, value: Ref) -> None:
        query_at = jax.lax.broadcasted_iota(jnp.int32, (groups, rows, block), 1).reshape(height, block)
        slot = jax.lax.broadcasted_iota(jnp.int32, (height, block), 1)
        past_seam = slot > first_age  # where the oldest elements follow the newest
        age = first_age - slot + jnp.where(past_seam, slots, 0)
        distance = age + query_at - (time - 1)
        sees = (distance >= 0) & (distance < window) & (age <= newest[row]) & (start + slot < slots)
        keys, values = (x[...].astype(query.dtype) for x in (key, value))
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

    first, size = newest[row] - (time - 1), tile_slots(keys_now.dtype)
    offset = jax.lax.rem(first, size)  # of the first new element in its tile
    last = jnp.minimum(start + block, slots) - 1
    gets_new = (step == 0) | (jax.lax.rem(jax.lax.rem(newest[row], slots) - last + slots, slots) < time)

    def tiles_here(do: Callable[[jax.Array, jax.Array], None]) -> None:
        """Calls it with number and place in the block of each tile of this block that gets something new."""

        def at_tile(number: jax.Array, _: None) -> None:
            tile = jax.lax.rem(jax.lax.rem(first, slots) // size + number, slots // size)
            at = pl.multiple_of(tile * size - start, size)
            pl.when((number * size < offset + time) & (at >= 0) & (at < block))(lambda: do(number, at))

        jax.lax.fori_loop(0, shifted.shape[1] // size, at_tile, None)

    def merge(new: Ref, held: Ref, now: Ref) -> None:
        now[...] = held[...]
        for head in range(kv_heads):  # rotations are of 32 bits
            shifted[head] = pltpu.roll(new[head].astype(jnp.float32), offset, 0)

        def put(number: jax.Array, at: jax.Array) -> None:
            element = number * size + jax.lax.broadcasted_iota(jnp.int32, (kv_heads, size, width), 1) - offset
            tile = now[:, pl.ds(at, size)].astype(jnp.float32)
            new = shifted[:, pl.ds(pl.multiple_of(number * size, size), size)]
            now[:, pl.ds(at, size)] = jnp.where((element >= 0) & (element < time), new, tile).astype(now.dtype)

        tiles_here(put)

    def copies(at: jax.Array) -> list[Any]:
        """Of a tile of keys and one of values to the cache."""
        place = pl.multiple_of(start + at, size)
        return [
            pltpu.make_async_copy(now.at[:, pl.ds(at, size)], cache.at[row, :, pl.ds(place, size)], sent)
            for now, cache in ((keys_now, key_cache), (values_now, value_cache))
        ]

    def send(_: jax.Array, at: jax.Array) -> None:
        for copy in copies(at):
            copy.start()

    def wait(_: jax.Array, at: jax.Array) -> None:
        for copy in copies(at):
            copy.wait()

    @pl.when((step < seen[row]) & gets_new)
    def _() -> None:
        merge(new_key, key, keys_now)
        merge(new_value, value, values_now)
        tiles_here(send)
        add(True, keys_now, values_now)
        tiles_here(wait)

    near = first_age - (block - 1) - (time - 1) < extent
    pl.when((step < seen[row]) & ~gets_new & near)(lambda: add(True, key, value))
    pl.when((step < seen[row]) & ~gets_new & ~near)(lambda: add(False, key, value))

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        out[...] = (mixed[...] / total[...]).astype(out.dtype)
