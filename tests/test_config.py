"""Configuration: every wrong field is an error that names the field, its value and the rule."""

import copy
import dataclasses
import importlib
import json
import pkgutil
import re

import pytest

import configs
from configs import inkling_small, tiny
from tml_jax.config import ConfigError, ModelConfig, from_mapping, to_mapping

CONFIGS = {name: importlib.import_module(f"configs.{name}") for _, name, _ in pkgutil.iter_modules(configs.__path__)}


def changed(path: str, value, base=tiny) -> dict:
    """The base's mapping with one field set; `path` may name a field that is not there yet."""
    mapping = copy.deepcopy(base.get_config().to_dict())
    *sections, field = path.split(".")
    section = mapping
    for name in sections:
        section = section.setdefault(name, {})
    section[field] = value
    return mapping


POSITIVE = {
    "model": [
        "d_model", "num_layers", "global_every", "num_heads", "num_kv_heads", "head_dim", "window", "rel_extent",
        "d_rel", "conv_kernel", "dense_ffn", "expert_ffn", "num_experts", "num_shared_experts", "top_k", "vocab_size",
        "text_vocab_size", "logit_divisor", "norm_eps", "flow_blocks", "flow_steps", "max_text_out", "route_scale",
    ],
    "data.packing": ["elements", "audio_in", "video", "audio_out", "outputs", "segments"],
    "data": ["batch_size", "prefetch"],
    "train": [
        "steps", "learning_rate", "clip_norm", "accumulate", "flow_draws", "checkpoint_every", "keep", "eval_every",
        "eval_batches", "log_every",
    ],
    "serve": ["context", "max_text_in"],
}  # fmt: skip
NOT_POSITIVE = [(f"{section}.{field}", v) for section, fields in POSITIVE.items() for field in fields for v in (0, -7)]

STAGES = tiny.get_config().model.vision_stages
WRONG = [
    # field, value, part of the rule
    ("model.num_dense_layers", 6, "0 … num_layers"),
    ("model.num_dense_layers", -1, "0 … num_layers"),
    ("model.num_kv_heads", 3, "must divide num_heads = 4"),
    ("model.top_k", 5, "at most num_experts = 4"),
    ("model.vocab_size", 488, "needs 9 rows"),
    ("model.log_scaling_floor", 0, "None, or above 0"),
    ("model.flow_width", 399, "at least 400"),
    ("model.flow_temperature", -0.1, "not be negative"),
    ("model.vision_stages", [], "at least one stage"),
    ("model.vision_stages", [[1, 5, 5, 0], *STAGES[1:]], "four numbers above 0"),
    ("model.vision_stages", [[1, 5, 5, 4], [1, 12, 12, 4], *STAGES[2:]], "multiple of the one before"),
    ("model.vision_stages", [[1, 5, 10, 4], *STAGES[1:]], "rows and columns fold alike"),
    ("model.vision_stages", STAGES[:-1], "covers the whole patch (2, 40, 40)"),
    ("data.sources", {}, "at least one source"),
    ("data.workers", -1, "not be negative"),
    ("data.video_grid", [0, 1], "two numbers above 0"),
    ("train.warmup_steps", -1, "0 … steps = 40"),
    ("train.warmup_steps", 41, "0 … steps = 40"),
    ("train.schedule", "step", "one of cosine, linear, constant"),
    ("train.compute_dtype", "float16", "one of float32, bfloat16"),
    ("train.moment_dtype", "fp8", "one of float32, bfloat16"),
    ("train.remat", "all", "one of none, dots, kept, block"),
    ("train.beta2", 1.0, "between 0 and 1"),
    ("train.beta2", 0.0, "between 0 and 1"),
    ("train.final_rate", 1.1, "0 … 1"),
    ("train.final_rate", -0.1, "0 … 1"),
    ("train.own_audio_drop", 1.0, "1 excluded"),
    ("train.own_audio_drop", -0.1, "1 excluded"),
    *((f"train.{field}", -0.5, "not be negative")
      for field in ("weight_decay", "flow_weight", "text_weight", "own_audio_noise", "balance_rate")),
    ("train.accumulate", 3, "must divide data.batch_size = 2"),
    ("mesh.data", 0, "above 0, or -1"),
    ("mesh.fsdp", -2, "above 0, or -1"),
    ("mesh.expert", 0, "above 0, or -1"),
    ("mesh.sequence", 0, "above 0, or -1"),
    ("mesh.sequence", 3, "must divide data.packing.elements = 512"),
    ("mesh.sequence", 32, "must divide data.packing.video = 16"),
    ("serve.mesh.sequence", 2, "must be 1"),
    ("mesh.tensor", 0, "above 0, or -1"),
    ("mesh.tensor", 3, "must divide model.num_kv_heads = 2"),
    ("mesh.expert", 3, "must divide model.num_experts = 4"),
    ("mesh.fsdp", 5, "must divide model.d_model = 64"),
    ("train.seed", -1, "0 … 2³² − 1"),
    ("data.seed", -1, "0 … 2³² − 1"),
    ("data.generate.scenes", -3, "greater than 0"),
    ("train.learning_rate", float("inf"), "finite"),
    ("train.flow_weight", float("inf"), "finite"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "rule"), WRONG + [(field, value, "greater than 0") for field, value in NOT_POSITIVE]
)
def test_a_wrong_value_is_an_error_with_field_value_and_rule(field, value, rule):
    with pytest.raises(ConfigError) as caught:
        from_mapping(changed(field, value))
    message = str(caught.value)
    assert message.startswith(f"config.{field} = ") and rule in message
    digits = lambda text: re.findall(r"[a-z]+|\d+", str(text))  # noqa: E731  lists may come back as tuples
    assert set(digits(value)) <= set(digits(message))


