"""The streaming kernel against plain attention over the whole history, in interpret mode: rings, seams and windows.

What it writes into the rings is compared to the bit.
"""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from tml_jax.config import MeshConfig
from tml_jax.kernels.append_attention import _blocks_seen, append_attention
from tml_jax.model.attention import attend_appended, attend_appended_tpu, attend_reference, relative_bias
from tml_jax.model.attention_ring import attend_ring
from tml_jax.parallel.mesh import make_mesh
from tml_jax.parallel.placement import Placement

LONGEST = 100


def sessions(lengths, slots, time, extent, heads, kv_heads, width=8, dtype=jnp.float32):
    """Histories of sessions that end with what is new, and the rings of each as they were and as they shall be."""
    rng = np.random.default_rng(slots + time)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    batch = len(lengths)
    history = [normal(batch, LONGEST, kv_heads, width) for _ in range(2)]
    query, relative, table = normal(batch, time, heads, width), normal(batch, time, heads, 3), normal(3, extent)
    position = np.asarray(lengths)[:, None] + np.arange(time, dtype=np.int32)
    new = [jnp.take_along_axis(held, position[:, :, None, None], axis=1) for held in history]
    before, after = [], []
    for held in history:
        ring = np.full((batch, kv_heads, slots, width), 50, held.dtype)  # slots that were never written
        for rings, ends in ((before, position[:, 0]), (after, position[:, -1] + 1)):
            for row, end in enumerate(ends):
                for at in range(end):
                    ring[row, :, at % slots] = held[row, at]
            rings.append(jnp.asarray(ring))
    return history, new, before, after, query, relative, table, position


def over_history(history, query, relative, table, position, window):
    distance = position[:, :, None] - np.arange(LONGEST)[None, None]
    mask = (distance >= 0) & (distance < window)
    return attend_reference(query, *history, relative_bias(relative, table, jnp.asarray(distance)), mask)


kernel = jax.jit(functools.partial(append_attention, interpret=True), static_argnames=("window", "block"))


@functools.partial(jax.jit, static_argnames=("window", "block"))
def ring(*operands: jax.Array, window: int, block: int) -> tuple[jax.Array, ...]:
    """What one CPU does instead of the kernel."""
    del block
    return attend_ring(*operands, window)


WAYS = pytest.mark.parametrize("way", [kernel, ring], ids=["kernel", "ring"])


@WAYS
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
def test_the_kernel_gives_what_the_whole_history_gives(way, slots, time, window, extent, block, heads):
    # Of very different age side by side: new, before, at and after the first turn of the ring, and later.
    lengths = [0, 6, slots - time, slots - 1, slots + 5, 83]
    history, new, before, after, query, relative, table, position = sessions(lengths, slots, time, extent, *heads)
    found, *caches = way(query, *new, *before, relative, table, position, window=window, block=block)
    expected = over_history(history, query, relative, table, position, window)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for cache, held in zip(caches, after):
        np.testing.assert_array_equal(cache, held)


@WAYS
@pytest.mark.parametrize(("time", "slots", "block"), [(1, 24, 8), (2, 24, 8), (8, 24, 24), (17, 40, 16), (13, 16, 8)])
def test_the_kernel_gives_what_the_model_gives_at_every_length_of_a_session(way, time, slots, block):
    window = min(16, slots - time + 1)
    lengths = np.arange(2 * slots + 3)
    _, new, before, _, query, relative, table, position = sessions(lengths, slots, time, 12, 4, 2)
    found = way(query, *new, *before, relative, table, position, window=window, block=block)
    expected = attend_appended(query, *new, *before, relative, table, position, window)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    for cache, held in zip(found[1:], expected[1:]):
        np.testing.assert_array_equal(cache, held)


