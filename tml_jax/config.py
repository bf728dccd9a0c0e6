"""Configuration: frozen dataclasses that check every field when they are built.

A config file (see `configs/`) returns an `ml_collections.ConfigDict`; `from_mapping` turns it into a `Config`. A wrong
name, type or value raises `ConfigError`, which names the field, the value and the rule.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from tml_jax.tokens import Control

# Frame rates of the micro-turn. They are part of the architecture, not knobs: the data, the model and the
# serving clock all rest on them (see the README's figure of a micro-turn).
MICRO_TURN_SECONDS = 0.2
AUDIO_ELEMENTS = 4  # 50 ms audio elements in a micro-turn, in and out
MEL_BINS = 80
DMEL_LEVELS = 16
OWN_FRAMES = 5  # 10 ms mel frames in one 50 ms element of the model's own audio
INPUT_RATE = 16_000  # Hz, what the model hears
OUTPUT_RATE = 24_000  # Hz, what the model says
PATCH = (2, 40, 40, 3)  # frames, rows, columns, colours of one video patch
MESH_AXES = ("data", "fsdp", "expert", "sequence", "tensor")
BATCH_AXES = ("data", "fsdp", "expert")  # axes of the mesh over all of which the rows of a batch are split
STRIPE_AXES = (*BATCH_AXES, "sequence")  # … and the stripes of which rows are made, see `parallel.stripes`
REMAT = ("none", "dots", "kept", "block")  # see `TrainConfig.remat`; the fewer computed again, the more memory


class ConfigError(ValueError):
    """A field of the configuration is wrong: says which one, its value, and the rule."""


def _require(ok: bool, section: str, field: str, value: Any, rule: str) -> None:
    if not ok:
        raise ConfigError(f"config.{section}.{field} = {value!r}: {rule}")


def _require_positive(section: Any, name: str, *fields: str) -> None:
    for field in fields:
        value = getattr(section, field)
        _require(0 < value < math.inf, name, field, value, "must be greater than 0, and finite")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The interaction model. Field by field as in the open Inkling weights, then the parts this project adds.

    Attributes:
      d_model: width of the residual stream.
      num_layers: decoder layers, the first `num_dense_layers` with a dense MLP, the others with experts.
      num_dense_layers: see `num_layers`.
      global_every: every so many-th layer attends globally; the others see `window` elements.
      num_heads: query heads.
      num_kv_heads: key/value heads, a divisor of `num_heads`.
      head_dim: width of a head.
      sliding_heads: (query heads, key/value heads, width) of the sliding layers where they differ from the global ones;
        None where they do not.
      window: elements a sliding layer sees, itself included; also the extent of its relative bias.
      rel_extent: backward distance up to which global layers have a relative bias.
      d_rel: rank of the relative bias of a head.
      log_scaling_floor: elements seen from which on global layers sharpen logarithmically; None switches it off.
      log_scaling_alpha: strength of that sharpening.
      conv_kernel: taps of the short convolutions.
      dense_ffn: hidden width of the dense MLP.
      expert_ffn: hidden width of one expert.
      num_experts: routed experts.
      num_shared_experts: experts that every element uses.
      top_k: routed experts an element uses.
      route_scale: sum of the expert weights of one element.
      vocab_size: rows of the text tables.
      text_vocab_size: rows that hold text; control tokens take the first rows after them.
      logit_divisor: muP width multiplier, by which the final hidden state is divided.
      norm_eps: epsilon of every RMSNorm.
      vision_stages: (frames, rows, columns, channels) covered by one cell after each fold of the patch network;
        the last stage covers the whole patch and has d_model channels whatever it says.
      flow_width: width of the flow head, at least the 400 numbers of one own-audio element.
      flow_blocks: residual blocks of the flow head.
      flow_steps: Euler steps from noise to mel when speaking.
      flow_temperature: scale of the noise when speaking.
      max_text_out: most text tokens a micro-turn may put out before its gate.
    """

    d_model: int
    num_layers: int
    num_dense_layers: int
    global_every: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int
    rel_extent: int
    dense_ffn: int
    expert_ffn: int
    num_experts: int
    num_shared_experts: int
    top_k: int
    vocab_size: int
    text_vocab_size: int
    vision_stages: tuple[tuple[int, int, int, int], ...]
    flow_width: int
    flow_blocks: int
    sliding_heads: tuple[int, int, int] | None = None
    d_rel: int = 16
    log_scaling_floor: int | None = None
    log_scaling_alpha: float = 0.1
    conv_kernel: int = 4
    route_scale: float = 8.0
    logit_divisor: float = 1.0
    norm_eps: float = 1e-6
    flow_steps: int = 4
    flow_temperature: float = 0.7
    max_text_out: int = 4

    def __post_init__(self) -> None:
        check = lambda ok, field, rule: _require(ok, "model", field, getattr(self, field), rule)  # noqa: E731
        _require_positive(
            self, "model", "d_model", "num_layers", "global_every", "num_heads", "num_kv_heads", "head_dim", "window",
            "rel_extent", "d_rel", "conv_kernel", "dense_ffn", "expert_ffn", "num_experts", "num_shared_experts",
            "top_k", "vocab_size", "text_vocab_size", "logit_divisor", "norm_eps", "flow_blocks", "flow_steps",
            "max_text_out", "route_scale",
        )  # fmt: skip
        check(0 <= self.num_dense_layers <= self.num_layers, "num_dense_layers", "must lie in 0 … num_layers")
        check(self.num_heads % self.num_kv_heads == 0, "num_kv_heads", f"must divide num_heads = {self.num_heads}")
        if self.sliding_heads is not None:
            heads, kv_heads, width = self.sliding_heads
            whole = min(heads, kv_heads, width) > 0 and heads % kv_heads == 0
            check(whole, "sliding_heads", "three numbers above 0, the second a divisor of the first")
        check(self.top_k <= self.num_experts, "top_k", f"must be at most num_experts = {self.num_experts}")

        spare = self.vocab_size - self.text_vocab_size
        check(
            spare >= len(Control), "vocab_size", f"needs {len(Control)} rows past text_vocab_size, for control tokens"
        )
        check(self.log_scaling_floor is None or self.log_scaling_floor > 0, "log_scaling_floor", "None, or above 0")
        check(self.flow_width >= OWN_FRAMES * MEL_BINS, "flow_width", f"must be at least {OWN_FRAMES * MEL_BINS}")
        check(self.flow_temperature >= 0, "flow_temperature", "must not be negative")
        self._check_vision()

    def _check_vision(self) -> None:
        check = lambda ok, rule: _require(ok, "model", "vision_stages", self.vision_stages, rule)  # noqa: E731
        check(len(self.vision_stages) > 0, "needs at least one stage")
        previous = (1, 1, 1)
        for stage in self.vision_stages:
            check(len(stage) == 4 and all(size > 0 for size in stage), "each stage is four numbers above 0")
            folds = [(size % before, size // before) for size, before in zip(stage, previous)]
            check(all(rest == 0 for rest, _ in folds), "each stage covers a multiple of the one before")
            check(folds[1][1] == folds[2][1], "rows and columns fold alike")
            previous = stage[:3]
        check(previous == PATCH[:3], f"the last stage covers the whole patch {PATCH[:3]}")

    @property
    def logits_size(self) -> int:
        """Number of logits: the text rows and the control rows behind them."""
        return self.text_vocab_size + len(Control)

    def is_global(self, layer: int) -> bool:
        """Whether `layer` (counted from 0) attends globally."""
        return (layer + 1) % self.global_every == 0

    def heads(self, is_global: bool) -> tuple[int, int, int]:
        """(query heads, key/value heads, width of a head) of a kind of layer."""
        everywhere = (self.num_heads, self.num_kv_heads, self.head_dim)
        return everywhere if is_global or self.sliding_heads is None else self.sliding_heads

    def is_dense(self, layer: int) -> bool:
        """Whether `layer` (counted from 0) has a dense MLP rather than experts."""
        return layer < self.num_dense_layers


@dataclasses.dataclass(frozen=True)
class PackingConfig:
    """Shape of one packed row. Every batch of a run has the same shapes, so that one compiled step serves all.

    Attributes:
      elements: positions of a row.
      audio_in: heard 50 ms elements that a row can hold.
      video: video patches that a row can hold.
      audio_out: spoken 50 ms elements that a row can hold.
      outputs: output tokens (text and gates) that a row can hold.
      segments: conversations that a row can hold.
    """

    elements: int
    audio_in: int
    video: int
    audio_out: int
    outputs: int
    segments: int

    def __post_init__(self) -> None:
        _require_positive(self, "data.packing", *(field.name for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """One source of the training mixture.

    Attributes:
      path: folder of ArrayRecord shards, below `data.directory`.
      weight: share of the packed records that come from it, relative to the other sources.
    """

    path: str
    weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where conversations come from and how they become batches.

    Attributes:
      directory: folder of the sources; relative paths start at the working directory.
      sources: name → source of the training mixture.
      held_out: folder of the held-out conversations, below `directory`.
      generate: scenes to generate for each source that is not there yet, by name; `held_out` names the held-out set.
      packing: shape of one packed row.
      batch_size: rows of the global batch.
      video_grid: patches down and across a frame.
      workers: processes that build batches (0: in the training process).
      prefetch: batches that each worker keeps ready.
      seed: seed of generation, shuffling and packing.
      clips: folder of videos that lie behind the pictures of generated scenes, see `scenes/clips.py`; "" for none.
    """

    directory: str
    sources: Mapping[str, SourceConfig]
    packing: PackingConfig
    batch_size: int
    held_out: str = "held_out"
    generate: Mapping[str, int] = dataclasses.field(default_factory=dict)
    video_grid: tuple[int, int] = (1, 1)
    workers: int = 1
    prefetch: int = 4
    seed: int = 0
    clips: str = ""

    def __post_init__(self) -> None:
        _require_positive(self, "data", "batch_size", "prefetch")
        mounted = "must be a folder; mount a bucket as one"  # pathlib would make a folder named `gs:` of its address
        _require("://" not in self.directory, "data", "directory", self.directory, mounted)
        _require(bool(self.sources), "data", "sources", dict(self.sources), "needs at least one source")
        for name, source in self.sources.items():
            _require(bool(source.path), f"data.sources.{name}", "path", source.path, "must name a folder")
            _require(source.weight > 0, f"data.sources.{name}", "weight", source.weight, "must be greater than 0")
        _require(self.workers >= 0, "data", "workers", self.workers, "must not be negative")
        _require(0 <= self.seed < 2**32, "data", "seed", self.seed, "must lie in 0 … 2³² − 1")
        for name, count in self.generate.items():
            _require(count > 0, "data.generate", name, count, "must be greater than 0; leave the source out instead")
        grid_ok = len(self.video_grid) == 2 and min(self.video_grid) > 0
        _require(grid_ok, "data", "video_grid", self.video_grid, "two numbers above 0: patches down and across")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Optimisation, evaluation and checkpoints.

    Attributes:
      steps: optimiser steps of the run.
      learning_rate: peak learning rate.
      warmup_steps: linear warm-up.
      schedule: `cosine`, `linear` or `constant` after the warm-up; the first two end at `final_rate` of the peak.
      final_rate: see `schedule`.
      weight_decay: AdamW decay of matrices.
      beta2: AdamW second-moment decay.
      clip_norm: global norm to which gradients are clipped.
      accumulate: microbatches whose gradients are averaged before an update; divides `data.batch_size`.
      compute_dtype: `bfloat16` or `float32`: activations and matrix products.
      moment_dtype: dtype of AdamW's first moment.
      remat: what the backward pass computes again of a layer: `none`; `dots`, what is no product of matrices; `kept`,
        what `tml_jax.remat.keep` does not mark, which is the routed experts, keys, values and all that is cheap;
        `block`, everything.
      flow_weight: weight of the flow-matching loss beside cross-entropy.
      flow_draws: noise and time draws for each own-audio element.
      text_weight: weight of text tokens in the cross-entropy, gates counting 1.
      own_audio_noise: standard deviation, in dMel levels, of the noise on own-audio inputs.
      own_audio_drop: share of own-audio frames that training hides from the input.
      balance_rate: step of the router's correction bias against the load.
      checkpoint_every: steps between checkpoints.
      keep: checkpoints kept.
      eval_every: steps between evaluations on held-out conversations.
      eval_batches: packed batches of one such evaluation.
      log_every: steps between lines of progress.
      init_from: checkpoint to start from, or "".
      seed: seed of initialisation and of every draw in training.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    schedule: str = "cosine"
    final_rate: float = 0.1
    weight_decay: float = 0.1
    beta2: float = 0.95
    clip_norm: float = 1.0
    accumulate: int = 1
    compute_dtype: str = "float32"
    moment_dtype: str = "float32"
    remat: str = "none"
    flow_weight: float = 1.0
    flow_draws: int = 4
    text_weight: float = 1.0
    own_audio_noise: float = 0.5
    own_audio_drop: float = 0.05
    balance_rate: float = 1e-3
    checkpoint_every: int = 200
    keep: int = 2
    eval_every: int = 200
    eval_batches: int = 8
    log_every: int = 10
    init_from: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        check = lambda ok, field, rule: _require(ok, "train", field, getattr(self, field), rule)  # noqa: E731
        _require_positive(
            self, "train", "steps", "learning_rate", "clip_norm", "accumulate", "flow_draws", "checkpoint_every",
            "keep", "eval_every", "eval_batches", "log_every",
        )  # fmt: skip
        check(0 <= self.warmup_steps <= self.steps, "warmup_steps", f"must lie in 0 … steps = {self.steps}")
        check(self.schedule in ("cosine", "linear", "constant"), "schedule", "one of cosine, linear, constant")
        for field in ("compute_dtype", "moment_dtype"):
            check(getattr(self, field) in ("float32", "bfloat16"), field, "one of float32, bfloat16")
        check(self.remat in REMAT, "remat", f"one of {', '.join(REMAT)}")
        check(0 < self.beta2 < 1, "beta2", "must lie between 0 and 1")
        check(0 <= self.final_rate <= 1, "final_rate", "must lie in 0 … 1")
        check(0 <= self.own_audio_drop < 1, "own_audio_drop", "must lie in 0 … 1, 1 excluded")
        check(0 <= self.seed < 2**32, "seed", "must lie in 0 … 2³² − 1")
        for field in ("weight_decay", "flow_weight", "text_weight", "own_audio_noise", "balance_rate"):
            check(0 <= getattr(self, field) < math.inf, field, "must not be negative, and finite")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; -1 for at most one axis takes what is left.

    Attributes:
      data: replicas that share nothing but gradients (the axis to lay over slices).
      fsdp: devices over which parameters and batch are split, parameters gathered for use.
      expert: devices over which experts are split, and the batch too.
      sequence: devices over which every row is split, parameters too: for rows too long for one, see
        `parallel.stripes`. Training only.
      tensor: devices over which heads and hidden widths are split.
      transport: how tokens reach experts on other devices, see `parallel.transport`: `ring`, `ragged` or `capacity`.
      capacity: room for tokens on the way, in parts of what an even load needs; what exceeds it is dropped and
        counted. 0 makes room for any load.
    """

    data: int = 1
    fsdp: int = 1
    expert: int = 1
    sequence: int = 1
    tensor: int = 1
    transport: str = "ragged"
    capacity: float = 0.0

    def __post_init__(self) -> None:
        for axis in MESH_AXES:
            value = getattr(self, axis)
            _require(value > 0 or value == -1, "mesh", axis, value, "must be above 0, or -1 for what is left")
        known = ("ring", "ragged", "capacity")
        _require(self.transport in known, "mesh", "transport", self.transport, f"one of {', '.join(known)}")
        _require(0 <= self.capacity < math.inf, "mesh", "capacity", self.capacity, "must not be negative, and finite")
        free = [axis for axis in MESH_AXES if getattr(self, axis) == -1]
        _require(len(free) <= 1, "mesh", ", ".join(free), -1, "only one axis can take what is left")


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """A streaming session.

    Attributes:
      context: elements that global layers see; older ones are forgotten.
      max_text_in: typed tokens that one micro-turn can take in; the rest waits for the next.
      mesh: devices that serve; one where all its axes are 1.
      dtype: `float32` or `bfloat16`: activations, matrix products, keys and values.
      weights: `whole`, or `int8` to keep the routed experts in eight bits.
      delegate: whether the model may hand tasks to a background model; `launch.serve --background` sets it.
    """

    context: int
    max_text_in: int = 8
    mesh: MeshConfig = MeshConfig()
    dtype: str = "float32"
    weights: str = "whole"
    delegate: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "serve", "context", "max_text_in")
        _require(self.dtype in ("float32", "bfloat16"), "serve", "dtype", self.dtype, "one of float32, bfloat16")
        _require(self.weights in ("whole", "int8"), "serve", "weights", self.weights, "one of whole, int8")
        stripes = self.mesh.sequence
        _require(stripes == 1, "serve.mesh", "sequence", stripes, "must be 1: it splits the rows of training")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything about a run. `name` labels it in logs and tables."""

    name: str
    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    serve: ServeConfig
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        rows, accumulate = self.data.batch_size, self.train.accumulate
        _require(rows % accumulate == 0, "train", "accumulate", accumulate, f"must divide data.batch_size = {rows}")
        axes = {
            "tensor": {"model.num_kv_heads": self.model.num_kv_heads,
                       "model.sliding_heads[1]": self.model.heads(is_global=False)[1],
                       "model.expert_ffn": self.model.expert_ffn, "model.dense_ffn": self.model.dense_ffn,
                       "model.vocab_size": self.model.vocab_size},
            "expert": {"model.num_experts": self.model.num_experts},
            "fsdp": {"model.d_model": self.model.d_model},
        }  # fmt: skip
        for axis, sizes in axes.items():
            parts = getattr(self.mesh, axis)
            for field, size in sizes.items():
                _require(parts == -1 or size % parts == 0, "mesh", axis, parts, f"must divide {field} = {size}")
        if self.mesh.sequence != -1:
            self.check_stripes(self.mesh.sequence, self.mesh.fsdp)
        shards = [getattr(self.mesh, axis) for axis in BATCH_AXES]
        if -1 not in shards:
            self.check_rows(math.prod(shards))

    def check_rows(self, shards: int) -> None:
        """Makes sure that the rows of a microbatch can be split evenly.

        Args:
          shards: parts, the product of the sizes of `BATCH_AXES`.

        Raises:
          ConfigError: they cannot.
        """
        rows, accumulate = self.data.batch_size, self.train.accumulate
        rule = f"must be a multiple of {' × '.join(f'mesh.{axis}' for axis in BATCH_AXES)} × train.accumulate = "
        parts = shards * accumulate
        _require(rows % parts == 0, "data", "batch_size", rows, f"{rule}{shards} × {accumulate} = {parts}")

    def check_stripes(self, stripes: int, fsdp: int) -> None:
        """Makes sure that rows can be split evenly into stripes, and parameters over them and `fsdp`.

        Args:
          stripes: of a row, the size of the mesh axis `sequence`.
          fsdp: the size of that axis; -1 where it is not known yet.

        Raises:
          ConfigError: they cannot.
        """
        check = lambda ok, rule: _require(ok, "mesh", "sequence", stripes, rule)  # noqa: E731
        packing, width, taps = self.data.packing, self.model.d_model, self.model.conv_kernel
        for field in ("elements", "audio_in", "video", "audio_out", "outputs"):
            size = getattr(packing, field)
            check(size % stripes == 0, f"must divide data.packing.{field} = {size}")
        length = packing.elements // stripes
        check(stripes == 1 or length >= taps - 1, f"leaves stripes of {length} elements, fewer than the {taps - 1} "
              "that a convolution looks back")  # fmt: skip
        parts = stripes * max(fsdp, 1)
        check(width % parts == 0, f"times mesh.fsdp, {parts}, must divide model.d_model = {width}")


def from_mapping(mapping: Mapping[str, Any]) -> Config:
    """Builds a `Config` from nested mappings.

    Args:
      mapping: what a config file's `get_config()` returns, as a ConfigDict or plain dicts.

    Returns:
      The checked configuration.

    Raises:
      ConfigError: a field is unknown, missing, of the wrong type, or breaks a rule.
    """
    if hasattr(mapping, "to_dict"):
        mapping = mapping.to_dict()
    return _build(Config, mapping, "config")


def to_mapping(config: Config) -> dict[str, Any]:
    """The inverse of `from_mapping`: nested plain dicts and lists, fit for JSON."""
    return dataclasses.asdict(config)


def _build(kind: Any, value: Any, path: str) -> Any:
    """Converts `value` to the annotated type `kind`, strictly."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, path)
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        return _build(next(a for a in arguments if a is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ConfigError(f"{path} = {value!r}: must be a sequence")
        if arguments[-1] is Ellipsis:
            return tuple(_build(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value))
        if len(value) != len(arguments):
            raise ConfigError(f"{path} = {value!r}: must have {len(arguments)} items")
        return tuple(_build(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(arguments, value)))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{path} = {value!r}: must be a mapping")
        return {key: _build(arguments[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{path} = {value!r}: must be of type {kind.__name__}")
    return value


def _build_dataclass(kind: Any, value: Any, path: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path} = {value!r}: must be a mapping of fields")
    hints = typing.get_type_hints(kind)
    for name in value:
        if name not in hints:
            raise ConfigError(f"{path}.{name} = {value[name]!r}: no such field; there are {', '.join(hints)}")
    for field in dataclasses.fields(kind):
        optional = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        if field.name not in value and not optional:
            raise ConfigError(f"{path}.{field.name} is missing: give a {field.type}")
    return kind(**{name: _build(hints[name], item, f"{path}.{name}") for name, item in value.items()})
