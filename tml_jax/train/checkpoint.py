"""Checkpoints of a run: written in the background, restored onto any mesh, never taken half-written.

  RUN/config.json       what the run was made with
  RUN/tokenizer.json
  RUN/checkpoints/STEP  `model` (params, balance) and `optimizer` (step, opt_state), and in their metadata the place in
                        the data and a checksum of every array
  RUN/metrics.jsonl, RUN/tensorboard

A step's folder gets its name only when all of it is on disk, so a killed run leaves nothing that looks like a
checkpoint. The place in the data is one number, the next global step, because a batch is a function of the seed and the
step alone; that is what lets a run go on with another number of hosts.
"""

import dataclasses
import json
import os
import pathlib
from types import TracebackType
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from tml_jax.config import Config, ModelConfig, from_mapping, to_mapping
from tml_jax.data.tokenizer import Tokenizer

CONFIG, TOKENIZER, CHECKPOINTS = "config.json", "tokenizer.json", "checkpoints"
_MODEL, _OPTIMIZER = ("params", "balance"), ("step", "opt_state")

State = TypeVar("State")  # train.state.TrainState, concrete or abstract: a dataclass with the four fields above


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged, or of another model: says which one and what to do."""


@dataclasses.dataclass(frozen=True)
class InitReport:
    """What `init_from` took over.

    Attributes:
      loaded: names of the arrays that were loaded.
      not_loaded: name and reason for each array that keeps its fresh value.
      unused: names of the checkpoint's arrays that the model does not have.
    """

    loaded: tuple[str, ...]
    not_loaded: tuple[tuple[str, str], ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"loaded {len(self.loaded)} arrays, {len(self.not_loaded)} stay fresh, {len(self.unused)} unused"]
        lines += [f"  fresh: {name}: {reason}" for name, reason in self.not_loaded]
        lines += [f"  unused: {name}" for name in self.unused]
        return "\n".join(lines)


class Checkpoints:
    """The checkpoints of one run, newest last. Use it as a context manager: leaving it waits for the last save."""

    def __init__(self, run_dir: str | os.PathLike, keep: int) -> None:
        """Opens `run_dir`/checkpoints, creating it where needed, and clears away half-written saves.

        Args:
          run_dir: folder of the run.
          keep: how many checkpoints stay; older ones are deleted once a newer one is complete.
        """
        training = ocp.training
        self.directory = pathlib.Path(run_dir).absolute() / CHECKPOINTS
        self._orbax = training.Checkpointer(
            self.directory,
            save_decision_policy=training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._orbax.close()

    @property
    def steps(self) -> list[int]:
        """Steps that are completely on disk, rising; a save still under way is waited for."""
        self._orbax.wait()
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    def save(self, state: Any, data: dict[str, Any]) -> None:
        """Starts saving; returns as soon as the arrays are copied off the device, so `state` may then be donated.

        Args:
          state: TrainState; its `step` names the checkpoint. Saving a step twice does nothing.
          data: the place in the data, JSON types only.

        Raises:
          CheckpointError: this save could not start, or the one before failed in the background.
        """
        step = int(state.step)
        try:
            if any(checkpoint.step == step for checkpoint in self._orbax.checkpoints):
                return
            metadata = {"data": data, "checksums": _checksums(_split(state))}
            self._orbax.save_checkpointables_async(step, _split(state), custom_metadata=metadata)
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(self._cannot_write(error)) from error

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          CheckpointError: it failed.
        """
        try:
            self._orbax.wait()
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(self._cannot_write(error)) from error

    def restore_latest(self, abstract_state: State) -> tuple[State, dict[str, Any]] | None:
        """Restores the newest checkpoint.

        Args:
          abstract_state: TrainState of `jax.ShapeDtypeStruct` with the shardings to restore to; any mesh.

        Returns:
          (state, place in the data as given to `save`), or None where there is no checkpoint yet.

        Raises:
          CheckpointError: the newest checkpoint is damaged, or of another model.
        """
        steps = self.steps
        if not steps:
            return None
        newest, error = self.directory / str(steps[-1]), None
        try:
            return _restore_state(newest, abstract_state)
        except _Damaged as damaged:
            error = damaged
        advice = "no earlier checkpoint is intact: start again in another run directory"
        for step in reversed(steps[:-1]):
            try:
                _restore_state(self.directory / str(step), abstract_state)
            except _Damaged:
                continue
            advice = f"step {step} is intact: delete the folder {newest} and start again to go on from step {step}"
            break
        raise CheckpointError(f"the checkpoint {newest} is damaged ({error}); {advice}") from error

    def _cannot_write(self, error: Exception) -> str:
        return f"a checkpoint could not be written to {self.directory} ({_brief(error)}): check space and permissions"


