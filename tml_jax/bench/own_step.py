"""Our train step: the same work as the reference's, and the whole of it."""

import dataclasses
from typing import Any

import jax
import numpy as np

from tml_jax.bench.batches import full_batch, text_batch
from tml_jax.config import Config, MeshConfig, ModelConfig
from tml_jax.interop.inkling import from_tensors
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.parallel.compile_options import compiler_options
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train.optimizer import make_optimizer
from tml_jax.train.step import Train, TrainState, make_train

_TEXT_INPUTS = ("text_table", "text_norm")


class OwnStep:
    """One run of ours. Called, it takes one step and returns its loss."""

    def __init__(self, train: Train, state: TrainState, batch: Any, step: Any) -> None:
        """Args: functions of the run, its state, the batch of every step, and the compiled step."""
        self._state, self._step, self._batch = state, step, train.put_batch(batch)

    def __call__(self) -> float:
        """Forward and backward pass, clipping and optimiser. Returns the loss before the step."""
        self._state, metrics = self._step(self._state, self._batch)
        return float(jax.block_until_ready(metrics)["loss"])

    @property
    def parameters(self) -> int:
        """Numbers that the optimiser moves."""
        return sum(x.size for x in jax.tree.leaves(self._state.params))


def text_step(config: Config, tokens: np.ndarray, weights: dict[str, np.ndarray]) -> OwnStep:
    """The step of the train loop on text alone, without the parts that text does not pass through.

    Args:
      config: the run.
      tokens: (B, T) int, one conversation of text in each row.
      weights: of the reference, by its names.

    Returns:
      The step, from those weights.

    Raises:
      ValueError: weights of the reference have no counterpart here, or the other way round.
    """
    train = _on_this_device(config)
    variables = text_variables(config.model, weights)
    params, balance = jax.device_put((variables["params"], variables["balance"]))
    state = TrainState(np.zeros((), np.int32), params, balance, make_optimizer(config.train).init(params))
    # The same function, compiled for fewer parameters.
    step = jax.jit(train.step.__wrapped__, donate_argnums=0, compiler_options=compiler_options("cpu"))
    return OwnStep(train, state, text_batch(tokens, config), step)


def text_variables(model: ModelConfig, weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Weights of the reference as variables of ours, without the parts that text does not pass through.

    Args:
      model: sizes.
      weights: of the reference, by its names.

    Returns:
      {"params", "balance"}, numpy arrays.

    Raises:
      ValueError: weights of the reference have no counterpart here, or the other way round.
    """
    shapes = jax.eval_shape(lambda key: init_variables(InteractionModel(model), key), jax.random.key(0))
    variables, report = from_tensors(
        {name.replace("model.", "model.language_model.", 1): x for name, x in weights.items()},
        model,
        jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes),
    )
    if wrong := [*report.unmapped, *(path for path in report.missing if not path.startswith("params/inputs"))]:
        raise ValueError(f"weights of the reference and ours do not match: {', '.join(wrong)}")
    params = {name: variables["params"][name] for name in ("backbone", "unembedding")}
    params["inputs"] = {name: variables["params"]["inputs"][name] for name in _TEXT_INPUTS}
    return {"params": params, "balance": variables["balance"]}


def whole_step(config: Config) -> OwnStep:
    """The step of the train loop as it is, on rows that hold every stream."""
    train = _on_this_device(config)
    return OwnStep(train, train.init(config.train.seed), full_batch(config), train.step)


def _on_this_device(config: Config) -> Train:
    config = dataclasses.replace(config, mesh=MeshConfig())
    return make_train(config, make_mesh(config.mesh, jax.devices()[:1]))
