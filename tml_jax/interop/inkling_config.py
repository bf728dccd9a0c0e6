"""The configuration of the open Inkling weights, `config.json`, as a ModelConfig and back.

Files in use spell some fields in two ways and leave out those that have their default, so both are known here: facts
of `transformers.models.inkling.configuration_inkling`.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tml_jax.config import DMEL_LEVELS, MEL_BINS, PATCH, ConfigError, ModelConfig

MODEL_TYPE, BACKBONE_TYPE = "inkling_mm_model", "inkling_text"
EXPORTED = "tml_jax_export"  # field of a config.json that was written here: the name of the configuration
TOKEN_IDS = ("image_token_id", "audio_token_id", "image_bos_token_id", "audio_bos_token_id")  # of placeholders

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


class _Field(NamedTuple):
    """A number that both configurations have: its names, and the reference's default."""

    theirs: str
    ours: str
    default: int | float | None


_TEXT_FIELDS = (
    _Field("vocab_size", "vocab_size", 201_024),
    _Field("hidden_size", "d_model", 6144),
    _Field("num_hidden_layers", "num_layers", 66),
    _Field("num_attention_heads", "num_heads", 64),
    _Field("num_key_value_heads", "num_kv_heads", 8),
    _Field("head_dim", "head_dim", 128),
    _Field("sliding_window_size", "window", 512),
    _Field("d_rel", "d_rel", 16),
    _Field("rel_extent", "rel_extent", 1024),
    _Field("log_scaling_n_floor", "log_scaling_floor", None),
    _Field("log_scaling_alpha", "log_scaling_alpha", 0.1),
    _Field("rms_norm_eps", "norm_eps", 1e-6),
    _Field("conv_kernel_size", "conv_kernel", 4),
    _Field("intermediate_size", "dense_ffn", 24_576),
    _Field("moe_intermediate_size", "expert_ffn", 3072),
    _Field("n_routed_experts", "num_experts", 256),
    _Field("num_experts_per_tok", "top_k", 6),
    _Field("n_shared_experts", "num_shared_experts", 2),
    _Field("route_scale", "route_scale", 8.0),
    _Field("logits_mup_width_multiplier", "logit_divisor", 24.0),
)
# Of the sliding layers; a ModelConfig holds them as one tuple, or None where they are those of the global layers.
_SLIDING_FIELDS = (
    _Field("swa_num_attention_heads", "sliding_heads", 64),
    _Field("swa_num_key_value_heads", "sliding_heads", 16),
    _Field("swa_head_dim", "sliding_heads", 128),
)
# Section → field → what our model is built for, which is also what a release means that does not say. Published files
# have switches that the reference's configuration does not know, because it is built for these values, too.
_FIXED = {
    "text_config": {
        "hidden_act": "silu",
        "shared_expert_sink": True,
        "gate_activation": "sigmoid",
        "norm_after_topk": True,
        "use_gate_bias": True,
        "use_global_scale": True,
        "use_embed_norm": True,
        "use_sconv": True,
        "q_bias": False,
        "o_bias": False,
        "final_logit_softcapping": None,
        "tie_word_embeddings": False,
    },
    "audio_config": {"n_mel_bins": MEL_BINS, "mel_vocab_size": DMEL_LEVELS},
    "vision_config": {"temporal_patch_size": PATCH[0], "patch_size": PATCH[1], "num_channels": PATCH[3]},
}
_TOWER_EPS = 1e-6
_EPS_RULE = "must be 1e-6, which the reference fixes in its audio and vision parts; here one value serves all parts"
_REFERENCE_LEVELS, _REFERENCE_STAGES = 256, 24  # defaults that are not ours: a release that does not say has these