def test_padding_on_the_right_changes_nothing_before_it():
    slots, time, window, valid = 40, 8, 33, 3
    history, new, before, _, query, relative, table, position = sessions([0, 20, 61], slots, time, 20, 4, 2)
    other = [x.at[:, valid:].set(100.0) for x in (query, *new)]
    found, *_ = kernel(*other, *before, relative, table, position, window=window, block=16)
    expected = over_history(history, query, relative, table, position, window)
    np.testing.assert_allclose(found[:, :valid], expected[:, :valid], atol=1e-5)


def test_half_precision_stays_near_single_precision():
    history, new, before, after, query, relative, table, position = sessions(
        [10, 70], 48, 4, 20, 4, 2, 32, jnp.bfloat16
    )
    found, *caches = kernel(query, *new, *before, relative, table, position, window=40, block=16)
    assert found.dtype == jnp.bfloat16
    single = jax.tree.map(lambda x: x.astype(jnp.float32), (history, query, relative, table))
    expected = over_history(*single, position, 40)
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=0.02 * np.abs(expected).max())
    for cache, held in zip(caches, after):
        np.testing.assert_array_equal(cache, held)


def test_a_cache_of_another_dtype_is_written_in_its_own_and_read_as_the_query_is():
    _, new, before, _, query, relative, table, position = sessions([30], 32, 2, 10, 2, 1)
    half = [x.astype(jnp.bfloat16) for x in (*new, *before)]
    single = [x.astype(jnp.float32) for x in half]
    found, *caches = kernel(query, *new, *half[2:], relative, table, position, window=16, block=16)
    expected, *rings = kernel(query, *single, relative, table, position, window=16, block=16)
    np.testing.assert_array_equal(found, expected)
    for cache, ring in zip(caches, rings):
        assert cache.dtype == jnp.bfloat16
        np.testing.assert_array_equal(cache.astype(jnp.float32), ring)


def test_what_is_in_flight_between_memories_meets_nothing_else():
    """With the memories of a TPU simulated: what is fetched ahead, and what is written meanwhile, race nowhere."""
    _, new, before, _, query, relative, table, position = sessions([3, 21, 46], 24, 6, 12, 4, 2)
    simulated = pltpu.InterpretParams(dma_execution_mode="on_wait", uninitialized_memory="nan")
    operands = query, *new, *before, relative, table, position
    found = append_attention(*operands, window=16, block=8, interpret=simulated)
    expected = attend_appended(*operands, 16)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one, other, atol=1e-5)


def on_eight_devices() -> None:
    """Two rows of devices, four to a session's heads; then sessions that two rows cannot share."""
    mesh = make_mesh(MeshConfig(data=2, tensor=4))
    attend = functools.partial(attend_appended_tpu, placement=Placement(mesh, "whole"), interpret=True)
    for lengths, shard in (([0, 23, 40, 51], 2), ([90, 7, 44], 3)):
        _, new, before, _, query, relative, table, position = sessions(lengths, 56, 5, 20, 8, 4)
        operands = query, *new, *before, relative, table, position
        expected = attend_appended(*operands, 50)
        found = jax.jit(attend, static_argnums=8, donate_argnums=(3, 4))(*operands, 50)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert found[1].sharding.shard_shape(found[1].shape) == (shard, 1, 56, 8)


@pytest.mark.slow
def test_devices_give_together_what_one_gives():
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, sys.path), os.environ.get("PYTHONPATH", "")])
    code = "from test_append_attention import on_eight_devices as run; run()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


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
        (dict(value_cache=np.zeros((1, 1, 8, 8), np.float32)), "need"),
        (dict(value=np.zeros((1, 2, 2, 8), np.float32)), "do not fit"),
        (dict(table=np.zeros((4, 7), np.float32)), "do not fit"),
        (dict(interpret=False, block=64), "multiples of 128"),
        (dict(block=20), "multiples of 8"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    _, (key, value), (key_cache, value_cache), _, query, relative, table, position = sessions([3], 24, 2, 7, 2, 1)
    given = dict(
        query=query, key=key, value=value, key_cache=key_cache, value_cache=value_cache, relative=relative, table=table,
        position=position, window=5, interpret=True,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        append_attention(**given | change)
