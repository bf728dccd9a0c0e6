"""Attention: the blocked form against the definition, and the ring cache against the packed form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL, random_leaves

from tml_jax.model import attention
from tml_jax.model.attention import Append, Attention, Packed, init_attention_cache, ring_positions

HEADS, KV_HEADS, WIDTH, RANK = 4, 2, 8, 3


def random_row(seed: int, time: int, extent: int, segments: int, queries: int | None = None) -> tuple:
    """Operands of `attend_packed` for two rows, the second with padding at its end; the last elements ask."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    cuts = np.sort(rng.choice(np.arange(1, time), (2, segments - 1)), axis=1)
    segment = 1 + np.sum(np.arange(time)[None, :, None] >= cuts[:, None, :], axis=-1)
    segment[1, -time // 8 :] = 0
    keys = [normal(2, time, KV_HEADS, WIDTH) for _ in range(2)]
    queries = queries or time
    arrays = normal(2, queries, HEADS, WIDTH), *keys, normal(2, queries, HEADS, RANK), normal(RANK, extent)
    return arrays, segment.astype(np.int32)


def definition(query, key, value, relative, table, segment, window):
    """Attention as its formula says, one query, one head and one key at a time, in float64."""
    out = np.zeros(query.shape)
    rows, time, heads, width = query.shape
    before = key.shape[1] - time
    for row, asked, head in np.ndindex(rows, time, heads):
        kv_head, at = head * key.shape[2] // heads, before + asked
        seen = [k for k in range(max(0, at - window + 1), at + 1) if segment[row, k] == segment[row, at]]
        scores = []
        for k in seen:
            score = np.float64(query[row, asked, head] @ key[row, k, kv_head]) / width
            if at - k < table.shape[1]:
                score += np.float64(relative[row, asked, head] @ table[:, at - k])
            scores.append(score)
        weights = np.exp(np.asarray(scores) - max(scores))
        out[row, asked, head] = weights / weights.sum() @ value[row, seen, kv_head]
    return out


@pytest.mark.parametrize("queries", [13, 5])
def test_the_reference_is_the_definition(queries):
    arrays, segment = random_row(0, 13, 4, 2, queries)
    found = attention.attend_packed_reference(*arrays, segment, 6)
    np.testing.assert_allclose(found, definition(*arrays, segment, 6), atol=1e-5)


@pytest.mark.parametrize(
    ("time", "window", "extent", "segments", "queries"),
    [
        (128, 1, 1, 2, 128),  # a query sees itself
        (128, 37, 37, 3, 128),  # window < block
        (128, 64, 64, 1, 128),  # = block
        (128, 65, 65, 4, 128),  # one key of a third block
        (192, 127, 50, 2, 192),  # window > block, bias shorter than the window
        (192, 129, 200, 3, 192),  # … and longer
        (128, 128, 60, 2, 128),  # everything, as in global layers
        (128, 500, 500, 2, 128),  # more than there is
        (61, 16, 16, 3, 61),  # odd lengths
        (65, 65, 30, 1, 65),
        (129, 64, 64, 2, 129),
        (256, 256, 60, 3, 64),  # the last quarter, as in global layers
        (100, 100, 30, 2, 33),  # … of odd lengths
        (256, 60, 60, 3, 128),  # more before them than they see
        (187, 60, 60, 3, 128),  # … just what they see
        (160, 90, 90, 2, 128),  # … less
    ],
)
def test_blocks_give_what_the_reference_gives_forward_and_backward(time, window, extent, segments, queries):
    arrays, segment = random_row(time + window, time, extent, segments, queries)
    weight = np.random.default_rng(1).standard_normal(arrays[0].shape).astype(np.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def run(attend, *arrays):
        out, backward = jax.vjp(lambda *arrays: attend(*arrays, segment, window), *arrays)
        return out, backward(weight)

    out, gradients = run(attention.attend_packed, *arrays)
    expected, expected_gradients = run(attention.attend_packed_reference, *arrays)
    np.testing.assert_allclose(out, expected, atol=2e-5)
    for found, wanted in zip(gradients, expected_gradients):
        np.testing.assert_allclose(found, wanted, atol=2e-5 * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("slots", [1, 2, 7, 24, 40])
def test_every_slot_of_a_ring_knows_its_position(slots):
    newest, held = np.arange(100), np.full((100, slots), -1)
    for position in newest:
        held[position:, position % slots] = position
    found = np.asarray(jax.jit(ring_positions, static_argnums=1)(newest, slots))
    np.testing.assert_array_equal(np.where(found < 0, -1, found), held)


BLOCK, LENGTH, CONTEXT = 5, 72, 16


@pytest.fixture(scope="module")
def layers():
    """Both kinds of layer: is_global → (module, variables, compiled append)."""
    made = {}
    for is_global in (False, True):
        module = Attention(SMALL, is_global)
        where = Packed(jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), jnp.int32))
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 1, SMALL.d_model)), where)
        made[is_global] = module, random_leaves(shapes, 3), jax.jit(module.apply, static_argnums=4)
    return made