def write_config(run_dir: str | os.PathLike, config: Config) -> None:
    """Writes RUN/config.json, whole or not at all."""
    path = pathlib.Path(run_dir) / CONFIG
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(to_mapping(config), indent=2) + "\n")
    os.replace(partial, path)


def read_config(run_dir: str | os.PathLike) -> Config:
    """Reads RUN/config.json.

    Raises:
      CheckpointError: there is none, or it is not JSON.
      ConfigError: it breaks a rule of the configuration.
    """
    path = pathlib.Path(run_dir) / CONFIG
    try:
        return from_mapping(json.loads(path.read_text()))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: {run_dir} is not the directory of a training run") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON ({error})") from error


def saved_steps(run_dir: str | os.PathLike) -> list[int]:
    """Steps of the run's complete checkpoints, rising; none where there is no such run."""
    folder = pathlib.Path(run_dir) / CHECKPOINTS
    return sorted(int(item.name) for item in folder.glob("*") if item.name.isdigit()) if folder.is_dir() else []


def find_checkpoint(directory: str | os.PathLike, step: int | None = None) -> tuple[pathlib.Path, pathlib.Path]:
    """Finds a checkpoint on disk.

    Args:
      directory: RUN, RUN/checkpoints or RUN/checkpoints/STEP.
      step: which checkpoint of the run; None takes the newest.

    Returns:
      (run directory, folder of the checkpoint), absolute.

    Raises:
      CheckpointError: there is none.
    """
    path = pathlib.Path(directory).absolute()
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        path, step = path.parent.parent, int(path.name) if step is None else step
    run_dir = path.parent if path.name == CHECKPOINTS else path
    folder, steps = run_dir / CHECKPOINTS, saved_steps(run_dir)
    if not steps:
        raise CheckpointError(f"no checkpoint in {folder}: give the directory of a training run")
    if step is not None and step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {folder}: there are {', '.join(map(str, steps))}")
    return run_dir, folder / str(steps[-1] if step is None else step)


def restore_params_for_inference(
    directory: str | os.PathLike, step: int | None = None, abstract_variables: dict[str, Any] | None = None
) -> tuple[Config, pathlib.Path, dict[str, Any]]:
    """Loads a model to talk with; the optimiser's state is not read.

    Args:
      directory: RUN, RUN/checkpoints or RUN/checkpoints/STEP.
      step: which checkpoint of the run; None takes the newest.
      abstract_variables: {"params", "balance"} of `jax.ShapeDtypeStruct` with shardings; None puts every array, as it
        was saved, on the first device.

    Returns:
      (config of the run, path of its tokenizer, variables {"params", "balance"}).

    Raises:
      CheckpointError: no such checkpoint, it is damaged, or it is of another model.
    """
    run_dir, folder = find_checkpoint(directory, step)
    config, tokenizer = read_config(run_dir), run_dir / TOKENIZER
    if not tokenizer.exists():
        raise CheckpointError(f"{tokenizer} is missing: copy the run's tokenizer beside its {CONFIG}")
    try:
        saved, metadata = _saved(folder)
        if abstract_variables is None:
            abstract_variables = _on_one_device(saved["model"])
        return config, tokenizer, _load(folder, {"model": abstract_variables}, saved, metadata)["model"]
    except _Damaged as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged ({error}): use another step") from error


