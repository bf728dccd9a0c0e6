"""The open Inkling weights as variables of our model.

`TABLE` says which tensor of the reference (`transformers.models.inkling`, InklingForConditionalGeneration) fills which
of our parameters and how it is laid out anew. It is the whole mapping; the rest of the file walks through it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tml_jax.config import DMEL_LEVELS, MEL_BINS, PATCH, ModelConfig
from tml_jax.model.backbone import layer_plan

Layout = Callable[[np.ndarray, ModelConfig], np.ndarray]


def _same(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    return x


def _scalar(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    return x.reshape(())


def _transposed(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(…, out, in), as in torch.nn.Linear → (…, in, out)."""
    return np.swapaxes(x, -1, -2)


def _query_heads(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(heads · width, D) → (D, heads, width)."""
    return x.reshape(config.num_heads, -1, x.shape[-1]).transpose(2, 0, 1)


def _key_heads(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(kv heads · width, D) → (D, kv heads, width)."""
    return x.reshape(config.num_kv_heads, -1, x.shape[-1]).transpose(2, 0, 1)


def _from_heads(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(D, heads · width) → (heads, width, D)."""
    return x.T.reshape(config.num_heads, -1, x.shape[0])


def _taps(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(channels, 1, taps) → (taps, channels)."""
    return x[:, 0].T


def _gate_half(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    """(E, 2 · F, D), gate rows before up rows → (E, D, F)."""
    return _transposed(x[:, : x.shape[1] // 2], config)


def _up_half(x: np.ndarray, config: ModelConfig) -> np.ndarray:
    return _transposed(x[:, x.shape[1] // 2 :], config)


_LAYER = "model.language_model.layers.{layer}."
_MOE = _LAYER + "mlp."
_OWN = "params/backbone/{layer}/"
_TEXT = "model.language_model."
_FOLD = "model.vision_tower.encoder_layers.{fold}."

# Reference tensor, own parameter, layout. One tensor may fill two parameters. {layer} and {fold} run over all layers
# and folds; a row applies where the model has the parameter.
TABLE: tuple[tuple[str, str, Layout], ...] = (
    (_TEXT + "embed_tokens.weight", "params/inputs/text_table", _same),
    (_TEXT + "embed_tokens.embed_norm.weight", "params/inputs/text_norm/scale", _same),
    # Row of a (bin, level): bin · 16 + level, on both sides.
    ("model.audio_tower.embed_audio_tokens.embed_audio_tokens.weight", "params/inputs/audio_in/table", _same),
    ("model.audio_tower.norm.weight", "params/inputs/audio_in/norm/scale", _same),
    (_FOLD + "projection.weight", "params/inputs/video/fold_{fold}", _transposed),
    (_FOLD + "layer_norm.weight", "params/inputs/video/norm_{fold}/scale", _same),
    ("model.vision_tower.final_norm.weight", "params/inputs/video/final_norm/scale", _same),
    (_LAYER + "input_layernorm.weight", _OWN + "attention_norm/scale", _same),
    (_LAYER + "self_attn.q_proj.weight", _OWN + "attention/query", _query_heads),
    (_LAYER + "self_attn.k_proj.weight", _OWN + "attention/key", _key_heads),
    (_LAYER + "self_attn.v_proj.weight", _OWN + "attention/value", _key_heads),
    (_LAYER + "self_attn.r_proj.weight", _OWN + "attention/relative", _query_heads),
    (_LAYER + "self_attn.o_proj.weight", _OWN + "attention/out", _from_heads),
    (_LAYER + "self_attn.k_sconv.conv1d.weight", _OWN + "attention/key_conv/kernel", _taps),
    (_LAYER + "self_attn.v_sconv.conv1d.weight", _OWN + "attention/value_conv/kernel", _taps),
    (_LAYER + "self_attn.q_norm.weight", _OWN + "attention/query_norm/scale", _same),
    (_LAYER + "self_attn.k_norm.weight", _OWN + "attention/key_norm/scale", _same),
    (_LAYER + "self_attn.rel_logits_proj.proj", _OWN + "attention/relative_table", _same),
    (_LAYER + "attn_sconv.conv1d.weight", _OWN + "attention_conv/kernel", _taps),
    (_LAYER + "post_attention_layernorm.weight", _OWN + "mlp_norm/scale", _same),
    (_LAYER + "mlp_sconv.conv1d.weight", _OWN + "mlp_conv/kernel", _taps),
    (_MOE + "gate_proj.weight", _OWN + "mlp/gate", _transposed),
    (_MOE + "up_proj.weight", _OWN + "mlp/up", _transposed),
    (_MOE + "down_proj.weight", _OWN + "mlp/down", _transposed),
    (_MOE + "global_scale", _OWN + "mlp/global_scale", _scalar),
    # Rows of the router: routed experts, then shared ones, on both sides.
    (_MOE + "gate.weight", _OWN + "moe/router", _transposed),
    (_MOE + "gate.global_scale", _OWN + "moe/global_scale", _scalar),
    (_MOE + "gate.e_score_correction_bias", "balance/backbone/{layer}/moe/bias", _same),
    (_MOE + "experts.gate_up_proj", _OWN + "moe/expert_gate", _gate_half),
    (_MOE + "experts.gate_up_proj", _OWN + "moe/expert_up", _up_half),
    (_MOE + "experts.down_proj", _OWN + "moe/expert_down", _transposed),
    (_MOE + "shared_experts.gate_proj", _OWN + "moe/shared_gate", _transposed),
    (_MOE + "shared_experts.up_proj", _OWN + "moe/shared_up", _transposed),
    (_MOE + "shared_experts.down_proj", _OWN + "moe/shared_down", _transposed),
    (_TEXT + "norm.weight", "params/backbone/final_norm/scale", _same),
    ("lm_head.weight", "params/unembedding", _transposed),
)

# Parts of our model that the reference lacks: their parameters keep the values they had.
OWN_PARTS = ("params/inputs/own_audio/", "params/flow/")

# Folds that the reference plans for a number of stages, but for the last, which always covers the whole patch.
PLANNED_STAGES = {
    1: (),
    2: ((1, 10, 10, 320),),
    3: ((1, 5, 5, 128), (1, 20, 20, 1216)),
    4: ((1, 5, 5, 128), (1, 10, 10, 320), (1, 40, 40, 4800)),
    5: ((1, 5, 5, 128), (1, 10, 10, 320), (1, 20, 20, 1216), (1, 40, 40, 4800)),
}


@dataclasses.dataclass(frozen=True)
class Report:
    """What did not find its counterpart.

    Attributes:
      unmapped: tensors of the reference that fill nothing.
      unfilled: own parameters that no tensor filled, `path[period]` where periods are stacked. Those of `OWN_PARTS`
        are always among them.
    """

    unmapped: tuple[str, ...]
    unfilled: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Unfilled parameters that the reference should have filled."""
        return tuple(path for path in self.unfilled if not path.startswith(OWN_PARTS))


def counterparts(config: ModelConfig) -> Iterator[tuple[str, str, int | None, Layout]]:
    """The rows of `TABLE`, written out for every layer and fold.

    Args:
      config: the model.

    Yields:
      Name of the reference tensor; path of our parameter; its index where scanned periods are stacked, else None;
      layout. Rows that only another kind of layer has are among them.
    """
    before, periods, after = layer_plan(config)
    places: dict[int, tuple[str, int | None]] = {layer: (f"layer_{layer}", None) for layer in before + after}
    for period in range(periods):
        for offset in range(config.global_every):
            places[len(before) + period * config.global_every + offset] = (f"periods/layer_{offset}", period)
    for reference, own, layout in TABLE:
        if "{layer}" in reference:
            for layer, (place, period) in places.items():
                yield reference.format(layer=layer), own.format(layer=place), period, layout
        elif "{fold}" in reference:
            for fold in range(len(config.vision_stages)):
                yield reference.format(fold=fold), own.format(fold=fold), None, layout
        else:
            yield reference, own, None, layout


def from_torch_state(
    state_dict: Mapping[str, np.ndarray], config: ModelConfig, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], Report]:
    """Fills variables with the weights of the reference.

    Args:
      state_dict: tensors by the reference's names, as float32 arrays. May be lazy: each row of `TABLE` reads one.
      config: the model.
      variables: `{"params": …, "balance": …}` of `config`, for the shapes and for what the reference lacks.

    Returns:
      New variables of float32 numpy arrays, which may share memory with what was given; and what did not find its
      counterpart.

    Raises:
      ValueError: a tensor has not the size that `config` asks for.
    """
    own = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(variables, sep="/").items()}
    own |= {path: leaf.copy() for path, leaf in own.items() if "/periods/" in path}  # filled piece by piece
    unmapped, unfilled = set(state_dict), dict.fromkeys(_slots(own))
    for name, path, period, layout in counterparts(config):
        if name not in state_dict or path not in own:
            continue
        shape = own[path].shape if period is None else own[path].shape[1:]
        tensor = np.asarray(state_dict[name], np.float32)
        try:
            value = _checked(layout(tensor, config), shape)
        except ValueError as error:
            raise ValueError(
                f"{name} of shape {tensor.shape} cannot fill {path} of shape {shape}: "
                "give the configuration that the weights were made for"
            ) from error
        if period is None:
            own[path] = value
        else:
            own[path][period] = value
        unmapped.discard(name)
        unfilled.pop(_slot(path, period))
    filled = {collection: {} for collection in variables} | unflatten_dict(own, sep="/")  # keeps an empty `balance`
    return filled, Report(tuple(sorted(unmapped)), tuple(unfilled))


def inkling_config(config: ModelConfig) -> dict[str, dict[str, Any]]:
    """Arguments of the reference's configuration for the same architecture.

    Args:
      config: the model.

    Returns:
      `text_config`, `audio_config` and `vision_config`: keyword arguments of `transformers.InklingConfig`.

    Raises:
      ValueError: the reference cannot express `config`.
    """
    stages = tuple(map(tuple, config.vision_stages))
    if PLANNED_STAGES.get(len(stages)) != stages[:-1]:
        raise ValueError(f"vision_stages = {stages}: for a number of stages the reference only knows {PLANNED_STAGES}")
    if config.norm_eps != 1e-6:
        raise ValueError(f"norm_eps = {config.norm_eps}: the reference fixes 1e-6 in its audio and vision parts")
    layers = range(config.num_layers)
    text = dict(
        vocab_size=config.vocab_size,
        unpadded_vocab_size=config.text_vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        swa_num_attention_heads=config.num_heads,
        swa_num_key_value_heads=config.num_kv_heads,
        swa_head_dim=config.head_dim,
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
    frames, size, _, colours = PATCH
    audio = dict(n_mel_bins=MEL_BINS, mel_vocab_size=DMEL_LEVELS)
    vision = dict(
        patch_size=size, temporal_patch_size=frames, num_channels=colours, num_hidden_layers=len(config.vision_stages)
    )
    return {"text_config": text, "audio_config": audio, "vision_config": vision}


def _checked(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if x.shape != shape:
        raise ValueError(f"shape {x.shape} after the new layout")
    return x


def _slot(path: str, period: int | None) -> str:
    return path if period is None else f"{path}[{period}]"


def _slots(own: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Every parameter, those of scanned periods one by one."""
    for path, leaf in own.items():
        stacked = "/periods/" in path
        yield from (_slot(path, period) for period in (range(len(leaf)) if stacked else (None,)))