@pytest.mark.parametrize("is_global", [False, True])
def test_appending_to_a_ring_gives_what_the_packed_form_gives(layers, is_global, monkeypatch):
    """Rows appended at different paces, padded; the rings go round several times and forget what lies behind."""
    module, variables, append = layers[is_global]
    rng = np.random.default_rng(4)
    x = rng.standard_normal((3, LENGTH, SMALL.d_model)).astype(np.float32)
    cache = init_attention_cache(SMALL, is_global, 3, CONTEXT, BLOCK, jnp.float32)
    assert LENGTH > 2 * cache.key.shape[2]
    done = np.zeros(3, np.int32)
    streamed = np.zeros_like(x)
    while np.any(done < LENGTH):
        valid = np.minimum(rng.integers(0, BLOCK + 1, 3), LENGTH - done).astype(np.int32)
        block = 9 * rng.standard_normal((3, BLOCK, SMALL.d_model)).astype(np.float32)  # what padding holds is no matter
        for row in range(3):
            block[row, : valid[row]] = x[row, done[row] : done[row] + valid[row]]
        out, cache = append(variables, block, Append(done, valid), cache, CONTEXT)
        for row in range(3):
            streamed[row, done[row] : done[row] + valid[row]] = out[row, : valid[row]]
        done = done + valid

    packed = attention.attend_packed
    seen = lambda *arrays: packed(*arrays[:-1], min(arrays[-1], CONTEXT))  # noqa: E731  global layers forget too
    monkeypatch.setattr(attention, "attend_packed", seen)
    # No position is further on than what is seen, by which a global layer sharpens.
    position = np.broadcast_to(np.minimum(np.arange(LENGTH, dtype=np.int32), CONTEXT - 1), (3, LENGTH))
    expected, _ = jax.jit(module.apply)(variables, x, Packed(np.ones_like(position), position))
    np.testing.assert_allclose(streamed, expected, atol=2e-5)


def test_hours_into_a_session_a_layer_is_as_sharp_as_when_its_cache_was_full(layers):
    module = Attention(dataclasses.replace(SMALL, log_scaling_alpha=0.7, log_scaling_floor=4), True)
    _, variables, _ = layers[True]
    append = jax.jit(module.apply, static_argnums=4)
    x = np.random.default_rng(6).standard_normal((1, BLOCK, SMALL.d_model)).astype(np.float32)
    cache = init_attention_cache(SMALL, True, 1, CONTEXT, BLOCK, jnp.float32)
    slots, block = cache.key.shape[2], np.full(1, BLOCK, np.int32)
    for done in range(0, 2 * CONTEXT, BLOCK):
        _, cache = append(variables, x, Append(np.full(1, done, np.int32), block), cache, CONTEXT)
    done += BLOCK
    full, _ = append(variables, x, Append(np.full(1, done, np.int32), block), cache, CONTEXT)
    late = done + 10_000 * slots  # the same slots come round
    hours_later, _ = append(variables, x, Append(np.full(1, late, np.int32), block), cache, CONTEXT)
    np.testing.assert_array_equal(hours_later, full)


def test_a_ring_too_small_for_the_block_is_refused(layers):
    module, variables, _ = layers[False]
    cache = init_attention_cache(SMALL, False, 1, CONTEXT, BLOCK, jnp.float32)
    room = cache.key.shape[2] - SMALL.window + 1
    one = jnp.zeros((1,), jnp.int32)
    shape = lambda time: jax.ShapeDtypeStruct((1, time, SMALL.d_model), jnp.float32)  # noqa: E731
    run = lambda x: module.apply(variables, x, Append(one, one), cache)  # noqa: E731
    jax.eval_shape(run, shape(room))
    with pytest.raises(ValueError, match=f"cannot take {room + 1} elements.*at least {SMALL.window + room}"):
        jax.eval_shape(run, shape(room + 1))


def test_global_layers_sharpen_with_the_logarithm_of_the_position(layers):
    """Past the floor, query and bias grow by 1 + α ln((position + 1) / floor); before it nothing changes."""
    _, variables, _ = layers[True]
    x = jnp.asarray(np.random.default_rng(5).standard_normal((1, 9, SMALL.d_model)), jnp.float32)
    one = jnp.ones((1, 9), jnp.int32)
    config = dataclasses.replace(SMALL, log_scaling_alpha=0.7, log_scaling_floor=20)
    plain = Attention(dataclasses.replace(config, log_scaling_floor=None), True)

    @functools.partial(jax.jit, static_argnums=0)
    def run(module, variables, position):
        return module.apply(variables, x, Packed(one, one * position))[0]

    early, late = (run(Attention(config, True), variables, position) for position in (19, 99))
    np.testing.assert_allclose(early, run(plain, variables, 19), atol=1e-6)
    factor = 1 + 0.7 * np.log(100 / 20)
    params = dict(variables["params"])
    params["query_norm"] = {"scale": factor * params["query_norm"]["scale"]}
    params["relative"] = factor * params["relative"]
    np.testing.assert_allclose(late, run(plain, {"params": params}, 99), atol=1e-5)
    assert np.abs(late - early).max() > 0.01
    sliding = Attention(config, False)
    params = variables["params"] | {"relative_table": variables["params"]["relative_table"][:, : SMALL.window]}
    np.testing.assert_array_equal(run(sliding, {"params": params}, 0), run(sliding, {"params": params}, 99))
