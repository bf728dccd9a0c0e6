"""Attention of appended elements to a ring cache, as it is quick on one CPU; the reference is `attend_appended`.

The cache is read as it lies, every head of every session a product of its own. The bias is not gathered pair by pair:
around the ring the distance falls by one from slot to slot, so that the bias of all slots is that of all distances,
turned round and cut where the query stands.
"""

import jax
import jax.numpy as jnp

from tml_jax.model.attention_blocks import MASKED


def attend_ring(
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
    """The same numbers as `attend_appended`, whose arguments it takes; `window` is at most slots − T + 1."""
    batch, time, heads, width = query.shape
    kv_heads, slots = key_cache.shape[1:3]
    key_cache, value_cache = put_in_ring(key_cache, key, position), put_in_ring(value_cache, value, position)

    def by_head(x: jax.Array) -> jax.Array:
        """(B, T, H, N) → (B · K, T · heads of a kv head, N)."""
        x = x.reshape(batch, time, kv_heads, heads // kv_heads, -1)
        return jnp.swapaxes(x, 1, 2).reshape(batch * kv_heads, time * (heads // kv_heads), -1)

    keys, values = (cache.astype(query.dtype).reshape(-1, slots, width) for cache in (key_cache, value_cache))
    scores = jnp.einsum("iqd,isd->iqs", by_head(query), keys) / width
    scores = scores.astype(jnp.float32) + by_head(ring_bias(relative, table, position, slots, window))
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype)
    out = jnp.einsum("iqs,isd->iqd", weights, values)
    out = jnp.swapaxes(out.reshape(batch, kv_heads, time, -1, width), 1, 2)
    return out.reshape(query.shape), key_cache, value_cache


def put_in_ring(cache: jax.Array, new: jax.Array, position: jax.Array) -> jax.Array:
    """Elements (B, T, K, D) at `position` (B, T) put into a cache (B, K, slots, D), each at its position mod slots."""
    row = jnp.arange(len(cache))[:, None]
    return cache.at[row, :, position % cache.shape[2]].set(new.astype(cache.dtype))


def ring_bias(relative: jax.Array, table: jax.Array, position: jax.Array, slots: int, window: int) -> jax.Array:
    """Bias of every query for every slot, hidden where it does not see what the slot holds.

    Args:
      relative: (B, T, H, d_rel).
      table: (d_rel, extent).
      position: (B, T) int32.
      slots: of the ring.
      window: elements a query sees.

    Returns:
      (B, T, H, slots) float32.
    """
    table = table[:, : min(table.shape[1], slots)]
    bias = jnp.einsum("bthr,re->bthe", relative, table).astype(jnp.float32)
    bias = jnp.pad(bias, ((0, 0), (0, 0), (0, 0), (0, slots - table.shape[1])))
    seen = jnp.arange(slots) <= jnp.minimum(position, window - 1)[..., None]  # of all distances
    bias = jnp.where(seen[:, :, None], bias, MASKED)[..., ::-1]
    # Slot s holds distance (position − s) mod slots, which reversed is place (s − position − 1) mod slots.
    twice, start = jnp.concatenate([bias, bias], axis=-1), (-1 - position) % slots
    cut = lambda of_query, start: jax.lax.dynamic_slice_in_dim(of_query, start, slots, axis=1)  # noqa: E731
    return jax.vmap(jax.vmap(cut))(twice, start)
