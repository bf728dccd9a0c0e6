"""The training kernel against the reference, in interpret mode: forward and the gradient of every input."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.kernels.packed_attention import packed_attention
from tml_jax.kernels.packed_attention_kernels import Tiling
from tml_jax.model.attention import attend_packed_reference

NAMES = ("query", "key", "value", "relative", "table")
# Hundreds of rotations in a row, where a TPU has one instruction: what takes time is to optimise them.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def random_rows(
    time: int, extent: int, segments: int, heads: int = 4, kv_heads: int = 2, width: int = 8, queries: int | None = None
) -> tuple:
    """Operands for two rows that are cut in different places, the second with padding at its end; the last ones ask."""
    rng = np.random.default_rng(time + extent)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    cuts = np.sort(rng.choice(np.arange(1, time), (2, segments - 1)), axis=1)
    segment = np.asarray([3, 1, 4, 2])[np.sum(np.arange(time)[None, :, None] >= cuts[:, None, :], axis=-1)]
    segment[1, -time // 8 :] = 0
    queries = queries or time
    query, relative = normal(2, queries, heads, width), normal(2, queries, heads, 3)
    keys = [normal(2, time, kv_heads, width) for _ in range(2)]
    return (query, *keys, relative, normal(3, extent)), segment.astype(np.int32), normal(2, queries, heads, width)


def results(attend, operands, segment, weight, window) -> dict[str, np.ndarray]:
    def run(*operands):
        out, backward = jax.vjp(lambda *operands: attend(*operands, segment, window), *operands)
        return out, *backward(weight.astype(out.dtype))

    compiled = jax.jit(run).lower(*operands).compile(compiler_options=QUICK)
    return dict(zip(("out", *NAMES), compiled(*operands)))


@pytest.mark.parametrize(
    ("time", "window", "extent", "block", "segments", "heads"),
    [
        (64, 64, 20, 16, 3, (4, 2)),  # everything, as in global layers; offsets without a bias
        (48, 48, 100, 16, 2, (3, 1)),  # a bias further than the row; an odd group
        (61, 1000, 17, 12, 2, (2, 2)),  # no whole number of blocks, and blocks of several chunks; a head each
        (80, 20, 20, 16, 4, (4, 2)),  # window > block, an odd number of blocks
        (80, 40, 9, 16, 1, (4, 2)),  # … with a bias shorter than the window
        (40, 5, 5, 8, 2, (6, 2)),  # window < block
        (48, 17, 30, 16, 1, (2, 1)),  # one key of a third block
        (24, 1, 1, 8, 2, (2, 1)),  # a query sees itself
        (16, 16, 16, 512, 2, (2, 1)),  # one tile
    ],
)
def test_the_kernel_gives_what_the_reference_gives_forward_and_backward(time, window, extent, block, segments, heads):
    given = random_rows(time, extent, segments, *heads)
    kernel = functools.partial(packed_attention, interpret=True, block=block)
    found, expected = results(kernel, *given, window), results(attend_packed_reference, *given, window)
    for name, wanted in expected.items():
        assert found[name].dtype == wanted.dtype
        np.testing.assert_allclose(found[name], wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()), err_msg=name)


@pytest.mark.parametrize(
    ("time", "queries", "window", "extent", "block", "segments"),
    [
        (64, 16, 64, 20, 8, 3),  # everything before a stripe
        (75, 19, 100, 30, 16, 2),  # … of no whole number of blocks
        (64, 32, 20, 20, 16, 3),  # a window, fewer keys seen than there are
        (51, 32, 20, 20, 16, 2),  # … just as many as are seen
        (40, 24, 60, 9, 8, 2),  # … not as many as are seen
        (33, 16, 5, 5, 8, 2),  # window < block
        (40, 16, 1, 1, 8, 2),  # nothing before is seen
    ],
)
def test_the_last_elements_of_a_row_see_those_before_them(time, queries, window, extent, block, segments):
    given = random_rows(time, extent, segments, queries=queries)
    kernel = functools.partial(packed_attention, interpret=True, block=block)
    found, expected = results(kernel, *given, window), results(attend_packed_reference, *given, window)
    for name, wanted in expected.items():
        np.testing.assert_allclose(found[name], wanted, atol=1e-5 * max(1.0, np.abs(wanted).max()), err_msg=name)


def test_half_precision_stays_near_single_precision():
    operands, segment, weight = random_rows(64, 40, 2, width=32)
    half = tuple(jnp.asarray(x, jnp.bfloat16) for x in operands)
    exact = tuple(x.astype(jnp.float32) for x in half)
    kernel = functools.partial(packed_attention, interpret=True, block=16)
    found = results(kernel, half, segment, weight, 24)
    expected = results(attend_packed_reference, exact, segment, weight, 24)
    for name, wanted in expected.items():
        assert found[name].dtype == jnp.bfloat16
        error = np.abs(found[name].astype(np.float32) - wanted)
        # Each of a few roundings is 0.4% at most.
        assert np.mean(error) < 0.01 * np.mean(np.abs(wanted)) and np.max(error) < 0.02 * np.max(np.abs(wanted)), name


def test_the_work_of_a_window_grows_with_the_row_and_not_with_its_square():
    count = lambda time, window: len(Tiling(time, 512, window, 512, True).tiles()[0])  # noqa: E731
    assert [count(time, 512) for time in (4096, 8192, 65536)] == [15, 31, 255]  # two a block of queries but the first
    assert count(8192, 513) == 31 and count(8192, 514) == 16 + 15 + 14
    assert count(8192, 8192) == 16 * 17 // 2


def test_tiles_cover_every_pair_in_sight_once():
    for by_key in (False, True):
        tiles = list(zip(*Tiling(96, 8, 20, 4, True).tiles(by_key)))
        pairs = {(q // 8, k // 8) for q in range(96) for k in range(max(0, q - 19), q + 1)}
        assert len(tiles) == len(pairs) and set(tiles) == pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(key=np.zeros((2, 16, 3, 8), np.float32)), "need"),
        (dict(table=np.zeros((4, 7), np.float32)), "do not fit"),
        (dict(window=0), "window of 0"),
        (dict(interpret=False, block=64), "multiples of 128"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    operands, segment, _ = random_rows(16, 7, 1)
    given = dict(zip(NAMES, operands), segment=segment, window=5, interpret=True) | change
    with pytest.raises(ValueError, match=message):
        packed_attention(**given)
