"""config.json of a release ↔ our configuration."""

import dataclasses

import pytest
from releases import config_json

from configs import inkling_small
from tml_jax.config import ConfigError, from_mapping
from tml_jax.interop.inkling_config import PLANNED_STAGES, from_release, to_backbone, to_release
from tml_jax.model.count import active_parameters, count_parameters

SMALL = from_mapping(inkling_small.get_config()).model
# Sizes of the larger sibling, 975B with 41B active: the defaults of the reference's configuration, but for those that
# every release states.
LARGE = {
    "model_type": "inkling_mm_model",
    "text_config": {"unpadded_vocab_size": 200_058, "log_scaling_n_floor": 128_000},
    "audio_config": {"mel_vocab_size": 16},
    "vision_config": {"n_layers": 4},
}


def test_the_preset_is_what_the_releases_config_json_gives():
    assert from_release(config_json(SMALL), SMALL) == SMALL
    other = dataclasses.replace(SMALL, num_layers=6, d_model=64, num_experts=8, logit_divisor=1.0)
    assert from_release(config_json(SMALL), other) == SMALL


def test_what_is_written_reads_as_the_same_model():
    assert from_release(to_release(SMALL), SMALL) == SMALL
    model = dataclasses.replace(SMALL, sliding_heads=(64, 16, 128), num_heads=64)
    assert from_release(to_release(model), SMALL) == model


def test_the_large_sibling_has_its_published_size():
    model = from_release(LARGE, SMALL)
    assert model.heads(is_global=True) == (64, 8, 128) and model.heads(is_global=False) == (64, 16, 128)
    counts = count_parameters(model)
    assert sum(counts.values()) == pytest.approx(975e9, rel=0.01)
    assert active_parameters(model, counts) == pytest.approx(41e9, rel=0.03)


def test_layer_kinds_are_read_from_either_field():
    types = ["hybrid" if (layer + 1) % 3 == 0 else "hybrid_sliding" for layer in range(7)]
    local = [0, 1, 3, 4, 6]
    for given in ({"layer_types": types}, {"local_layer_ids": local, "layer_types": None}):
        release = config_json(SMALL, num_hidden_layers=7, **given)
        assert from_release(release, SMALL).global_every == 3
    release = config_json(SMALL, num_hidden_layers=3, mlp_layer_types=["dense", "sparse", "sparse"])
    assert from_release(release, SMALL).num_dense_layers == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"local_layer_ids": [0, 1, 3]}, "global layers .*every n-th"),
        ({"mlp_layer_types": ["sparse"] * 41 + ["dense"]}, "mlp_layer_types.*dense ones first"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu': this model is built for 'silu'"),
        ({"shared_expert_sink": False}, "shared_expert_sink"),
    ],
)
def test_what_our_model_has_not_is_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        from_release(config_json(SMALL, **changes), SMALL)


def test_another_family_and_another_patch_network_are_refused():
    with pytest.raises(ConfigError, match="model_type = 'llama': expected 'inkling_mm_model'"):
        from_release({"model_type": "llama"}, SMALL)
    release = config_json(SMALL)
    with pytest.raises(ConfigError, match="num_hidden_layers = 7: expected one of"):
        from_release({**release, "vision_config": {"n_layers": 7}}, SMALL)
    with pytest.raises(ConfigError, match="text_config is missing"):
        from_release({"model_type": "inkling_mm_model"}, SMALL)


def test_a_model_with_a_patch_network_of_its_own_still_has_a_backbone():
    model = dataclasses.replace(SMALL, vision_stages=(*PLANNED_STAGES[2][:0], (1, 40, 40, 64), (2, 40, 40, 4096)))
    with pytest.raises(ConfigError, match="vision_stages"):
        to_release(model)
    assert to_backbone(model)["model_type"] == "inkling_text"