@pytest.mark.parametrize(
    ("mesh", "fits"), [({"fsdp": 2}, True), ({"fsdp": 4}, False), ({"data": 2, "expert": 2}, False)]
)
def test_the_rows_of_a_batch_must_divide_over_the_mesh(mesh, fits):
    mapping = tiny.get_config().to_dict() | {"mesh": mesh}
    if fits:
        from_mapping(mapping)
        return
    with pytest.raises(ConfigError, match="config.data.batch_size = 2: must be a multiple of mesh.data × mesh.fsdp"):
        from_mapping(mapping)


def test_a_stripe_is_no_shorter_than_a_convolution_looks_back_and_parameters_divide_over_both_axes():
    mapping = changed("mesh.sequence", 8)
    from_mapping(mapping)
    mapping["mesh"]["fsdp"], mapping["data"]["batch_size"] = 16, 16
    with pytest.raises(ConfigError, match="mesh.sequence = 8: times mesh.fsdp, 128, must divide model.d_model = 64"):
        from_mapping(mapping)
    mapping["mesh"]["fsdp"] = 1
    mapping["data"]["packing"]["elements"] = 16
    with pytest.raises(ConfigError, match="mesh.sequence = 8: leaves stripes of 2 elements, fewer than the 3"):
        from_mapping(mapping)


@pytest.mark.parametrize("axis", ["model.num_kv_heads", "model.expert_ffn", "model.dense_ffn"])
def test_the_tensor_axis_must_divide_heads_and_hidden_widths(axis):
    """Each by itself, the others being divisible."""
    mapping = changed("mesh.tensor", 4)
    mapping["model"] |= {"num_heads": 8, "num_kv_heads": 4}
    from_mapping(mapping)
    mapping["model"][axis.removeprefix("model.")] = 2 if axis == "model.num_kv_heads" else 66
    with pytest.raises(ConfigError, match=rf"config\.mesh\.tensor = 4: must divide {axis} = "):
        from_mapping(mapping)


