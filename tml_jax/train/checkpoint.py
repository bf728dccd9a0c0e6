"""Checkpoints of a run: written in the background, restored onto any mesh, never taken half-written.

  RUN/config.json       what the run was made with
  RUN/tokenizer.json
  RUN/checkpoints/STEP  `model` (params, balance) and `optimizer` (step, opt_state), and in their metadata the place in
                        the data and a checksum of every array
  RUN/metrics.jsonl, RUN/goodput.jsonl, RUN/tensorboard
  RUN/source/files      where the weights began as a release's: its small files, for the way back

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
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import v1 as ocp

from tml_jax import shipped
from tml_jax.config import Config, from_mapping, to_mapping
from tml_jax.files import write_whole
from tml_jax.train.checkpoint_arrays import CheckpointError, Damaged, brief, checksums, describe, load

CONFIG, TOKENIZER, CHECKPOINTS = "config.json", "tokenizer.json", "checkpoints"
RELEASE_FILES = "source/files"
MODEL, _OPTIMIZER = ("params", "balance"), ("step", "opt_state")

State = TypeVar("State")  # train.state.TrainState, concrete or abstract: a dataclass with the four fields above


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
            metadata = {"data": data, "checksums": checksums(_split(state))}
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
        except Damaged as damaged:
            error = damaged
        advice = "no earlier checkpoint is intact: start again in another run directory"
        for step in reversed(steps[:-1]):
            try:
                _restore_state(self.directory / str(step), abstract_state)
            except Damaged:
                continue
            advice = f"step {step} is intact: delete the folder {newest} and start again to go on from step {step}"
            break
        raise CheckpointError(f"the checkpoint {newest} is damaged ({error}); {advice}") from error

    def _cannot_write(self, error: Exception) -> str:
        return f"a checkpoint could not be written to {self.directory} ({brief(error)}): check space and permissions"


def write_config(run_dir: str | os.PathLike, config: Config) -> None:
    """Writes RUN/config.json, whole or not at all."""
    write_whole(pathlib.Path(run_dir) / CONFIG, json.dumps(to_mapping(config), indent=2) + "\n")


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
      directory: RUN, RUN/checkpoints, RUN/checkpoints/STEP, or `shipped` for the model that comes with the package.
      step: which checkpoint of the run; None takes the newest.

    Returns:
      (run directory, folder of the checkpoint), absolute.

    Raises:
      CheckpointError: there is none.
    """
    path = shipped.resolve(directory).absolute()
    if path.parent.name == CHECKPOINTS and path.name.isdigit():
        path, step = path.parent.parent, int(path.name) if step is None else step
    run_dir = path.parent if path.name == CHECKPOINTS else path
    folder, steps = run_dir / CHECKPOINTS, saved_steps(run_dir)
    if not steps:
        raise CheckpointError(f"no checkpoint in {folder}: give the directory of a training run")
    if step is not None and step not in steps:
        raise CheckpointError(f"no checkpoint of step {step} in {folder}: there are {', '.join(map(str, steps))}")
    return run_dir, folder / str(steps[-1] if step is None else step)


def saved_model(folder: pathlib.Path) -> dict[str, Any]:
    """Shapes and dtypes of the model of a checkpoint, {"params", "balance"}; nothing is loaded.

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    try:
        saved = describe(folder)[0]["model"]
    except Damaged as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged ({error}): use another step") from error
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved)


def find_tokenizer(run_dir: pathlib.Path) -> pathlib.Path:
    """The tokenizer of a run.

    Raises:
      CheckpointError: there is none.
    """
    tokenizer = run_dir / TOKENIZER
    if not tokenizer.exists():
        raise CheckpointError(f"{tokenizer} is missing: copy the run's tokenizer beside its {CONFIG}")
    return tokenizer


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
    config, tokenizer = read_config(run_dir), find_tokenizer(run_dir)
    try:
        saved, metadata = describe(folder)
        if abstract_variables is None:
            abstract_variables = on_one_device(saved["model"])
        return config, tokenizer, load(folder, {"model": abstract_variables}, saved, metadata)["model"]
    except Damaged as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged ({error}): use another step") from error


def restore_part(
    folder: pathlib.Path, abstract_variables: dict[str, Any], paths: set[tuple[str, ...]]
) -> dict[str, Any]:
    """Loads some arrays of a model, and checks them.

    Args:
      folder: RUN/checkpoints/STEP.
      abstract_variables: of all arrays, see `restore_params_for_inference`.
      paths: keys, from the outermost on, of those that are wanted.

    Returns:
      Variables {"params", …} with these alone.

    Raises:
      CheckpointError: the checkpoint is damaged, or of another model.
    """
    targets = flatten_dict(abstract_variables)
    wanted = unflatten_dict({path: leaf if path in paths else ocp.PLACEHOLDER for path, leaf in targets.items()})
    try:
        found = load(folder, {"model": wanted}, *describe(folder))["model"]
    except Damaged as error:
        raise CheckpointError(f"the checkpoint {folder} is damaged ({error}): use another step") from error
    return unflatten_dict({path: leaf for path, leaf in flatten_dict(found).items() if path in paths})


def _split(state: Any) -> dict[str, Any]:
    """TrainState → what is stored, the model apart so that inference reads nothing else."""
    fields = lambda names: {name: getattr(state, name) for name in names}  # noqa: E731
    return {"model": fields(MODEL), "optimizer": fields(_OPTIMIZER)}


def _restore_state(folder: pathlib.Path, abstract_state: State) -> tuple[State, dict[str, Any]]:
    saved, metadata = describe(folder)
    if not any(name.startswith("optimizer/") for name in metadata["checksums"]):
        raise CheckpointError(
            f"{folder} holds a model without an optimizer, as launch.convert makes it: train in another run directory, "
            f"with --config.train.init_from={folder.parent.parent}"
        )
    parts = load(folder, _split(abstract_state), saved, metadata)
    return dataclasses.replace(abstract_state, **parts["model"], **parts["optimizer"]), metadata["data"]


def on_one_device(saved: Any) -> Any:
    """Shapes and dtypes of saved arrays, with the first device as their place."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), saved)
