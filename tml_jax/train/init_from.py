"""A new run that starts from the weights of another one, or of a converted release."""

import dataclasses
import os
import pathlib
import shutil
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from tml_jax.config import ModelConfig
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.train.checkpoint import MODEL, RELEASE_FILES, TOKENIZER, State, find_checkpoint, read_config
from tml_jax.train.checkpoint_arrays import CheckpointError, Damaged, array_name, describe, load, named


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
    fresh = {name: getattr(state, name) for name in MODEL}
    try:
        saved, metadata = describe(folder)
        theirs, ours = named(saved["model"]), named(fresh)
        not_loaded = {name: "missing in the checkpoint" for name in ours if name not in theirs}
        for name in ours.keys() & theirs.keys():
            if ours[name].shape != theirs[name].shape:
                not_loaded[name] = f"shape {theirs[name].shape} in the checkpoint, {ours[name].shape} in the model"
        loaded = [name for name in ours if name not in not_loaded]
        if not loaded:
            raise CheckpointError(f"train.init_from: no array of {folder} matches the model: it is of another kind")

        def target(path: Any, leaf: Any) -> Any:
            if (name := array_name(path)) not in loaded:
                return ocp.PLACEHOLDER
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=ours[name].sharding)

        targets = jax.tree.map_with_path(target, saved["model"])
        found = named(load(folder, {"model": targets}, saved, metadata)["model"])
    except Damaged as error:
        raise CheckpointError(f"train.init_from: the checkpoint {folder} is damaged ({error})") from error
    take = lambda path, x: found[array_name(path)].astype(x.dtype) if array_name(path) in loaded else x  # noqa: E731
    state = dataclasses.replace(state, **jax.tree.map_with_path(take, fresh))
    reasons = tuple((name, not_loaded[name]) for name in ours if name in not_loaded)
    return state, InitReport(tuple(loaded), reasons, tuple(name for name in theirs if name not in ours))


def adopt_files(directory: str | os.PathLike, run_dir: str | os.PathLike, model: ModelConfig) -> str | None:
    """Gives a new run the tokenizer of the run that it starts from, or makes sure that it has it.

    Where those weights began as a release's, its small files (processor, chat template) come along for exports. With
    other tokens, the rows of the tables that `init_from` loads would stand for other texts. Where the new model
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
    try:
        source, _ = find_checkpoint(directory)
    except CheckpointError as error:
        raise CheckpointError(
            f'config.train.init_from = {str(directory)!r}: {error}, or "" to begin with fresh weights'
        ) from error
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
        has_it = own.exists() and Tokenizer.load(own).fingerprint == tokenizer.fingerprint
    except ValueError as error:
        raise CheckpointError(f"train.init_from: {error}") from error
    if own.exists() and not has_it:
        raise CheckpointError(
            f"{own} is another tokenizer than {path}, expected the same: the weights that train.init_from loads were "
            "trained with that one's tokens; train in another run directory, which will take it"
        )
    if tokenizer.size > model.text_vocab_size:
        raise CheckpointError(
            f"{path} has {tokenizer.size} tokens, the model rows for {model.text_vocab_size}: put back the tokenizer "
            "that this run was trained with"
        )
    files, kept = source / RELEASE_FILES, pathlib.Path(run_dir) / RELEASE_FILES
    if files.is_dir() and not kept.exists():
        part = kept.with_name(kept.name + ".part")
        shutil.copytree(files, part, dirs_exist_ok=True)
        os.rename(part, kept)
    if has_it:
        return None
    tokenizer.save(own)
    return f"taking the tokenizer of {source}, {tokenizer.size} tokens, with its weights"
