"""The configuration of the open Inkling weights, `config.json`, as a ModelConfig and back.

Files in use spell some fields in two ways and leave out those that have their default, so both are known here: facts
of `transformers.models.inkling.configuration_inkling`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tml_jax.config import DMEL_LEVELS, MEL_BINS, PATCH, ConfigError, ModelConfig

MODEL_TYPE, BACKBONE_TYPE = "inkling_mm_model", "inkling_text"

# Folds that the reference plans for a number of stages, but for the last, which always covers the whole patch.
PLANNED_STAGES = {
    1: (),
    2: ((1, 10, 10, 320),),
    3: ((1, 5, 5, 128), (1, 20, 20, 1216)),
    4: ((1, 5, 5, 128), (1, 10, 10, 320), (1, 40, 40, 4800)),
    5: ((1, 5, 5, 128), (1, 10, 10, 320), (1, 20, 20, 1216), (1, 40, 40, 4800)),
}

_ALIASES = {
    "embedding_multiplier": "logits_mup_width_multiplier",
    "sliding_window": "sliding_window_size",
    "num_local_experts": "n_routed_experts",
    "sconv_kernel_size": "conv_kernel_size",
    "n_layers": "num_hidden_layers",  # of the patch network
    "n_channels": "num_channels",
    "num_codebooks": "n_mel_bins",
    "codebook_size": "mel_vocab_size",
}
_TEXT_DEFAULTS = dict(
    vocab_size=201_024, unpadded_vocab_size=None, hidden_size=6144, num_hidden_layers=66, num_attention_heads=64,
    num_key_value_heads=8, head_dim=128, swa_num_attention_heads=64, swa_num_key_value_heads=16, swa_head_dim=128,
    sliding_window_size=512, d_rel=16, rel_extent=1024, log_scaling_n_floor=None, log_scaling_alpha=0.1,
    rms_norm_eps=1e-6, conv_kernel_size=4, intermediate_size=24_576, hidden_act="silu", moe_intermediate_size=3072,
    n_routed_experts=256, num_experts_per_tok=6, n_shared_experts=2, shared_expert_sink=True, route_scale=8.0,
    logits_mup_width_multiplier=24.0,
)  # fmt: skip
_AUDIO_DEFAULTS = dict(n_mel_bins=80, mel_vocab_size=256)
_VISION_DEFAULTS = dict(patch_size=40, temporal_patch_size=2, num_channels=3, num_hidden_layers=24)


def from_release(release: Mapping[str, Any], like: ModelConfig) -> ModelConfig:
    """The model that a release was made for.

    Args:
      release: contents of its config.json.
      like: where the release says nothing: the flow head, and how the model speaks.

    Returns:
      The configuration; equal to `like` where the sizes are the same.

    Raises:
      ConfigError: it is not of this family, is quantised, or needs something that our model has not; says what.
    """
    kind = release.get("model_type")
    if kind != MODEL_TYPE:
        raise ConfigError(f"model_type = {kind!r}: expected {MODEL_TYPE!r}, a release of the Inkling family")
    if release.get("quantization_config"):
        method = release["quantization_config"].get("quant_method", "unknown method")
        raise ConfigError(
            f"quantization_config ({method}): this release is quantised; read are bfloat16, float16 and float32. Take "
            "the unquantised release, or let transformers dequantise it and save that"
        )
    text = _section(release, "text_config", _TEXT_DEFAULTS)
    audio = _section(release, "audio_config", _AUDIO_DEFAULTS)
    vision = _section(release, "vision_config", _VISION_DEFAULTS)
    if text.get("dense_intermediate_size") is not None:  # then `intermediate_size` is that of the experts
        text["moe_intermediate_size"] = text["intermediate_size"]
        text["intermediate_size"] = text["dense_intermediate_size"]
    layers = text["num_hidden_layers"]
    every = _period(text, layers)
    dense = _dense_layers(text, layers)
    expected = {
        "text_config.hidden_act": (text["hidden_act"], "silu"),
        "text_config.shared_expert_sink": (text["shared_expert_sink"], True),
        "audio_config.n_mel_bins": (audio["n_mel_bins"], MEL_BINS),
        "audio_config.mel_vocab_size": (audio["mel_vocab_size"], DMEL_LEVELS),
        "vision_config.temporal_patch_size": (vision["temporal_patch_size"], PATCH[0]),
        "vision_config.patch_size": (vision["patch_size"], PATCH[1]),
        "vision_config.num_channels": (vision["num_channels"], PATCH[3]),
    }
    for field, (found, wanted) in expected.items():
        if found != wanted:
            raise ConfigError(f"{field} = {found!r}: this model is built for {wanted!r}")
    stages = vision["num_hidden_layers"]
    if stages not in PLANNED_STAGES:
        raise ConfigError(f"vision_config.num_hidden_layers = {stages}: expected one of {list(PLANNED_STAGES)}")
    everywhere = tuple(text[name] for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    sliding = tuple(text[f"swa_{name}"] for name in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    vocabulary = text["vocab_size"]
    return dataclasses.replace(
        like,
        d_model=text["hidden_size"],
        num_layers=layers,
        num_dense_layers=dense,
        global_every=every,
        num_heads=everywhere[0],
        num_kv_heads=everywhere[1],
        head_dim=everywhere[2],
        sliding_heads=None if sliding == everywhere else sliding,
        window=text["sliding_window_size"],
        rel_extent=text["rel_extent"],
        d_rel=text["d_rel"],
        log_scaling_floor=text["log_scaling_n_floor"],
        log_scaling_alpha=text["log_scaling_alpha"],
        conv_kernel=text["conv_kernel_size"],
        dense_ffn=text["intermediate_size"],
        expert_ffn=text["moe_intermediate_size"],
        num_experts=text["n_routed_experts"],
        num_shared_experts=text["n_shared_experts"],
        top_k=text["num_experts_per_tok"],
        route_scale=float(text["route_scale"]),
        vocab_size=vocabulary,
        text_vocab_size=text["unpadded_vocab_size"] or vocabulary,
        logit_divisor=float(text["logits_mup_width_multiplier"]),
        norm_eps=text["rms_norm_eps"],
        vision_stages=(*PLANNED_STAGES[stages], (*PATCH[:3], text["hidden_size"])),
    )


def to_release(config: ModelConfig) -> dict[str, Any]:
    """The reference's configuration of the same architecture, with its towers for audio and pictures.

    Args:
      config: the model.

    Returns:
      Contents of a config.json, but for the token ids of placeholders.

    Raises:
      ConfigError: the reference cannot express `config`; `to_backbone` may.
    """
    stages = tuple(map(tuple, config.vision_stages))
    if PLANNED_STAGES.get(len(stages)) != stages[:-1]:
        raise ConfigError(f"vision_stages = {stages}: for a number of stages the reference only knows {PLANNED_STAGES}")
    if config.norm_eps != 1e-6:
        raise ConfigError(f"norm_eps = {config.norm_eps}: the reference fixes 1e-6 in its audio and vision parts")
    frames, size, _, colours = PATCH
    return {
        "architectures": ["InklingForConditionalGeneration"],
        "model_type": MODEL_TYPE,
        "text_config": {"model_type": BACKBONE_TYPE, **_text(config)},
        "audio_config": {"model_type": "inkling_audio", "n_mel_bins": MEL_BINS, "mel_vocab_size": DMEL_LEVELS},
        "vision_config": {
            "model_type": "inkling_vision",
            "patch_size": size,
            "temporal_patch_size": frames,
            "num_channels": colours,
            "num_hidden_layers": len(stages),
        },
    }


def to_backbone(config: ModelConfig) -> dict[str, Any]:
    """The reference's configuration of the text model alone; every ModelConfig has one."""
    return {"architectures": ["InklingForCausalLM"], "model_type": BACKBONE_TYPE, **_text(config)}


