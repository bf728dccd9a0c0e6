import dataclasses

import jax
import pytest
from small import PACKING, small_config

from tml_jax.bench.roofline import Line, measure_rates, micro_turn_work, roofline_bench
from tml_jax.bench.timing import Times
from tml_jax.model.count import count_parameters
from tml_jax.model.interaction import InteractionModel, init_variables


@pytest.fixture(scope="module")
def config():
    whole = small_config()
    return dataclasses.replace(whole, data=dataclasses.replace(whole.data, packing=PACKING, batch_size=2))


@pytest.mark.slow
def test_the_table_holds_the_step_and_each_number_of_sessions(config):
    lines = []
    found = roofline_bench(config, repeats=1, sessions=(1, 2), log=lines.append)
    assert len(found.lines) == len(lines) == 3
    assert all(min(line.arithmetic, line.memory, line.micro_turns) > 0 for line in found.lines)
    for part in ("train step, 2 ×", "1 session,", "2 sessions,", "GB/s", jax.devices()[0].device_kind):
        assert part in str(found)


def test_rates_are_of_the_given_types(config):
    rates = measure_rates(["float32", "bfloat16"], seconds=0.01)
    assert set(rates.operations) == {"float32", "bfloat16"}
    assert min(*rates.operations.values(), rates.bytes) > 0


def test_the_floor_is_the_larger_time():
    line = Line("x", Times(3.0, 3.0, 3.0, 1), arithmetic=0.5, memory=1.5, micro_turns=1)
    assert line.over_floor == 2.0


def test_many_sessions_read_every_weight_of_the_layers_in_each_pass(config):
    counts = count_parameters(config.model)
    one, of_one = micro_turn_work(config, counts, 1, steps=2)
    many, of_many = micro_turn_work(config, counts, 1000, steps=2)
    assert many == pytest.approx(1000 * one)
    shapes = jax.eval_shape(lambda key: init_variables(InteractionModel(config.model), key), jax.random.key(0))
    layers = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]["backbone"]))
    head = 2 * counts["unembedding"] + 4 * counts["flow head"]
    assert of_many == pytest.approx(4 * (7 * layers + head), rel=0.01)
    assert of_one < of_many
