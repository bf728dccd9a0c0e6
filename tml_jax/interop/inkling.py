"""The open Inkling weights as variables of our model: which tensor fills which parameter, and how it is laid out anew.

The same weights are written in two spellings. RELEASE is what lies on disk, in the release and after `save_pretrained`:
gate and up projections of a feed-forward in one tensor, row by row in turn. MODULES is how the modules of the reference
(`transformers.models.inkling`) name them in memory. `BACKBONE` is MODULES of the text model alone, InklingForCausalLM.

`ONE_TO_ONE` and `FUSED` are the whole mapping; the rest of the file walks through them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from tml_jax.config import ModelConfig
from tml_jax.model.backbone import layer_plan

RELEASE, MODULES, BACKBONE = "release", "modules", "backbone"

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a tensor of the reference becomes one or two parameters of the same shape, and back.

    Attributes:
      ours: (tensor, shape of the parameter) → the parameters.
      theirs: parameters → the tensor.
      shape: shape of the parameter → shape of the tensor.
      axis: axis of the parameters along which the tensor's first axis lies, so that a run of its rows can be laid out
        by itself; None where the tensor is laid out whole.
      rows: rows of the tensor for one index of that axis.
    """

    ours: Callable[[np.ndarray, Shape], tuple[np.ndarray, ...]]
    theirs: Callable[..., np.ndarray]
    shape: Callable[[Shape], Shape]
    axis: int | None = None
    rows: int = 1


def _halves(x: np.ndarray, shape: Shape) -> tuple[np.ndarray, ...]:
    return tuple(np.swapaxes(half, 1, 2) for half in np.split(x, 2, axis=1))


def _in_turn(x: np.ndarray, shape: Shape) -> tuple[np.ndarray, ...]:
    return tuple(np.swapaxes(x[..., first::2, :], -1, -2) for first in (0, 1))


