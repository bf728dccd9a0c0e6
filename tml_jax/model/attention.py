"""Grouped-query attention with a learned relative bias, over packed rows and over a ring cache.

r = x·W_r gives `d_rel` numbers per head; times a learned (d_rel, extent) table they give one bias per backward
distance, zero beyond the extent. Queries and keys are RMS-normed per head and scores scaled by 1 / head_dim. Global
layers multiply query and bias by 1 + α ln(max(1, (position + 1) / floor)). All as in the open Inkling weights.
"""

import functools
import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from tml_jax.config import ModelConfig
from tml_jax.kernels.append_attention import append_attention, tile_slots
from tml_jax.kernels.packed_attention import packed_attention
from tml_jax.model.attention_blocks import MASKED, attend_packed
from tml_jax.model.attention_ring import attend_ring, put_in_ring
from tml_jax.model.layers import RMSNorm, ShortConv, fan_in_init
from tml_jax.parallel.mesh import LOGICAL_TO_MESH, session_axes
from tml_jax.parallel.placement import Placement
from tml_jax.parallel.stripes import preceding
from tml_jax.remat import keep

BLOCK_GLOBAL, BLOCK_SLIDING, BLOCK_APPEND = 512, 256, 1024  # of the kernels for TPUs
HEADS = LOGICAL_TO_MESH["heads"]


@flax.struct.dataclass
class Packed:
    """Where the elements of packed rows stand: segment (B, T) int32, position (B, T) int32 within the segment."""

    segment: jax.Array
    position: jax.Array


@flax.struct.dataclass
class Append:
    """Where appended elements stand.

    Attributes:
      length: (B,) int32, elements already in the cache.
      valid: (B,) int32, how many of the appended positions are real; the rest is padding on the right, which the
        next append overwrites.
    """

    length: jax.Array
    valid: jax.Array


@flax.struct.dataclass
class AttentionCache:
    """Keys and values of the last `slots` elements in a ring (slot = position mod slots), and convolution inputs.

    Attributes:
      key: (B, kv_heads, slots, head_dim): what a head holds lies together, so that devices with few heads read it as
        it lies.
      value: like key.
      key_conv: (B, taps − 1, kv_heads · head_dim) float32.
      value_conv: like key_conv.
    """

    key: jax.Array
    value: jax.Array
    key_conv: jax.Array
    value_conv: jax.Array


def relative_bias(relative: jax.Array, table: jax.Array, distance: jax.Array) -> jax.Array:
    """Bias of every pair, gathered from the bias of every distance; the slow reference.

    Args:
      relative: (B, T, H, d_rel), relative states of the queries.
      table: (d_rel, extent), bias profiles by backward distance.
      distance: (B, T, S) int32, query position − key position.

    Returns:
      (B, T, H, S); zero where the distance is negative or beyond the extent.
    """
    by_distance = jnp.einsum("bthr,re->bthe", relative, table)
    extent = table.shape[1]
    index = jnp.clip(distance, 0, extent - 1)[:, :, None, :]
    index = jnp.broadcast_to(index, (*by_distance.shape[:3], distance.shape[-1]))
    inside = (distance >= 0) & (distance < extent)
    return jnp.where(inside[:, :, None, :], jnp.take_along_axis(by_distance, index, axis=-1), 0)


