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


# Sizes of Inkling-Small as published, in the spelling of its config.json; the file itself is not here.
PUBLISHED = {
    "model_type": "inkling_mm_model",
    "text_config": {
        "hidden_size": 4096, "num_hidden_layers": 42, "dense_mlp_idx": 2,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128,
        "swa_num_attention_heads": 32, "swa_num_key_value_heads": 8, "swa_head_dim": 128,
        "sliding_window_size": 512, "d_rel": 16, "rel_extent": 1024,
        "local_layer_ids": [layer for layer in range(42) if layer % 6 != 5],
        "log_scaling_n_floor": 128_000, "log_scaling_alpha": 0.1, "sconv_kernel_size": 4, "rms_norm_eps": 1e-6,
        "dense_intermediate_size": 16_384, "intermediate_size": 2048,
        "n_routed_experts": 256, "num_experts_per_tok": 6, "n_shared_experts": 2, "route_scale": 8.0,
        "vocab_size": 201_024, "unpadded_vocab_size": 200_058, "logits_mup_width_multiplier": 16.0,
    },
    "audio_config": {"n_mel_bins": 80, "mel_vocab_size": 16},
    "vision_config": {"patch_size": 40, "temporal_patch_size": 2, "n_channels": 3, "n_layers": 4},
}  # fmt: skip
# Of the same file; the reference does not read them, because it is built for these values alone.
SWITCHES = {
    "use_sconv": True, "use_embed_norm": True, "use_gate_bias": True, "norm_after_topk": True, "use_global_scale": True,
    "gate_activation": "sigmoid", "q_bias": False, "o_bias": False,
}  # fmt: skip


def test_the_preset_is_what_the_published_sizes_give():
    assert from_release(PUBLISHED, SMALL) == SMALL
    assert from_release({**PUBLISHED, "text_config": {**PUBLISHED["text_config"], **SWITCHES}}, SMALL) == SMALL
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
        ({"gate_activation": "softmax"}, "gate_activation = 'softmax': this model is built for 'sigmoid'"),
        ({"q_bias": True}, "q_bias = True"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0: this model is built for None"),
        ({"quantization_config": {"quant_method": "fp8"}}, r"text_config.quantization_config \(fp8\).*unquantised"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps = 1e-05: must be 1e-6"),
        ({"hidden_size": "4096"}, "hidden_size = '4096': expected a number"),
        ({"num_hidden_layers": None}, "num_hidden_layers = None: expected a number"),
        ({"route_scale": True}, "route_scale = True: expected a number"),
        ({"log_scaling_alpha": float("nan")}, "log_scaling_alpha = nan: expected a number"),
        ({"layer_types": [["hybrid"]]}, "expected a list"),
        ({"layer_types": "hybrid"}, "layer_types = 'hybrid': expected a list"),
        ({"layer_types": None, "local_layer_ids": 3}, "local_layer_ids = 3: expected a list"),
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
    for wrong in ([], "text", None):
        with pytest.raises(ConfigError, match="expected 'inkling_mm_model'"):
            from_release(wrong, SMALL)
    with pytest.raises(ConfigError, match="text_config is missing"):
        from_release({"model_type": "inkling_mm_model"}, SMALL)


def test_a_model_with_a_patch_network_of_its_own_still_has_a_backbone():
    model = dataclasses.replace(SMALL, vision_stages=(*PLANNED_STAGES[2][:0], (1, 40, 40, 64), (2, 40, 40, 4096)))
    with pytest.raises(ConfigError, match="vision_stages"):
        to_release(model)
    assert to_backbone(model)["model_type"] == "inkling_text"
