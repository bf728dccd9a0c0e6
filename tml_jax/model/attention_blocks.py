"""Attention over packed rows in blocks of queries, in plain products: the form for CPUs, one or many.

On TPUs the kernels of `tml_jax.kernels.packed_attention` take its place; the slow reference is
`attention.attend_packed_reference`.
"""

import jax
import jax.numpy as jnp

BLOCK = 64  # queries of one block of a sliding layer
BLOCK_WHOLE, MOST_BLOCKS = 128, 8  # the same of a global layer, a multiple of it where there would be more blocks
MASKED = -1e30  # score of a pair that may not look


def attend_packed(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    relative: jax.Array,
    table: jax.Array,
    segment: jax.Array,
    window: int,
) -> jax.Array:
    """Causal attention within segments of packed rows, in blocks, so that a window costs what it sees.

    Args:
      query: (B, T, H, D), the last of the S elements.
      key: (B, S, K, D).
      value: (B, S, K, D).
      relative: (B, T, H, d_rel), relative states of the queries.
      table: (d_rel, extent), bias profiles by backward distance.
      segment: (B, S) int32.
      window: elements a query sees, itself included.

    Returns:
      (B, T, H, D).
    """
    batch, time = query.shape[:2]
    first = key.shape[1] - time  # place of the first query among the keys
    if window >= key.shape[1] or time % BLOCK:
        # A block sees no key behind its last query. The number of blocks is bounded: each is compiled by itself.
        size = BLOCK_WHOLE * -(-time // (BLOCK_WHOLE * MOST_BLOCKS))
        size = size if time % size == 0 else time
        parts = []
        for start in range(0, time, size):
            here, place, end = slice(start, start + size), first + start, first + start + size
            distance = place + jnp.arange(size)[:, None] - jnp.arange(end)[None, :]
            mask = (distance >= 0) & (distance < window) & (segment[:, place:end, None] == segment[:, None, :end])
            seen = slice(0, end)
            parts.append(_attend_block(query[:, here], key[:, seen], value[:, seen], relative[:, here], table, mask))
        return jnp.concatenate(parts, axis=1)

    back = -(-(window - 1) // BLOCK)
    blocks, seen = time // BLOCK, (back + 1) * BLOCK  # `seen` keys for each block of queries

    def keys_of_block(x: jax.Array, fill: int) -> jax.Array:
        x, padding = x[:, max(first - back * BLOCK, 0) :], [(0, 0)] * x.ndim
        padding[1] = (max(back * BLOCK - first, 0), 0)
        x = jnp.pad(x, padding, constant_values=fill).reshape(batch, blocks + back, BLOCK, *x.shape[2:])
        x = jnp.concatenate([x[:, i : i + blocks] for i in range(back + 1)], axis=2)
        return x.reshape(batch * blocks, seen, *x.shape[3:])

    of_block = lambda x: x.reshape(batch * blocks, BLOCK, *x.shape[2:])  # noqa: E731
    distance = back * BLOCK + jnp.arange(BLOCK)[:, None] - jnp.arange(seen)[None, :]
    mask = (distance >= 0) & (distance < window)
    mask = mask & (of_block(segment[:, first:])[..., :, None] == keys_of_block(segment, -1)[..., None, :])
    keys, values = keys_of_block(key, 0), keys_of_block(value, 0)
    return _attend_block(of_block(query), keys, values, of_block(relative), table, mask).reshape(query.shape)


def _attend_block(
    query: jax.Array, key: jax.Array, value: jax.Array, relative: jax.Array, table: jax.Array, mask: jax.Array
) -> jax.Array:
    """Attention of S queries over the T keys that end with the last query.

    Queries of the heads that share a key head are one axis of the products, so that these and their gradients sum over
    one axis each: XLA's CPU products take no other, and would turn the scores round first.

    Args:
      query: (N, S, H, D).
      key: (N, T, K, D).
      value: (N, T, K, D).
      relative: (N, S, H, d_rel).
      table: (d_rel, extent).
      mask: (N, S, T) bool, False wherever the distance is negative.

    Returns:
      (N, S, H, D).
    """
    count, size, heads, width = query.shape
    seen, kv_heads = key.shape[1:3]
    by_head = lambda x: x.reshape(count, size, kv_heads, heads // kv_heads, -1).transpose(0, 2, 3, 1, 4)  # noqa: E731
    together = lambda x: x.reshape(count, kv_heads, -1, x.shape[-1])  # noqa: E731  (N, K, groups · S, …)
    bias = _relative_bias(by_head(relative), table, seen)
    scores = jnp.einsum("nkqd,nskd->nkqs", together(by_head(query)), key) / width
    scores = scores.reshape(bias.shape).astype(jnp.float32) + bias.astype(jnp.float32)
    scores = jnp.where(mask[:, None, None], scores, MASKED)
    weights = together(jax.nn.softmax(scores, axis=-1).astype(value.dtype))
    out = jnp.einsum("nkqs,nskd->nkqd", weights, value)
    return out.reshape(*bias.shape[:-1], width).transpose(0, 3, 1, 2, 4).reshape(query.shape)


def _relative_bias(states: jax.Array, table: jax.Array, seen: int) -> jax.Array:
    """Bias of S queries at the end of `seen` keys: the product by distance, every row shifted by one more.

    That is the relative shift of Transformer-XL (arXiv 1901.02860): one matrix product, no gather.

    Args:
      states: (…, S, d_rel).
      table: (d_rel, extent).
      seen: keys.

    Returns:
      (…, S, seen). Pairs of negative distance, which the mask hides, hold other pairs' values.
    """
    *leading, size, rank = states.shape
    used = min(table.shape[1], seen)
    profile = jnp.pad(table[:, :used], ((0, 0), (0, seen - used)))[:, ::-1]
    by_distance = states.reshape(-1, rank) @ jnp.pad(profile, ((0, 0), (0, 1)))  # one column more, for the shift
    flat = by_distance.reshape(-1, size * (seen + 1))[:, size - 1 : size - 1 + size * seen]
    return flat.reshape(*leading, size, seen)