def init_from(directory: str | os.PathLike, state: State) -> tuple[State, InitReport]:
    """Starts a new run from the weights of another, array by array, where name and shape agree.

    Args:
      directory: RUN, RUN/checkpoints or RUN/checkpoints/STEP of the other run.
      state: freshly initialised TrainState; its optimiser state and step stay as they are.

    Returns:
      (state with the matching arrays of params and balance, in this state's dtypes and shardings; what was loaded).

    Raises:
      CheckpointError: no such checkpoint, it is damaged, or no array matches.
    """
    _, folder = find_checkpoint(directory)
    fresh = {name: getattr(state, name) for name in _MODEL}
    try:
        saved, metadata = _saved(folder)
        theirs, ours = _named(saved["model"]), _named(fresh)
        not_loaded = {name: "missing in the checkpoint" for name in ours if name not in theirs}
        for name in ours.keys() & theirs.keys():
            if ours[name].shape != theirs[name].shape:
                not_loaded[name] = f"shape {theirs[name].shape} in the checkpoint, {ours[name].shape} in the model"
        loaded = [name for name in ours if name not in not_loaded]
        if not loaded:
            raise CheckpointError(f"train.init_from: no array of {folder} matches the model: it is of another kind")

        def target(path: Any, leaf: Any) -> Any:
            if (name := _name(path)) not in loaded:
                return ocp.PLACEHOLDER
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=ours[name].sharding)

        targets = jax.tree.map_with_path(target, saved["model"])
        found = _named(_load(folder, {"model": targets}, saved, metadata)["model"])
    except _Damaged as error:
        raise CheckpointError(f"train.init_from: the checkpoint {folder} is damaged ({error})") from error
    take = lambda path, x: found[_name(path)].astype(x.dtype) if _name(path) in loaded else x  # noqa: E731
    state = dataclasses.replace(state, **jax.tree.map_with_path(take, fresh))
    reasons = tuple((name, not_loaded[name]) for name in ours if name in not_loaded)
    return state, InitReport(tuple(loaded), reasons, tuple(name for name in theirs if name not in ours))


def adopt_tokenizer(directory: str | os.PathLike, run_dir: str | os.PathLike, model: ModelConfig) -> str | None:
    """Gives a new run the tokenizer of the run that it starts from, or makes sure that it has it.

    With other tokens, the rows of the tables that `init_from` loads would stand for other texts. Where the new model
    has a vocabulary of another size, `init_from` does not load the tables, and the tokenizer is the new run's own.

    Args:
      directory: RUN, RUN/checkpoints or RUN/checkpoints/STEP of the other run.
      run_dir: folder of the new run.
      model: of the new run.

    Returns:
      A line that says what was done, or None where all was as it should be.

    Raises:
      CheckpointError: no such checkpoint, the new run has another tokenizer, or its rows for text are other ones.
    """
    source, _ = find_checkpoint(directory)
    theirs, path, own = read_config(source).model, source / TOKENIZER, pathlib.Path(run_dir) / TOKENIZER
    if theirs.vocab_size != model.vocab_size:
        return (
            f"config.model.vocab_size = {model.vocab_size}, {theirs.vocab_size} in {source}: its text tables are not "
            "taken over, nor is its tokenizer"
        )
    if theirs.text_vocab_size != model.text_vocab_size:
        raise CheckpointError(
            f"config.model.text_vocab_size = {model.text_vocab_size}: {source}, which train.init_from names, has "
            f"{theirs.text_vocab_size}, and control tokens take the rows behind; give that"
        )
    try:
        tokenizer = Tokenizer.load(path)
        if own.exists() and Tokenizer.load(own).fingerprint == tokenizer.fingerprint:
            return None
    except ValueError as error:
        raise CheckpointError(f"train.init_from: {error}") from error
    if own.exists():
        raise CheckpointError(
            f"{own} is another tokenizer than {path}, expected the same: the weights that train.init_from loads were "
            "trained with that one's tokens; train in another run directory, which will take it"
        )
    if tokenizer.size > model.text_vocab_size:
        raise CheckpointError(
            f"{path} has {tokenizer.size} tokens, the model rows for {model.text_vocab_size}: put back the tokenizer "
            "that this run was trained with"
        )
    tokenizer.save(own)
    return f"taking the tokenizer of {source}, {tokenizer.size} tokens, with its weights"