def attend_reference(query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, mask: jax.Array) -> jax.Array:
    """Softmax attention over all pairs.

    Args:
      query: (B, T, H, D).
      key: (B, S, K, D) with H a multiple of K.
      value: (B, S, K, D).
      bias: (B, T, H, S), added to the scores.
      mask: (B, T, S) bool, True where a query may look.

    Returns:
      (B, T, H, D).
    """
    batch, time, heads, width = query.shape
    kv_heads = key.shape[2]
    grouped = query.reshape(batch, time, kv_heads, heads // kv_heads, width)
    scores = jnp.einsum("btkgd,bskd->btkgs", grouped, key) / width
    scores = scores.astype(jnp.float32) + bias.reshape(scores.shape).astype(jnp.float32)
    scores = jnp.where(mask[:, :, None, None, :], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("btkgs,bskd->btkgd", weights, value).reshape(query.shape)


def attend_packed_reference(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    window: int,
) -> jax.Array:
    """`attend_packed`, the slow way: every pair of positions, bias gathered."""
    time, keys = query.shape[1], key.shape[1]
    distance = keys - time + jnp.arange(time)[:, None] - jnp.arange(keys)[None, :]
    mask = (distance >= 0) & (distance < window) & (segment[:, keys - time :, None] == segment[:, None, :])
    distance = jnp.broadcast_to(distance, mask.shape)
    return attend_reference(query, key, value, relative_bias(relative, table, distance), mask)


def attend_packed_split(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    window: int,
    placement: Placement,
) -> jax.Array:
    """`attend_packed` on every device for its own heads and rows, or the stripes of which these are made.

    On TPUs it is a kernel without matrices of scores. A stripe gets the keys before it that its queries see.
    """
    length, stripes = query.shape[1], placement.stripes
    attend = attend_packed
    if placement.tpu:
        block = BLOCK_GLOBAL if window >= length * stripes else BLOCK_SLIDING
        attend = functools.partial(packed_attention, interpret=False, block=block)
    before = min(window - 1, length * (stripes - 1))

    def of_stripe(*operands: jax.Array) -> jax.Array:
        query, key, value, relative, table, segment = operands
        if before:
            extend = lambda x: jnp.concatenate([preceding(x, before, stripes), x], axis=1)  # noqa: E731
            key, value, segment = extend(key), extend(value), extend(segment + 1) - 1  # −1 before the row
        return attend(query, key, value, relative, table, segment, window)

    states, table_spec, row = _specs(placement.batch_axes)
    specs = dict(in_specs=(states, states, states, states, table_spec, row), out_specs=states)
    # The compiler cannot split a kernel.
    split = jax.shard_map(of_stripe, mesh=placement.mesh, check_vma=False, **specs)
    return split(query, key, value, relative, table, segment)


def _specs(rows: tuple[str, ...] | None) -> tuple[PartitionSpec, PartitionSpec, PartitionSpec]:
    """How states by head (B, T, H, N), the table and (B, T) are split: rows over these axes, heads over `tensor`."""
    return PartitionSpec(rows, None, HEADS, None), PartitionSpec(None, None), PartitionSpec(rows, None)


def ring_positions(newest: jax.Array, slots: int) -> jax.Array:
    """Position held by every slot of a ring whose newest position is `newest` (B,); negative where never written.

    Returns:
      (B, slots) int32.
    """
    newest = newest[:, None]
    return newest - jnp.mod(newest - jnp.arange(slots)[None], slots)


def attend_appended(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    position: jax.Array,
    window: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Puts elements into a ring and attends to it; the slow reference.

    Args:
      query: (B, T, H, D).
      key: (B, T, K, D).
      value: like key.
      key_cache: (B, K, slots, D), slot = position mod slots.
      value_cache: like key_cache.
      relative: (B, T, H, d_rel).
      table: (d_rel, extent).
      position: (B, T) int32, consecutive.
      window: elements a query sees, itself included.

    Returns:
      (B, T, H, D), and both caches with the new elements.
    """
    key_cache, value_cache = put_in_ring(key_cache, key, position), put_in_ring(value_cache, value, position)
    held = ring_positions(position[:, -1], key_cache.shape[2])
    distance = position[:, :, None] - held[:, None, :]
    mask = (distance >= 0) & (distance < window) & (held >= 0)[:, None, :]
    keys, values = (jnp.swapaxes(cache.astype(query.dtype), 1, 2) for cache in (key_cache, value_cache))
    out = attend_reference(query, keys, values, relative_bias(relative, table, distance), mask)
    return out, key_cache, value_cache


def attend_appended_tpu(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    key_cache: jax.Array,
    value_cache: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    position: jax.Array,
    window: int,
    placement: Placement,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`attend_appended` on TPUs: a kernel that reads what is written and in reach, and writes what is new in place.

    Every device does its part. `interpret` runs it in Python, for tests on other devices.
    """
    kernel = functools.partial(append_attention, window=window, interpret=interpret, block=BLOCK_APPEND)
    rows = session_axes(placement.mesh, len(query))
    states, table_spec, row = _specs(rows)
    cache = PartitionSpec(rows, HEADS, None, None)
    given = (states, states, states, cache, cache, states, table_spec, row)
    split = jax.shard_map(
        kernel, mesh=placement.mesh, in_specs=given, out_specs=(states, cache, cache), check_vma=False
    )
    return split(query, key, value, key_cache, value_cache, relative, table, position)


class Attention(nn.Module):
    """One attention layer.

    Attributes:
      config: the model.
      is_global: whether the layer sees everything (up to the cache) or `config.window` elements.
      placement: devices; None on one device.
    """

    config: ModelConfig
    is_global: bool
    placement: Placement | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, where: Packed | Append, cache: AttentionCache | None = None, context: int = 0
    ) -> tuple[jax.Array, AttentionCache | None]:
        """Attends over packed rows (`where` Packed, no cache) or over a cache that x is appended to.

        Args:
          x: (B, T, D).
          where: positions of x.
          cache: streaming state.
          context: elements that a global layer sees when streaming.

        Returns:
          (B, T, D), and the new cache (None when packed).
        """
        cfg = self.config
        batch, time, model = x.shape
        heads, kv_heads, width = cfg.heads(self.is_global)
        extent = cfg.rel_extent if self.is_global else cfg.window

        def project(name: str, count: int, size: int) -> jax.Array:
            kernel = self.param(name, fan_in_init(0), (model, count, size), jnp.float32)
            # One axis to sum over, also in the weights' gradients: no copies turned round on CPU.
            out = x.reshape(-1, model) @ kernel.reshape(model, -1).astype(x.dtype)
            # Not keys and values, which are small: of them, convolved, in a loop's stack, libtpu 0.0.52 makes a fusion
            # that it cannot emit.
            out = out if name in ("key", "value") else keep(out)
            return out.reshape(batch, time, count, size)

        query, relative = project("query", heads, width), project("relative", heads, cfg.d_rel)
        key, value = project("key", kv_heads, width), project("value", kv_heads, width)
        segment = where.segment if isinstance(where, Packed) else None
        valid = None if isinstance(where, Packed) else where.valid

        def convolve(name: str, y: jax.Array, state: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
            flat = y.reshape(batch, time, -1)
            flat, state = ShortConv(cfg.conv_kernel, self.placement, name=name)(flat, segment, state, valid)
            return flat.reshape(y.shape), state

        key, key_conv = convolve("key_conv", key, None if cache is None else cache.key_conv)
        value, value_conv = convolve("value_conv", value, None if cache is None else cache.value_conv)
        # Scores are scaled by 1 / head_dim; this start makes them the usual 1 / sqrt(head_dim).
        query = RMSNorm(cfg.norm_eps, width**0.25, name="query_norm")(query)
        key = RMSNorm(cfg.norm_eps, width**0.25, name="key_norm")(key)

        if isinstance(where, Packed):
            position = where.position
        else:
            position = where.length[:, None] + jnp.arange(time)[None]
        table = self.param("relative_table", nn.initializers.normal(0.02), (cfg.d_rel, extent), jnp.float32)
        table = table.astype(x.dtype)
        if self.is_global and cfg.log_scaling_floor is not None:
            # By how many elements are seen: a cache that forgets shows no more after hours than when it was full.
            seen = position + 1 if isinstance(where, Packed) else jnp.minimum(position + 1, context)
            sharpen = jnp.log(jnp.maximum(seen.astype(jnp.float32) / cfg.log_scaling_floor, 1.0))
            sharpen = (1.0 + cfg.log_scaling_alpha * sharpen)[..., None, None]
            query = (query.astype(jnp.float32) * sharpen).astype(query.dtype)
            relative = (relative.astype(jnp.float32) * sharpen).astype(relative.dtype)

        if isinstance(where, Packed):
            stripes = 1 if self.placement is None else self.placement.stripes
            window = time * stripes if self.is_global else cfg.window
            split = stripes > 1 or (self.placement is not None and self.placement.tpu)
            attend = functools.partial(attend_packed_split, placement=self.placement) if split else attend_packed
            out = attend(query, key, value, relative, table, where.segment, window)
            new_cache = None
        else:
            window = context if self.is_global else cfg.window
            out, new_cache = self._append(query, key, value, relative, table, position, window, cache)
            new_cache = new_cache.replace(key_conv=key_conv, value_conv=value_conv)
        kernel = self.param("out", fan_in_init(0, 1), (heads, width, model), jnp.float32)
        out = keep(out.reshape(batch * time, -1) @ kernel.reshape(-1, model).astype(x.dtype))
        return out.reshape(x.shape), new_cache

    def _append(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        relative: jax.Array,
        table: jax.Array,
        position: jax.Array,
        window: int,
        cache: AttentionCache,
    ) -> tuple[jax.Array, AttentionCache]:
        slots, time = cache.key.shape[2], query.shape[1]
        if slots < window + time - 1:
            raise ValueError(
                f"cache of {slots} slots cannot take {time} elements beside a window of {window}: "
                f"make it at least {window + time - 1}"
            )
        attend = attend_ring if self.placement is None else attend_appended
        if self.placement is not None and self.placement.tpu:
            attend = functools.partial(attend_appended_tpu, placement=self.placement)
        out, *held = attend(query, key, value, cache.key, cache.value, relative, table, position, window)
        return out, cache.replace(key=held[0], value=held[1])


def ring_slots(config: ModelConfig, is_global: bool, context: int, block: int, dtype: jnp.dtype) -> int:
    """Slots of a layer's ring: `block − 1` to spare, so that padding never overwrites what is still seen.

    Args as `init_attention_cache`.
    """
    slots, tile = (context if is_global else config.window) + block - 1, tile_slots(dtype)
    return math.ceil(slots / tile) * tile


def init_attention_cache(
    config: ModelConfig, is_global: bool, batch: int, context: int, block: int, dtype: jnp.dtype
) -> AttentionCache:
    """An empty cache.

    Args:
      config: the model.
      is_global: kind of the layer.
      batch: sessions B.
      context: elements that global layers see.
      block: most elements appended at once.
      dtype: of keys and values.

    Returns:
      The cache.
    """
    slots = ring_slots(config, is_global, context, block, dtype)
    _, kv_heads, width = config.heads(is_global)
    shape = (batch, kv_heads, slots, width)
    conv = (batch, config.conv_kernel - 1, kv_heads * width)
    zeros = jnp.zeros
    return AttentionCache(zeros(shape, dtype), zeros(shape, dtype), zeros(conv, jnp.float32), zeros(conv, jnp.float32))
