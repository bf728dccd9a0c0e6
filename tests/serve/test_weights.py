"""Weights kept to serve: narrow types change no product, eight bits change them little."""

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from small import SMALL, random_batch, small_config
from trained_run import make_run

from tml_jax.config import ServeConfig
from tml_jax.kernels.few_tokens import few_tokens_mlp
from tml_jax.model.attention import Packed
from tml_jax.model.backbone import unstacked
from tml_jax.model.experts import Experts
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.serve import weights
from tml_jax.serve.program import Program, load_model
from tml_jax.serve.weights import ROUNDED, quantize_experts, weights_for_serving


def served_as(**options):
    config = small_config()
    return dataclasses.replace(config, serve=ServeConfig(context=8, **options))


def test_layers_that_stand_by_themselves_are_those_of_the_stacks(small_variables):
    kept = weights_for_serving(small_variables, served_as())
    alone = InteractionModel(SMALL, scanned=False)
    shapes = jax.eval_shape(lambda key: init_variables(alone, key), jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, kept) == jax.tree.map(lambda leaf: leaf.shape, shapes)
    stack = small_variables["params"]["backbone"]["periods"]["layer_1"]["moe"]["expert_up"]
    for period, layer in enumerate((2, 4, 6)):  # the dense layer 0 stands before the periods of two
        np.testing.assert_array_equal(kept["params"]["backbone"][f"layer_{layer}"]["moe"]["expert_up"], stack[period])


def test_every_number_is_within_half_a_step(small_variables):
    rounded = quantize_experts(small_variables)
    before, after, scales = (
        flatten_dict(tree) for tree in (small_variables["params"], rounded["params"], rounded["scales"])
    )
    assert {path[-1] for path in scales} == set(ROUNDED)
    for path, leaf in before.items():
        if path not in scales:
            assert after[path] is leaf
            continue
        assert after[path].dtype == jnp.int8
        error = np.abs(after[path] * scales[path] - leaf)
        assert np.all(error <= 0.5001 * scales[path]) and np.max(np.abs(after[path])) == 127


def test_the_model_gives_nearly_the_same(small_model, small_variables):
    batch = random_batch(small_config(), 2, 0)
    elements = ElementArrays(batch.stream, batch.token, batch.slot, batch.audio_in, batch.video, batch.audio_out)
    run = jax.jit(lambda variables: small_model.apply(variables, elements, Packed(batch.segment, batch.position))[0])
    whole, rounded = run(small_variables), run(quantize_experts(small_variables))
    error = np.linalg.norm(rounded - whole) / np.linalg.norm(whole)
    assert 0 < error < 0.03


def test_the_kernel_for_few_tokens_takes_them():
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    whole = {"expert_gate": normal(4, 32, 24), "expert_up": normal(4, 32, 24), "expert_down": normal(4, 24, 32)}
    rounded = quantize_experts({"params": {"moe": whole}})
    three, scales = (tuple(rounded[part]["moe"][name] for name in ROUNDED) for part in ("params", "scales"))
    x, weight = normal(8, 32), normal(8, 4)
    found = few_tokens_mlp(x, weight, three, scales, share=1.0, interpret=True)
    plain = Experts(*three, scales).numbers(jnp.float32)
    expected = few_tokens_mlp(x, weight, (plain.gate, plain.up, plain.down), None, share=1.0, interpret=True)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(jnp.abs(expected).max()))


def test_matrices_kept_in_the_type_of_their_products_change_nothing(optimised, small_variables):
    kept = weights_for_serving(small_variables, served_as(dtype="bfloat16"))
    batch = random_batch(small_config(), 2, 0)
    elements = ElementArrays(batch.stream, batch.token, batch.slot, batch.audio_in, batch.video, batch.audio_out)

    def run(variables):
        model = InteractionModel(SMALL, jnp.bfloat16, scanned=False)
        hidden, _ = model.apply(variables, elements, Packed(batch.segment, batch.position))
        mel = model.apply(variables, jnp.zeros((2, 400)), hidden[:, 0], method="mel")
        return hidden, model.apply(variables, hidden[:, :3], method="logits"), mel

    jax.tree.map(np.testing.assert_array_equal, jax.jit(run)(kept), jax.jit(run)(unstacked(small_variables, SMALL)))
    size = lambda tree: sum(leaf.nbytes for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert size(kept) < 0.6 * size(small_variables)
    rounded = weights_for_serving(small_variables, served_as(dtype="bfloat16", weights="int8"))
    types = {path[-1]: leaf.dtype for path, leaf in flatten_dict(rounded["params"]).items()}
    assert types["expert_up"] == jnp.int8 and types["router"] == jnp.float32 and types["query"] == jnp.bfloat16


@pytest.mark.slow
def test_experts_are_rounded_as_they_are_read_and_never_all_there_as_they_were(tmp_path, small_variables, monkeypatch):
    config = served_as(dtype="bfloat16", weights="int8")
    run = make_run(tmp_path / "run", config, small_variables)
    stacks = [leaf for path, leaf in flatten_dict(small_variables["params"]).items() if path[-1] in ROUNDED]
    shapes, seen = {leaf.shape for leaf in stacks}, []

    def as_saved():
        gc.collect()
        return sum(leaf.shape in shapes and leaf.dtype == jnp.float32 for leaf in jax.live_arrays())

    def restore_part(*arguments):
        found = restored(*arguments)
        seen.append(as_saved() - before)
        return found

    before, restored = as_saved(), weights.restore_part
    monkeypatch.setattr(weights, "restore_part", restore_part)
    kept = Program(load_model(run)).variables
    assert seen == [0, *[1] * len(stacks)] and as_saved() == before
    jax.tree.map(np.testing.assert_array_equal, kept, weights_for_serving(small_variables, config))
