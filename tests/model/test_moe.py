"""Experts: four ways to the same numbers, whatever the routing; and the bias that evens the load."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL, random_leaves

from tml_jax.model import experts as experts_module
from tml_jax.model.experts import (
    BLOCK,
    Experts,
    Routing,
    experts_dense,
    experts_gathered,
    experts_grouped,
    experts_reference,
)
from tml_jax.model.moe import MoE, route, update_balance

TOKENS, WIDTH, HIDDEN, EXPERTS, TOP = 3 * BLOCK + 8, 16, 12, 5, 2


def routing_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """(TOKENS, TOP) experts, two different ones for each token."""
    if kind == "balanced":
        return np.stack([np.arange(TOKENS) % EXPERTS, (np.arange(TOKENS) + 1) % EXPERTS], axis=1)
    if kind == "skewed":  # three of the experts get nothing
        return np.tile([[3, 1]], (TOKENS, 1))
    if kind == "one over a block":  # every group one row longer than whole blocks, so most blocks are nearly empty
        first = np.r_[np.zeros(BLOCK + 1), np.ones(BLOCK + 1), np.full(BLOCK + 1, 2)]
        first = np.r_[first, np.full(TOKENS - first.size, 3)].astype(int)
        return np.stack([first, np.full(TOKENS, 4)], axis=1)
    if kind == "whole blocks":  # no row to spare in the groups of two experts
        first = np.repeat([0, 1], [2 * BLOCK, TOKENS - 2 * BLOCK])
        return np.stack([first, np.where(np.arange(TOKENS) < BLOCK, 2, 3)], axis=1)
    return np.stack([rng.permutation(EXPERTS)[:TOP] for _ in range(TOKENS)])


@functools.partial(jax.jit, static_argnums=0)
def run(experts_of, x, expert, weight, experts, cotangent):
    """Output, and gradients by tokens, routing weights and expert weights."""

    def forward(x, weight, experts):
        return experts_of(x, Routing(expert, weight, weight), experts)

    out, backward = jax.vjp(forward, x, weight, experts)
    return out, backward(cotangent)


@pytest.mark.parametrize("kind", ["balanced", "skewed", "one over a block", "whole blocks", "random"])
@pytest.mark.parametrize("experts_of", [experts_grouped, experts_gathered, experts_dense])
def test_every_way_gives_what_the_reference_gives_forward_and_backward(experts_of, kind):
    rng = np.random.default_rng(7)
    normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    x, weight, cotangent = normal(TOKENS, WIDTH), normal(TOKENS, TOP), normal(TOKENS, WIDTH)
    experts = Experts(normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, HIDDEN, WIDTH))
    expert = routing_of(kind, rng).astype(np.int32)
    found = run(experts_of, x, expert, weight, experts, cotangent)
    expected = run(experts_reference, x, expert, weight, experts, cotangent)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_allclose(one, other, atol=2e-5 * np.abs(other).max())


def test_the_reference_is_the_definition_and_drops_no_token():
    rng = np.random.default_rng(8)
    shapes = (7, 3), (2, 3, 4), (2, 3, 4), (2, 4, 3), (7, 1)
    x, gate, up, down, weight = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    out = experts_reference(x, Routing(jnp.ones((7, 1), jnp.int32), weight, weight), Experts(gate, up, down))
    pre = x @ gate[1]
    np.testing.assert_allclose(out, weight * ((pre / (1 + np.exp(-pre)) * (x @ up[1])) @ down[1]), rtol=1e-4, atol=1e-5)


def test_weights_are_the_scores_of_the_chosen_and_shared_experts_normalised_to_the_scale():
    logits = np.random.default_rng(9).standard_normal((50, EXPERTS + 2)).astype(np.float32) * 3
    routing = route(jnp.asarray(logits), jnp.zeros(EXPERTS), TOP, jnp.float32(2.5))
    score = 1 / (1 + np.exp(-logits))
    chosen = np.argsort(-score[:, :EXPERTS], axis=1)[:, :TOP]
    np.testing.assert_array_equal(np.sort(routing.expert, axis=1), np.sort(chosen, axis=1))
    picked = np.concatenate([np.take_along_axis(score, np.asarray(routing.expert), axis=1), score[:, EXPERTS:]], axis=1)
    weights = np.concatenate([routing.weight, routing.shared_weight], axis=1)
    np.testing.assert_allclose(weights, 2.5 * picked / picked.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=1), 2.5, rtol=1e-6)


def test_the_bias_changes_the_choice_but_not_the_weights():
    logits = jnp.asarray(np.random.default_rng(10).standard_normal((50, EXPERTS + 1)), jnp.float32)
    plain = route(logits, jnp.zeros(EXPERTS), TOP, jnp.float32(1))
    forced = route(logits, jnp.zeros(EXPERTS).at[jnp.asarray([0, 2])].set(5.0), TOP, jnp.float32(1))
    assert np.all(np.sort(forced.expert, axis=1) == [0, 2]) and np.any(np.sort(plain.expert, axis=1) != [0, 2])
    # The same two experts, chosen because the others have no chance, weigh the same.
    alone = logits.at[:, jnp.asarray([1, 3, 4])].set(-30.0)
    chosen = route(alone, jnp.zeros(EXPERTS), TOP, jnp.float32(1))
    order = np.argsort(forced.expert, axis=1), np.argsort(chosen.expert, axis=1)
    one, other = (np.take_along_axis(np.asarray(r.weight), o, axis=1) for r, o in zip((forced, chosen), order))
    np.testing.assert_allclose(one, other, rtol=1e-6)
    np.testing.assert_allclose(forced.shared_weight, chosen.shared_weight, rtol=1e-6)


@pytest.fixture(scope="module")
def layer():
    module = MoE(SMALL)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 1, SMALL.d_model))))
    return jax.jit(module.apply), random_leaves(shapes, 11)


def test_few_and_many_tokens_get_the_same_numbers(monkeypatch):
    """One token fetches its weights, some run through all experts, many are sorted."""
    module = MoE(dataclasses.replace(SMALL, num_experts=10, top_k=1))
    used = []
    for name in ("experts_gathered", "experts_dense", "experts_grouped"):
        way = getattr(experts_module, name)
        monkeypatch.setattr(experts_module, name, lambda *given, way=way: (used.append(way.__name__), way(*given))[1])
    x = np.random.default_rng(12).standard_normal((1, 300, SMALL.d_model)).astype(np.float32)
    variables = module.init(jax.random.key(0), x[:, :1])
    used.clear()
    many, extras = module.apply(variables, x)
    for few in (1, 100):
        np.testing.assert_allclose(module.apply(variables, x[:, :few])[0], many[:, :few], atol=1e-5)
    assert used == ["experts_grouped", "experts_gathered", "experts_dense"]
    assert extras["load"].sum() == 300 and extras["dropped"] == 0


def test_only_counted_elements_are_load_and_their_output_does_not_depend_on_it(layer):
    apply, variables = layer
    x = np.random.default_rng(13).standard_normal((1, 40, SMALL.d_model)).astype(np.float32)
    counted = np.arange(40)[None] < 15
    out, extras = apply(variables, x, counted)
    np.testing.assert_array_equal(extras["load"], apply(variables, x[:, :15])[1]["load"])
    assert extras["load"].sum() == SMALL.top_k * 15
    np.testing.assert_array_equal(out, apply(variables, x)[0])


def test_no_gradient_reaches_the_bias(layer):
    _, variables = layer
    x = jnp.asarray(np.random.default_rng(14).standard_normal((1, 40, SMALL.d_model)), jnp.float32)
    gradient = jax.jit(jax.grad(lambda variables: jnp.sum(MoE(SMALL).apply(variables, x)[0] ** 2)))(variables)
    assert not np.any(gradient["balance"]["bias"])
    assert np.any(gradient["params"]["router"])


def test_moving_the_bias_against_the_load_evens_a_skewed_load():
    rng = np.random.default_rng(15)
    skew = np.asarray([2.5, 1.0, 0.0, -0.5, -1.5, 0.0, 0.0])  # the last two are shared experts
    logits = jnp.asarray(rng.standard_normal((2000, EXPERTS + 2)) + skew, jnp.float32)

    @jax.jit
    def step(bias):
        expert = route(logits, bias, TOP, jnp.float32(1)).expert
        load = jnp.bincount(expert.reshape(-1), length=EXPERTS).astype(jnp.float32)
        return update_balance(bias, load, 0.01), jnp.max(load) / jnp.mean(load)

    bias, first = step(jnp.zeros(EXPERTS))
    for _ in range(150):
        bias, last = step(bias)
    assert first > 2 and last < 1.1


def test_every_layer_moves_its_own_bias():
    load = jnp.asarray([[1.0, 5.0, 3.0], [90.0, 0.0, 0.0]])
    moved = update_balance(jnp.zeros((2, 3)), load, 0.5)
    np.testing.assert_array_equal(moved, [[0.5, -0.5, 0.0], [-0.5, 0.5, 0.5]])