def from_release(release: Any, like: ModelConfig) -> ModelConfig:
    """The model that a release was made for.

    Args:
      release: contents of its config.json.
      like: where the release says nothing: the flow head, and how the model speaks.

    Returns:
      The configuration; equal to `like` where the sizes are the same.

    Raises:
      ConfigError: it is not of this family, is quantised, or needs something that our model has not; says what.
    """
    kind = release.get("model_type") if isinstance(release, Mapping) else release
    if kind != MODEL_TYPE:
        raise ConfigError(f"config.json: model_type = {kind!r}: expected {MODEL_TYPE!r}, a release of the family")
    if EXPORTED in release:
        raise ConfigError(
            f"config.json: {EXPORTED} = {release[EXPORTED]!r}: an export of one of this project's models, whose "
            "control tokens would be taken for text; use the checkpoint that it was made of"
        )
    text = _section(release, "text_config")
    audio = {"mel_vocab_size": _REFERENCE_LEVELS} | _section(release, "audio_config")
    vision = {"num_hidden_layers": _REFERENCE_STAGES} | _section(release, "vision_config")
    for name, section in (("", release), ("text_config.", text)):
        _refuse_quantised(f"{name}quantization_config", section.get("quantization_config"))
    for name, section in (("text_config", text), ("audio_config", audio), ("vision_config", vision)):
        for field, wanted in _FIXED[name].items():
            if section.get(field, wanted) != wanted:
                raise ConfigError(f"{name}.{field} = {section[field]!r}: this model is built for {wanted!r}")
    if text.get("dense_intermediate_size") is not None:  # then `intermediate_size` is that of the experts
        text["moe_intermediate_size"] = text.get("intermediate_size")
        text["intermediate_size"] = text["dense_intermediate_size"]

    sizes = {field.ours: _number(text, field) for field in _TEXT_FIELDS}
    layers, vocabulary = sizes["num_layers"], sizes["vocab_size"]
    sliding = tuple(_number(text, field) for field in _SLIDING_FIELDS)
    everywhere = (sizes["num_heads"], sizes["num_kv_heads"], sizes["head_dim"])
    if sizes["norm_eps"] != _TOWER_EPS:
        raise ConfigError(f"text_config.rms_norm_eps = {sizes['norm_eps']}: {_EPS_RULE}")
    stages = vision["num_hidden_layers"]
    if not isinstance(stages, int) or stages not in PLANNED_STAGES:
        raise ConfigError(f"vision_config.num_hidden_layers = {stages!r}: expected one of {list(PLANNED_STAGES)}")
    return dataclasses.replace(
        like,
        **sizes,
        sliding_heads=None if sliding == everywhere else sliding,
        num_dense_layers=_dense_layers(text, layers),
        global_every=_period(text, layers),
        text_vocab_size=_number(text, _Field("unpadded_vocab_size", "text_vocab_size", None)) or vocabulary,
        vision_stages=(*PLANNED_STAGES[stages], (*PATCH[:3], sizes["d_model"])),
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
    if config.norm_eps != _TOWER_EPS:
        raise ConfigError(f"norm_eps = {config.norm_eps}: {_EPS_RULE}")
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
    layers = range(config.num_layers)
    sliding = zip(_SLIDING_FIELDS, config.heads(is_global=False))
    return {
        **{field.theirs: getattr(config, field.ours) for field in _TEXT_FIELDS},
        **{field.theirs: size for field, size in sliding},
        "unpadded_vocab_size": config.text_vocab_size,
        "layer_types": ["hybrid" if config.is_global(layer) else "hybrid_sliding" for layer in layers],
        "mlp_layer_types": ["dense" if config.is_dense(layer) else "sparse" for layer in layers],
    }


def _section(release: Mapping[str, Any], name: str) -> dict[str, Any]:
    given = release.get(name)
    if not isinstance(given, Mapping):
        raise ConfigError(f"{name} is missing: expected the config.json of an Inkling release")
    return {_ALIASES.get(field, field): value for field, value in given.items()}


def _number(section: Mapping[str, Any], field: _Field) -> Any:
    """A field of text_config, of the type of its default; None only where that is the default."""
    value = section.get(field.theirs, field.default)
    if isinstance(field.default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wanted = type(field.default) if field.default is not None else int
    if (type(value) is wanted and math.isfinite(value)) or (value is None and field.default is None):
        return value
    raise ConfigError(f"text_config.{field.theirs} = {value!r}: expected a number ({wanted.__name__})")


def _refuse_quantised(field: str, found: Any) -> None:
    if found:
        method = found.get("quant_method", "unknown method") if isinstance(found, Mapping) else found
        raise ConfigError(
            f"{field} ({method}): this release is quantised; read are bfloat16, float16 and float32. Take the "
            "unquantised release, or let transformers dequantise it and save that"
        )


def _period(text: Mapping[str, Any], layers: int) -> int:
    """Every which layer is global, from `layer_types` or `local_layer_ids`, or else every sixth."""
    types, local = text.get("layer_types"), text.get("local_layer_ids")
    if types is not None:
        if not isinstance(types, list) or any(kind not in ("hybrid", "hybrid_sliding") for kind in types):
            raise ConfigError(f"text_config.layer_types = {types!r}: expected a list of 'hybrid' and 'hybrid_sliding'")
        is_global = [kind == "hybrid" for kind in types]
    elif local is not None:
        if not isinstance(local, list):
            raise ConfigError(f"text_config.local_layer_ids = {local!r}: expected a list of layers")
        is_global = [layer not in local for layer in range(layers)]
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
        return _number(text, _Field("dense_mlp_idx", "num_dense_layers", 0))
    dense = types.count("dense") if isinstance(types, list) else 0
    if types != ["dense"] * dense + ["sparse"] * (layers - dense):
        raise ConfigError(f"text_config.mlp_layer_types = {types}: expected {layers} entries, the dense ones first")
    return dense