def _text(config: ModelConfig) -> dict[str, Any]:
    heads, kv_heads, width = config.heads(is_global=False)
    layers = range(config.num_layers)
    return dict(
        vocab_size=config.vocab_size,
        unpadded_vocab_size=config.text_vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        swa_num_attention_heads=heads,
        swa_num_key_value_heads=kv_heads,
        swa_head_dim=width,
        sliding_window_size=config.window,
        d_rel=config.d_rel,
        rel_extent=config.rel_extent,
        log_scaling_n_floor=config.log_scaling_floor,
        log_scaling_alpha=config.log_scaling_alpha,
        layer_types=["hybrid" if config.is_global(layer) else "hybrid_sliding" for layer in layers],
        mlp_layer_types=["dense" if config.is_dense(layer) else "sparse" for layer in layers],
        rms_norm_eps=config.norm_eps,
        conv_kernel_size=config.conv_kernel,
        intermediate_size=config.dense_ffn,
        moe_intermediate_size=config.expert_ffn,
        n_routed_experts=config.num_experts,
        num_experts_per_tok=config.top_k,
        n_shared_experts=config.num_shared_experts,
        route_scale=config.route_scale,
        logits_mup_width_multiplier=config.logit_divisor,
    )


def _section(release: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    given = release.get(name)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name} is missing: expected the config.json of an Inkling release")
    return {**defaults, **{_ALIASES.get(field, field): value for field, value in given.items()}}


def _period(text: Mapping[str, Any], layers: int) -> int:
    """Every which layer is global, from `layer_types` or `local_layer_ids`, or else every sixth."""
    types, local = text.get("layer_types"), text.get("local_layer_ids")
    if types is not None:
        is_global = [kind == "hybrid" for kind in types]
    elif local is not None:
        is_global = [layer not in set(local) for layer in range(layers)]
    else:
        is_global = [(layer + 1) % 6 == 0 for layer in range(layers)]
    every = is_global.index(True) + 1 if True in is_global else layers + 1
    if is_global != [(layer + 1) % every == 0 for layer in range(layers)]:
        found = [layer for layer, whole in enumerate(is_global) if whole]
        raise ConfigError(f"text_config: global layers {found} of {layers}: expected every n-th layer, counted from 1")
    return every


def _dense_layers(text: Mapping[str, Any], layers: int) -> int:
    """How many layers are dense, from `mlp_layer_types` or `dense_mlp_idx`."""
    types = text.get("mlp_layer_types")
    if types is None:
        return text.get("dense_mlp_idx", 0)
    dense = types.count("dense")
    if types != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise ConfigError(f"text_config.mlp_layer_types = {types}: expected {layers} entries, the dense ones first")
    return dense
