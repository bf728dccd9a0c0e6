"""The mapping from the reference's weights misses nothing, on either side; runs without torch."""

import collections
import dataclasses
import json

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from inkling_inputs import BASE, GOLDEN, GOLDEN_CONFIG, stages
from inkling_ours import empty_variables

from tml_jax.config import ConfigError
from tml_jax.interop.inkling import MODULES, OWN_PARTS, RELEASE, counterparts, from_tensors, slot
from tml_jax.interop.inkling_config import PLANNED_STAGES, to_release
from tml_jax.model.backbone import layer_plan


@pytest.fixture(scope="module")
def state():
    """Tensors with the reference's names and shapes at GOLDEN_CONFIG."""
    with np.load(GOLDEN) as file:
        shapes = json.loads(file["shapes"].item())
    return {name: np.broadcast_to(np.float32(2), shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def empty():
    return empty_variables(GOLDEN_CONFIG)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_dense_layers": 3},
        {"num_dense_layers": 0},
        {"num_layers": 8},
        {"num_layers": 11, "num_dense_layers": 2, "global_every": 3},
        *({"vision_stages": stages(count)} for count in PLANNED_STAGES),
    ],
)
@pytest.mark.parametrize("spelling", [RELEASE, MODULES])
def test_the_mapping_reaches_every_parameter_once(changes, spelling):
    config = dataclasses.replace(BASE, **changes)
    variables, report = from_tensors({}, config, empty_variables(config))
    assert variables.keys() == {"params", "balance"}
    shapes = {path: leaf.shape for path, leaf in flatten_dict(variables, sep="/").items()}
    parts = counterparts(config, shapes, spelling)
    reached = [slot(path, part.period) for part in parts for path in part.parameters]
    ours = [path for path in report.unfilled if not path.startswith(OWN_PARTS)]
    assert ours == list(report.missing) and set(ours) <= set(reached)
    assert max(collections.Counter(reached).values()) == 1


def test_every_tensor_of_the_reference_is_used_and_only_our_own_parts_stay(state, empty):
    variables, report = from_tensors(state, GOLDEN_CONFIG, empty)
    assert report.unmapped == () and report.missing == ()
    assert report.unfilled and all(path.startswith(OWN_PARTS) for path in report.unfilled)
    assert np.all(variables["params"]["unembedding"] == 2)
    assert np.all(variables["params"]["inputs"]["own_audio"]["table"] == 0)


def test_each_tensor_that_is_missing_is_reported(state, empty):
    assert layer_plan(GOLDEN_CONFIG)[1] == 3
    _, whole = from_tensors(state, GOLDEN_CONFIG, empty)
    for name in state:
        rest = {other: tensor for other, tensor in state.items() if other != name}
        _, report = from_tensors(rest, GOLDEN_CONFIG, empty)
        assert len(report.missing) == (2 if name.endswith("gate_up_proj") else 1), name
        assert set(report.unfilled) - set(report.missing) == set(whole.unfilled)


def test_one_layer_of_a_stack_is_told_from_the_others(state, empty):
    # Layers 1 to 6 are three scanned periods of two: layer 4 is the second of the period 1.
    name = "model.language_model.layers.4.self_attn.q_norm.weight"
    changed = state | {name: np.full(8, 7, np.float32)}
    variables, _ = from_tensors(changed, GOLDEN_CONFIG, empty)
    scale = variables["params"]["backbone"]["periods"]["layer_1"]["attention"]["query_norm"]["scale"]
    np.testing.assert_array_equal(scale[:, 0], [2, 7, 2])
    del changed[name]
    _, report = from_tensors(changed, GOLDEN_CONFIG, empty)
    assert report.missing == ("params/backbone/periods/layer_1/attention/query_norm/scale[1]",)


def test_tensor_that_nothing_takes_is_reported(state, empty):
    _, report = from_tensors(state | {"model.mtp.layers.0.weight": np.zeros(3)}, GOLDEN_CONFIG, empty)
    assert report.unmapped == ("model.mtp.layers.0.weight",)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lm_head.weight", (56, 32)),
        ("model.language_model.layers.0.self_attn.q_proj.weight", (33, 32)),
        ("model.language_model.layers.0.mlp.global_scale", (2,)),
    ],
)
def test_tensor_of_another_size_is_refused_by_name(state, empty, name, shape):
    with pytest.raises(ValueError, match=f"{name} of shape .* cannot fill params/.*give the configuration"):
        from_tensors(state | {name: np.zeros(shape, np.float32)}, GOLDEN_CONFIG, empty)


def test_configuration_the_reference_cannot_express_is_refused():
    with pytest.raises(ConfigError, match="vision_stages"):
        to_release(dataclasses.replace(BASE, vision_stages=((1, 5, 5, 8), (2, 40, 40, 1))))
    with pytest.raises(ConfigError, match="norm_eps"):
        to_release(dataclasses.replace(BASE, norm_eps=1e-5))