def _woven(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    rows = np.stack([np.swapaxes(gate, -1, -2), np.swapaxes(up, -1, -2)], axis=-2)  # (…, F, 2, D)
    return rows.reshape(*rows.shape[:-3], -1, rows.shape[-1])


SAME = Layout(lambda x, s: (x,), lambda x: x, lambda s: s, axis=0)
SCALAR = Layout(lambda x, s: (x.reshape(()),), lambda x: x.reshape(1), lambda s: (1,))
LINEAR = Layout(lambda x, s: (x.T,), lambda x: x.T, lambda s: s[::-1], axis=1)  # (out, in) of torch → (in, out)
EXPERTS = Layout(  # (E, out, in) → (E, in, out)
    lambda x, s: (np.swapaxes(x, 1, 2),), lambda x: np.swapaxes(x, 1, 2), lambda s: (s[0], s[2], s[1]), axis=0
)
TO_HEADS = Layout(  # (heads · width, D) → (D, heads, width)
    lambda x, s: (x.reshape(*s[1:], s[0]).transpose(2, 0, 1),),
    lambda x: x.transpose(1, 2, 0).reshape(-1, x.shape[0]),
    lambda s: (s[1] * s[2], s[0]),
)
FROM_HEADS = Layout(  # (D, heads · width) → (heads, width, D)
    lambda x, s: (x.T.reshape(s),), lambda x: x.reshape(-1, x.shape[-1]).T, lambda s: (s[2], s[0] * s[1])
)
TAPS = Layout(  # (channels, 1, taps) → (taps, channels)
    lambda x, s: (x[:, 0].T,), lambda x: x.T[:, None], lambda s: (s[1], 1, s[0])
)
HALVES = Layout(  # (E, 2 · F, D), gate rows before up rows → gate and up (E, D, F)
    _halves,
    lambda gate, up: np.concatenate([np.swapaxes(gate, 1, 2), np.swapaxes(up, 1, 2)], axis=1),
    lambda s: (s[0], 2 * s[2], s[1]),
    axis=0,
)
IN_TURN_EXPERTS = Layout(_in_turn, _woven, lambda s: (s[0], 2 * s[2], s[1]), axis=0)  # rows gate, up, gate, up, …
IN_TURN = Layout(_in_turn, _woven, lambda s: (2 * s[1], s[0]), axis=1, rows=2)  # (2 · F, D) → gate and up (D, F)

_LLM, _LLM_MODULE = "model.llm.", "model.language_model."
_LAYER, _LAYER_MODULE = _LLM + "layers.{layer}.", _LLM_MODULE + "layers.{layer}."
_OWN = "params/backbone/{layer}/"
_SIGHT, _SIGHT_MODULE = "model.visual.", "model.vision_tower."

# Tensor on disk, the same in memory, own parameter, layout. {layer} and {fold} run over all layers and folds; a row
# applies where the model has the parameter. Rows of the audio table are bin · 16 + level on both sides, and those of
# the router the routed experts before the shared ones.
ONE_TO_ONE: tuple[tuple[str, str, str, Layout], ...] = (
    (_LLM + "embed.weight", _LLM_MODULE + "embed_tokens.weight", "params/inputs/text_table", SAME),
    (
        _LLM + "embed_norm.weight", _LLM_MODULE + "embed_tokens.embed_norm.weight",
        "params/inputs/text_norm/scale", SAME,
    ),
    (
        "model.audio.encoder.weight", "model.audio_tower.embed_audio_tokens.embed_audio_tokens.weight",
        "params/inputs/audio_in/table", SAME,
    ),
    (
        "model.audio.final_norm.weight", "model.audio_tower.norm.weight",
        "params/inputs/audio_in/norm/scale", SAME,
    ),
    (
        _SIGHT + "layers.linear_{fold}.weight", _SIGHT_MODULE + "encoder_layers.{fold}.projection.weight",
        "params/inputs/video/fold_{fold}", LINEAR,
    ),
    (
        _SIGHT + "layers.norm_{fold}.weight", _SIGHT_MODULE + "encoder_layers.{fold}.layer_norm.weight",
        "params/inputs/video/norm_{fold}/scale", SAME,
    ),
    (
        _SIGHT + "final_norm.weight", _SIGHT_MODULE + "final_norm.weight",
        "params/inputs/video/final_norm/scale", SAME,
    ),
    *(
        (_LAYER + release, _LAYER_MODULE + module, _OWN + own, layout)
        for release, module, own, layout in (
            ("attn_norm.weight", "input_layernorm.weight", "attention_norm/scale", SAME),
            ("attn.wq_du.weight", "self_attn.q_proj.weight", "attention/query", TO_HEADS),
            ("attn.wk_dv.weight", "self_attn.k_proj.weight", "attention/key", TO_HEADS),
            ("attn.wv_dv.weight", "self_attn.v_proj.weight", "attention/value", TO_HEADS),
            ("attn.wr_du.weight", "self_attn.r_proj.weight", "attention/relative", TO_HEADS),
            ("attn.wo_ud.weight", "self_attn.o_proj.weight", "attention/out", FROM_HEADS),
            ("attn.k_sconv.weight", "self_attn.k_sconv.conv1d.weight", "attention/key_conv/kernel", TAPS),
            ("attn.v_sconv.weight", "self_attn.v_sconv.conv1d.weight", "attention/value_conv/kernel", TAPS),
            ("attn.q_norm.weight", "self_attn.q_norm.weight", "attention/query_norm/scale", SAME),
            ("attn.k_norm.weight", "self_attn.k_norm.weight", "attention/key_norm/scale", SAME),
            ("attn.rel_logits_proj.proj", "self_attn.rel_logits_proj.proj", "attention/relative_table", SAME),
            ("attn_sconv.weight", "attn_sconv.conv1d.weight", "attention_conv/kernel", TAPS),
            ("mlp_norm.weight", "post_attention_layernorm.weight", "mlp_norm/scale", SAME),
            ("mlp_sconv.weight", "mlp_sconv.conv1d.weight", "mlp_conv/kernel", TAPS),
            ("mlp.w2_md.weight", "mlp.down_proj.weight", "mlp/down", LINEAR),
            ("mlp.global_scale", "mlp.global_scale", "mlp/global_scale", SCALAR),
            ("mlp.gate.weight", "mlp.gate.weight", "moe/router", LINEAR),
            ("mlp.gate.global_scale", "mlp.gate.global_scale", "moe/global_scale", SCALAR),
            ("mlp.experts.w2_weight", "mlp.experts.down_proj", "moe/expert_down", EXPERTS),
            (
                "mlp.shared_experts.shared_w2_weight", "mlp.shared_experts.down_proj",
                "moe/shared_down", EXPERTS,
            ),
        )
    ),
    (
        _LAYER + "mlp.gate.bias", _LAYER_MODULE + "mlp.gate.e_score_correction_bias",
        "balance/backbone/{layer}/moe/bias", SAME,
    ),
    (_LLM + "norm.weight", _LLM_MODULE + "norm.weight", "params/backbone/final_norm/scale", SAME),
    (_LLM + "unembed.weight", "lm_head.weight", "params/unembedding", LINEAR),
)  # fmt: skip

# Tensor, own parameters, layout: the feed-forwards, which the spellings fuse in different ways.
_GATED, _EXPERT, _SHARED = (
    (_OWN + first, _OWN + second)
    for first, second in (
        ("mlp/gate", "mlp/up"), ("moe/expert_gate", "moe/expert_up"), ("moe/shared_gate", "moe/shared_up"),
    )
)  # fmt: skip
FUSED: dict[str, tuple[tuple[str, tuple[str, ...], Layout], ...]] = {
    RELEASE: (
        (_LAYER + "mlp.w13_dn.weight", _GATED, IN_TURN),
        (_LAYER + "mlp.experts.w13_weight", _EXPERT, IN_TURN_EXPERTS),
        (_LAYER + "mlp.shared_experts.shared_w13_weight", _SHARED, IN_TURN_EXPERTS),
    ),
    MODULES: (
        (_LAYER_MODULE + "mlp.gate_proj.weight", _GATED[:1], LINEAR),
        (_LAYER_MODULE + "mlp.up_proj.weight", _GATED[1:], LINEAR),
        (_LAYER_MODULE + "mlp.experts.gate_up_proj", _EXPERT, HALVES),
        (_LAYER_MODULE + "mlp.shared_experts.gate_proj", _SHARED[:1], EXPERTS),
        (_LAYER_MODULE + "mlp.shared_experts.up_proj", _SHARED[1:], EXPERTS),
    ),
}

# Parts of our model that the reference lacks: their parameters keep the values they had.
OWN_PARTS = ("params/inputs/own_audio/", "params/flow/")
# Parts of the reference that our model lacks: its layers for predicting several tokens at once.
MTP = "model.mtp."


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """A tensor and the parameters it fills.

    Attributes:
      tensor: name of the tensor.
      shape: of the tensor.
      parameters: paths of our parameters, joined by "/".
      period: their index where scanned periods are stacked, else None.
      parameter_shape: of each of them, without the axis of the periods.
      layout: between the two.
    """

    tensor: str
    shape: Shape
    parameters: tuple[str, ...]
    period: int | None
    parameter_shape: Shape
    layout: Layout


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


def spelling_of(names: Iterable[str]) -> str:
    """RELEASE or MODULES, by the names of the tensors."""
    return RELEASE if any(name.startswith(_LLM) for name in names) else MODULES


def counterparts(config: ModelConfig, shapes: Mapping[str, Shape], spelling: str) -> Iterator[Counterpart]:
    """The mapping, written out for every layer and fold that the model has.

    Args:
      config: the model.
      shapes: path → shape of its parameters.
      spelling: RELEASE, MODULES or BACKBONE.

    Yields:
      Every tensor with the parameters it fills.
    """
    before, periods, after = layer_plan(config)
    places: list[tuple[int, str, int | None]] = [(layer, f"layer_{layer}", None) for layer in before + after]
    for period in range(periods):
        for offset in range(config.global_every):
            places.append((len(before) + period * config.global_every + offset, f"periods/layer_{offset}", period))
    folds = [(fold, str(fold), None) for fold in range(len(config.vision_stages))]
    first = spelling == RELEASE
    rows = [(release if first else module, (own,), layout) for release, module, own, layout in ONE_TO_ONE]
    rows += FUSED[RELEASE if first else MODULES]
    for tensor, parameters, layout in rows:
        kind = next((kind for kind in ("layer", "fold") if f"{{{kind}}}" in tensor), "")
        for number, place, period in {"layer": sorted(places), "fold": folds, "": [(0, "", None)]}[kind]:
            own = tuple(path.format(**{kind: place}) if kind else path for path in parameters)
            if own[0] not in shapes:
                continue
            name = tensor.format(**{kind: number}) if kind else tensor
            if spelling == BACKBONE:
                if name.startswith("model.") and not name.startswith(_LLM_MODULE):
                    continue  # the towers of the inputs
                name = name.replace(_LLM_MODULE, "model.")
            shape = shapes[own[0]] if period is None else shapes[own[0]][1:]
            yield Counterpart(name, layout.shape(shape), own, period, shape, layout)


def from_tensors(
    tensors: Mapping[str, np.ndarray], config: ModelConfig, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], Report]:
    """Fills variables with the weights of the reference, in memory; `convert.from_release` does it on disk.

    Args:
      tensors: by the reference's names, in either spelling. May be lazy: each is read once.
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
    unmapped, unfilled = set(tensors), dict.fromkeys(_slots(own))
    shapes = {path: leaf.shape for path, leaf in own.items()}
    for part in counterparts(config, shapes, spelling_of(tensors)):
        if part.tensor not in tensors:
            continue
        tensor = np.asarray(tensors[part.tensor], np.float32)
        if tensor.shape != part.shape:
            raise ValueError(
                f"{part.tensor} of shape {tensor.shape} cannot fill {' and '.join(part.parameters)}, which takes "
                f"{part.shape}: give the configuration that the weights were made for"
            )
        for path, value in zip(part.parameters, part.layout.ours(tensor, part.parameter_shape)):
            if part.period is None:
                own[path] = value
            else:
                own[path][part.period] = value
            unfilled.pop(slot(path, part.period))
        unmapped.discard(part.tensor)
    filled = {collection: {} for collection in variables} | unflatten_dict(own, sep="/")  # keeps an empty `balance`
    return filled, Report(tuple(sorted(unmapped)), tuple(unfilled))


def slot(path: str, period: int | None) -> str:
    """Name of a parameter, or of one period of a stack of them."""
    return path if period is None else f"{path}[{period}]"


def _slots(own: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Every parameter, those of scanned periods one by one."""
    for path, leaf in own.items():
        stacked = "/periods/" in path
        yield from (slot(path, period) for period in (range(len(leaf)) if stacked else (None,)))