class _Damaged(Exception):
    """Files of a checkpoint are missing or do not hold what was written."""


def _split(state: Any) -> dict[str, Any]:
    """TrainState → what is stored, the model apart so that inference reads nothing else."""
    fields = lambda names: {name: getattr(state, name) for name in names}  # noqa: E731
    return {"model": fields(_MODEL), "optimizer": fields(_OPTIMIZER)}


def _restore_state(folder: pathlib.Path, abstract_state: State) -> tuple[State, dict[str, Any]]:
    saved, metadata = _saved(folder)
    parts = _load(folder, _split(abstract_state), saved, metadata)
    return dataclasses.replace(abstract_state, **parts["model"], **parts["optimizer"]), metadata["data"]


def _saved(folder: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Shapes and dtypes of the stored arrays, and what was stored beside them."""
    try:
        found = ocp.checkpointables_metadata(folder)
        parts, metadata = found.metadata, found.custom_metadata
        if parts.get("model") is None or "checksums" not in metadata or "data" not in metadata:
            raise _Damaged("its description is incomplete")
        return parts, metadata
    except _Damaged:
        raise
    except Exception as error:  # Orbax reports unreadable files with many types of exception.
        raise _Damaged(_brief(error)) from error


def _load(folder: pathlib.Path, targets: dict[str, Any], saved: dict[str, Any], metadata: dict[str, Any]) -> Any:
    """Loads `targets` (parts of a checkpoint) and compares every array with its checksum.

    Orbax checks its own indices, but a flipped bit in the bulk of a large array would pass unnoticed.
    """
    for part, target in targets.items():
        if saved.get(part) is None:
            raise _Damaged(f"the description of its {part} cannot be read")
        _check_same_arrays(folder, _named(target), _named(saved[part]))
    try:
        parts = ocp.load_checkpointables(folder, targets)
    except Exception as error:
        raise _Damaged(_brief(error)) from error
    for name, checksum in _checksums(parts).items():
        if checksum != metadata["checksums"].get(name):
            raise _Damaged(f"{name} does not hold what was written")
    return parts


def _check_same_arrays(folder: pathlib.Path, wanted: dict[str, Any], saved: dict[str, Any]) -> None:
    different = [f"{name} is not in the checkpoint" for name in wanted if name not in saved]
    different += [f"{name} is not in the model" for name in saved if name not in wanted]
    for name in wanted.keys() & saved.keys():
        ours, theirs = wanted[name], saved[name]
        if ours is not ocp.PLACEHOLDER and (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
            different.append(f"{name}: {theirs.dtype}{theirs.shape} saved, {ours.dtype}{ours.shape} wanted")
    if different:
        shown = "; ".join(sorted(different)[:3]) + ("; …" if len(different) > 3 else "")
        raise CheckpointError(f"the checkpoint {folder} is of another model, {len(different)} arrays differ: {shown}")


def _on_one_device(saved: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _named(tree: Any) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def _checksums(tree: Any) -> dict[str, int]:
    """Name → sum of the array's bits, read as unsigned integers, modulo 2³². Placeholders are left out."""
    named = {name: leaf for name, leaf in _named(tree).items() if leaf is not ocp.PLACEHOLDER}
    # One after another: all at once they would be held a second time, as integers.
    return {name: int(_bit_sum(leaf)) for name, leaf in named.items()}


@jax.jit
def _bit_sum(x: jax.Array) -> jax.Array:
    kind = np.dtype(f"uint{8 * x.dtype.itemsize}")
    bits = x.astype(kind) if x.dtype == bool else jax.lax.bitcast_convert_type(x, kind)
    return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
