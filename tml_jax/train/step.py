"""The train step: one compiled, sharded function from state and batch to state and figures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from tml_jax.config import BATCH_AXES, Config
from tml_jax.data.packing import Batch
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.model.moe import update_balance
from tml_jax.parallel.compile_options import compiler_options, options_for_one_call
from tml_jax.parallel.mesh import abstract, axis_size, parameter_shardings, replicated
from tml_jax.parallel.placement import training_placement
from tml_jax.tokens import Stream
from tml_jax.train.hosts import batch_shardings, local_rows, put_rows
from tml_jax.train.losses import counts, loss_sums
from tml_jax.train.optimizer import make_optimizer, schedule


@flax.struct.dataclass
class TrainState:
    """All that a run carries from step to step.

    Attributes:
      step: int32 scalar, optimiser steps done.
      params: parameters, nested dicts of float32.
      balance: router biases, nested dicts of float32; moved against the load, not by the optimiser.
      opt_state: optimiser state.
    """

    step: jax.Array
    params: Any
    balance: Any
    opt_state: Any


@dataclasses.dataclass(frozen=True)
class Train:
    """Compiled functions of a run.

    Attributes:
      init: seed → state, sharded.
      step: (state, batch) → (state, metrics); the state given is consumed.
      evaluate: (state, batch) → sums and counts, from which `mean_metrics` makes means over many batches.
      rows: rows of the global batch that this process builds.
      put_batch: those rows, in numpy → the global batch on the devices.
      abstract_state: shapes, dtypes and shardings of the state.
    """

    init: Callable[[int], TrainState]
    step: Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
    evaluate: Callable[[TrainState, Batch], dict[str, jax.Array]]
    rows: tuple[int, ...]
    put_batch: Callable[[Batch], Batch]
    abstract_state: TrainState


def mean_metrics(sums: dict[str, Any], config: Config) -> dict[str, Any]:
    """Losses and accuracies from sums and counts, of one batch or of many added up."""
    count = lambda name: jnp.maximum(sums[f"{name}_count"], 1)  # noqa: E731
    text, gate, flow = (sums[f"{name}_sum"] / count(name) for name in ("text", "gate", "flow"))
    weight, outputs = config.train.text_weight, sums["text_count"] * config.train.text_weight + sums["gate_count"]
    token_loss = (weight * sums["text_sum"] + sums["gate_sum"]) / jnp.maximum(outputs, 1)
    return {
        "loss": token_loss + config.train.flow_weight * flow,
        "text_loss": text,
        "gate_loss": gate,
        "flow_loss": flow,
        "text_accuracy": sums["text_right"] / count("text"),
        "gate_accuracy": sums["gate_right"] / count("gate"),
    }


def make_train(config: Config, mesh: Mesh) -> Train:
    """Builds the functions of a run on a mesh.

    Args:
      config: the run.
      mesh: the devices.

    Returns:
      The functions, not yet compiled.

    Raises:
      ConfigError: the mesh does not divide the rows of a microbatch, or a row.
    """
    config.check_rows(axis_size(mesh, BATCH_AXES))
    config.check_stripes(mesh.shape["sequence"], mesh.shape["fsdp"])
    model = InteractionModel(
        config.model,
        jnp.dtype(config.train.compute_dtype),
        config.train.remat,
        training_placement(mesh, config.mesh),
    )
    optimizer = make_optimizer(config.train)
    rate = schedule(config.train)

    def init(seed: jax.Array) -> TrainState:
        variables = init_variables(model.clone(placement=None), jax.random.key(seed))  # on one element
        params = variables["params"]
        return TrainState(jnp.zeros((), jnp.int32), params, variables["balance"], optimizer.init(params))

    shapes = jax.eval_shape(init, jax.ShapeDtypeStruct((), jnp.uint32))
    shardings = parameter_shardings(mesh, shapes)

    def gradients(state: TrainState, batch: Batch, key: jax.Array) -> tuple[Any, dict[str, jax.Array], Any]:
        """Gradients of the loss, sums and expert loads; microbatch by microbatch, divided by the whole's counts."""
        parts = config.train.accumulate
        total = counts(batch, config.model)

        def loss(params: Any, part: Batch, key: jax.Array) -> tuple[jax.Array, tuple[dict, Any]]:
            variables = {"params": params, "balance": state.balance}
            sums, extras = loss_sums(model, variables, part, key, config.train, disturbed=True)
            return mean_metrics({**sums, **total}, config)["loss"], (sums, extras)

        gradient = jax.grad(loss, has_aux=True)
        if parts == 1:
            grads, (sums, extras) = gradient(state.params, batch, key)
            return grads, {**sums, **total}, extras

        def microbatch(carry: Any, inputs: tuple[Batch, jax.Array]) -> tuple[Any, None]:
            part, index = inputs
            return jax.tree.map(jnp.add, carry, gradient(state.params, part, jax.random.fold_in(key, index))), None

        split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
        first = jax.tree.map(lambda x: x[0], split)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(gradient, state.params, first, key))
        (grads, (sums, extras)), _ = jax.lax.scan(microbatch, zeros, (split, jnp.arange(parts)))
        return grads, {**sums, **total}, extras

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.train.seed), state.step)
        grads, sums, extras = gradients(state, batch, key)
        norm = optax.tree.norm(grads)
        metrics = mean_metrics(sums, config)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        with jax.named_scope("balance"):
            balance, overload = _move_balance(state.balance, extras, config.train.balance_rate)
        chosen, dropped = (_total(extras, name) for name in ("load", "dropped"))
        new = TrainState(state.step + 1, params, balance, opt_state)
        # A step that is not finite changes nothing, so the state at hand is always one worth saving.
        new = jax.tree.map(lambda after, before: jnp.where(finite, after, before), new, state)
        metrics |= {
            "grad_norm": norm,
            "learning_rate": rate(state.step),
            "micro_turns": jnp.sum(batch.stream == Stream.TIME),
            "elements": jnp.sum(batch.stream != Stream.PADDING),
            "expert_load_max": overload,
            "expert_dropped": dropped / jnp.maximum(chosen, 1),
            "finite": finite,
        }
        return new, metrics

    def evaluate(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
        variables = {"params": state.params, "balance": state.balance}
        key = jax.random.key(config.train.seed)
        sums, _ = loss_sums(model, variables, batch, key, config.train, disturbed=False)
        return {**sums, **counts(batch, config.model)}

    rows = batch_shardings(mesh)
    whole = replicated(mesh)

    mine = local_rows(mesh, config.data.batch_size)

    platform = mesh.devices.flat[0].platform
    initialise = jax.jit(init, out_shardings=shardings, compiler_options=options_for_one_call(platform))
    compiled = functools.partial(jax.jit, in_shardings=(shardings, rows), compiler_options=compiler_options(platform))
    return Train(
        init=lambda seed: initialise(jnp.asarray(seed, jnp.uint32)),
        step=compiled(step, out_shardings=(shardings, whole), donate_argnums=0),
        evaluate=compiled(evaluate, out_shardings=whole),
        put_batch=functools.partial(put_rows, mesh, mine, config.data.batch_size),
        rows=mine,
        abstract_state=abstract(shapes, shardings),
    )


def _total(extras: Any, name: str) -> jax.Array:
    """Sum of one of the extras over all layers."""
    leaves = jax.tree_util.tree_leaves_with_path(extras)
    return sum((jnp.sum(leaf) for path, leaf in leaves if path[-1].key == name), jnp.zeros(()))


def _move_balance(balance: Any, extras: Any, rate: float) -> tuple[Any, jax.Array]:
    """Moves every router's bias against its load; also the largest max/mean load of any layer."""
    overload = jnp.ones(())

    def move(biases: Any, loads: Any) -> Any:
        nonlocal overload
        if "bias" in biases:
            load = loads["load"]
            ratio = jnp.max(load, axis=-1) / jnp.maximum(jnp.mean(load, axis=-1), 1e-9)
            overload = jnp.maximum(overload, jnp.max(ratio))
            return {"bias": update_balance(biases["bias"], load, rate)}
        # The biases lie one level (`moe`) below the layers whose extras hold the loads.
        return {name: move(child, loads if name == "moe" else loads[name]) for name, child in biases.items()}

    return {name: move(child, extras) for name, child in balance.items()}, overload