def test_only_one_mesh_axis_takes_what_is_left():
    mapping = changed("mesh.data", -1)
    from_mapping(mapping)
    mapping["mesh"]["fsdp"] = -1
    with pytest.raises(ConfigError, match="data, fsdp = -1: only one axis"):
        from_mapping(mapping)


@pytest.mark.parametrize(
    ("field", "value", "rule"), [("path", "", "must name a folder"), ("weight", 0.0, "greater than 0")]
)
def test_a_wrong_source_is_an_error(field, value, rule):
    mapping = changed("data.sources", {"scenes": {"path": "scenes", field: value}})
    with pytest.raises(ConfigError, match=rf"config\.data\.sources\.scenes\.{field} = {value!r}: .*{rule}"):
        from_mapping(mapping)


@pytest.mark.parametrize("path", ["modle", "model.d_modle", "data.packing.element", "train.lr", "mesh.model"])
def test_an_unknown_field_is_an_error_that_lists_the_fields(path):
    with pytest.raises(ConfigError, match=rf"config\.{path} = 7: no such field; there are \w+, \w+"):
        from_mapping(changed(path, 7))


@pytest.mark.parametrize("path", ["name", "model.d_model", "data.packing.video", "train.steps", "serve.context"])
def test_a_missing_field_is_an_error(path):
    mapping = tiny.get_config().to_dict()
    *sections, field = path.split(".")
    section = mapping
    for name in sections:
        section = section[name]
    del section[field]
    with pytest.raises(ConfigError, match=rf"config\.{path} is missing"):
        from_mapping(mapping)


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("model.d_model", 64.0, "of type int"),
        ("model.d_model", "64", "of type int"),
        ("model.d_model", True, "of type int"),
        ("model.d_model", None, "of type int"),
        ("train.learning_rate", "fast", "of type float"),
        ("train.learning_rate", False, "of type float"),
        ("train.schedule", 1, "of type str"),
        ("model.log_scaling_floor", 2.5, "of type int"),
        ("model.vision_stages", 5, "a sequence"),
        ("model.vision_stages", [[1, 5, 5]], "4 items"),
        ("data.video_grid", [1, 1, 1], "2 items"),
        ("data.sources", ["scenes"], "a mapping"),
        ("data.sources", {"scenes": "scenes"}, "a mapping of fields"),
        ("data.generate", {"scenes": 1.5}, "of type int"),
        ("model", 3, "a mapping of fields"),
    ],
)
def test_a_wrong_type_is_an_error(path, value, rule):
    with pytest.raises(ConfigError, match=rf"config\.{path}\S* = .*must (be|have) .*{rule}"):
        from_mapping(changed(path, value))


def test_whole_numbers_are_floats_and_none_where_allowed():
    config = from_mapping(changed("train.learning_rate", 1))
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
    assert from_mapping(changed("model.log_scaling_floor", None)).model.log_scaling_floor is None


@pytest.mark.parametrize("module", CONFIGS.values(), ids=CONFIGS)
def test_every_configuration_survives_the_way_through_json(module):
    config = from_mapping(module.get_config())
    assert from_mapping(json.loads(json.dumps(to_mapping(config)))) == config
    assert config.name == module.__name__.removeprefix("configs.")


def test_a_configuration_cannot_be_changed_and_a_changed_copy_is_checked():
    model = from_mapping(tiny.get_config()).model
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.d_model = 1
    with pytest.raises(ConfigError, match="config.model.top_k = 9"):
        dataclasses.replace(model, top_k=9)


def test_layers_alternate_and_the_first_are_dense():
    model: ModelConfig = from_mapping(inkling_small.get_config()).model
    assert [layer for layer in range(model.num_layers) if model.is_global(layer)] == [5, 11, 17, 23, 29, 35, 41]
    assert [layer for layer in range(model.num_layers) if model.is_dense(layer)] == [0, 1]
    assert model.logits_size == 200_058 + 9
