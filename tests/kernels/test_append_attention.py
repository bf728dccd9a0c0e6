"""The streaming kernel against plain attention over the whole history, in interpret mode: rings, seams and windows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.kernels.append_attention import _blocks_seen, append_attention
from tml_jax.model.attention import attend_reference, relative_bias, ring_positions

LONGEST = 100


def sessions(lengths, slots, time, extent, heads, kv_heads, width=8, dtype=jnp.float32):
    """Histories of sessions, and the rings that hold the last `slots` elements of each, the new ones included."""
    rng = np.random.default_rng(slots + time)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    batch = len(lengths)
    history = [normal(batch, LONGEST, kv_heads, width) for _ in range(2)]
    query, relative, table = normal(batch, time, heads, width), normal(batch, time, heads, 3), normal(3, extent)
    position = np.asarray(lengths)[:, None] + np.arange(time, dtype=np.int32)
    rings = []
    for held in history:
        ring = np.full((batch, slots, kv_heads, width), 50, held.dtype)  # slots that were never written
        for row, newest in enumerate(position[:, -1]):
            for at in range(newest + 1):
                ring[row, at % slots] = held[row, at]
        rings.append(jnp.asarray(ring))
    return history, rings, query, relative, table, position


def over_history(history, query, relative, table, position, window):
    distance = position[:, :, None] - np.arange(LONGEST)[None, None]
    mask = (distance >= 0) & (distance < window)
    return attend_reference(query, *history, relative_bias(relative, table, jnp.asarray(distance)), mask)


kernel = jax.jit(functools.partial(append_attention, interpret=True), static_argnames=("window", "block"))


@pytest.mark.parametrize(
    ("slots", "time", "window", "extent", "block", "heads"),
    [
        (48, 5, 44, 20, 16, (4, 2)),  # everything that the ring holds, as in global layers
        (64, 3, 40, 7, 8, (3, 1)),  # blocks without a bias; an odd group
        (24, 9, 16, 16, 8, (4, 2)),  # a sliding layer: its ring just holds the window
        (24, 1, 16, 16, 24, (2, 2)),  # one element, one block: the seam is in it and both its sides have a bias
        (40, 4, 9, 9, 16, (2, 1)),  # blocks out of reach; a last block beyond the cache
        (40, 2, 39, 60, 16, (6, 2)),  # a bias further than the ring
        (16, 16, 1, 1, 8, (2, 1)),  # a query sees itself
    ],
)
def test_the_kernel_gives_what_the_whole_history_gives(slots, time, window, extent, block, heads):
    # Of very different age side by side: new, before, at and after the first turn of the ring, and later.
    lengths = [0, 6, slots - time, slots - 1, slots + 5, 83]
    history, rings, query, relative, table, position = sessions(lengths, slots, time, extent, *heads)
    found = kernel(query, *rings, relative, table, position, window=window, block=block)
    expected = over_history(history, query, relative, table, position, window)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_kernel_gives_what_the_model_gives_at_every_length_of_a_session():
    slots, time, window = 24, 2, 16
    lengths = np.arange(2 * slots + 3)
    history, rings, query, relative, table, position = sessions(lengths, slots, time, 12, 2, 1)
    distance = position[:, :, None] - ring_positions(position[:, -1], slots)[:, None]
    mask = (distance >= 0) & (distance < window) & (distance <= position[:, :, None])
    expected = attend_reference(query, *rings, relative_bias(relative, table, distance), mask)
    found = kernel(query, *rings, relative, table, position, window=window, block=8)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_padding_on_the_right_changes_nothing_before_it():
    slots, time, window, valid = 40, 8, 33, 3
    history, rings, query, relative, table, position = sessions([0, 20, 61], slots, time, 20, 4, 2)
    rows = np.arange(3)[:, None]
    other = [x.at[rows, position[:, valid:] % slots].set(100.0) for x in rings]
    found = kernel(query.at[:, valid:].set(100.0), *other, relative, table, position, window=window, block=16)
    expected = over_history(history, query, relative, table, position, window)
    np.testing.assert_allclose(found[:, :valid], expected[:, :valid], atol=1e-5)


def test_half_precision_stays_near_single_precision():
    history, rings, query, relative, table, position = sessions([10, 70], 48, 4, 20, 4, 2, 32, jnp.bfloat16)
    found = kernel(query, *rings, relative, table, position, window=40, block=16)
    assert found.dtype == jnp.bfloat16
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (history, query, relative, table))
    expected = over_history(*single, position, 40)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.02 * np.abs(expected).max())


def test_a_cache_of_another_dtype_is_read_as_the_query_is():
    _, rings, query, relative, table, position = sessions([30], 24, 2, 10, 2, 1)
    half = [x.astype(jnp.bfloat16) for x in rings]
    found = kernel(query, *half, relative, table, position, window=16, block=8)
    expected = kernel(query, *(x.astype(jnp.float32) for x in half), relative, table, position, window=16, block=8)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("slots", "block"), [(40, 8), (44, 16), (16, 16)])
@pytest.mark.parametrize("reach", [1, 9, 1000])
def test_only_blocks_that_are_written_and_within_reach_are_read(slots, block, reach):
    newest = np.arange(3 * slots, dtype=np.int32)
    found = np.asarray(_blocks_seen(newest, slots, block, reach))
    for at, count in zip(newest, found):
        held = range(max(0, at - min(reach, slots) + 1), at + 1)
        assert count == len({position % slots // block for position in held})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(window=24), "hold 1 to 23"),
        (dict(window=0), "window of 0"),
        (dict(value_cache=np.zeros((1, 8, 1, 8), np.float32)), "need"),
        (dict(table=np.zeros((4, 7), np.float32)), "do not fit"),
        (dict(interpret=False, block=64), "multiples of 128"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    _, (key, value), query, relative, table, position = sessions([3], 24, 2, 7, 2, 1)
    given = dict(
        query=query, key_cache=key, value_cache=value, relative=relative, table=table, position=position, window=5,
        interpret=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        append_attention(**given | change)
