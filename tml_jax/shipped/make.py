"""A run → a light copy that ships with the package: half-width weights, tokenizer, configuration, figures, card.

The copy is laid out like a run with one checkpoint, so everything that takes a run takes it. It has no optimizer state.
Matrices of products are narrowed, as `serve.dtype` would; what is small, or added up in float32, stays float32.
"""

import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from tml_jax.config import Config
from tml_jax.data.record import Conversation
from tml_jax.data.shards import open_shards
from tml_jax.eval.agreement import Agreement, agreement
from tml_jax.eval.delegation import planned
from tml_jax.eval.interactivity import reply_frequency
from tml_jax.eval.streaming import stream
from tml_jax.interop.journal import ConvertError, Log, check_new, new_folder
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.grids import HELD_OUT
from tml_jax.serve import weights
from tml_jax.serve.session import Talker
from tml_jax.shipped import FOLDER, NAME
from tml_jax.shipped.card import Facts, card
from tml_jax.train.checkpoint import (
    CHECKPOINTS,
    CONFIG,
    TOKENIZER,
    find_checkpoint,
    restore_params_for_inference,
    write_config,
)
from tml_jax.train.checkpoint_arrays import CheckpointError, checksums

DTYPES = ("float16", "bfloat16", "float32")
RESULTS, TABLE, CARD, ABILITIES = "results.json", "table.md", "CARD.md", "ABILITIES.md"
MEASURED = "abilities.json"  # the figures that `ABILITIES` tells, with their intervals
_CLIPS = "clips"  # what `config.data.clips` is called where its licence is told
MOST_BYTES = 25_000_000  # of the whole copy: it lies in the repository and in every wheel
_FILES = (CONFIG, TOKENIZER, CHECKPOINTS, RESULTS, CARD, ABILITIES, MEASURED)


@dataclasses.dataclass(frozen=True)
class ShipOptions:
    """What the copy is made with.

    Attributes:
      dtype: of the matrices: `float16`, `bfloat16` or `float32`.
      compare: held-out conversations on which copy and run are compared; 0 for none, where the data are not there.
      command: that trained the run, for the card.
      licences: source of the mixture → its licence, for those that were not generated here.
      note: what the card says of the recipe besides, such as what the run began with.
      abilities: folder that `launch.eval --suite=interactivity` wrote of this run; None for none.
    """

    dtype: str = "float16"
    compare: int = 16
    command: str = ""
    licences: Mapping[str, str] = dataclasses.field(default_factory=dict)
    note: str = ""
    abilities: pathlib.Path | None = None


def ship(
    checkpoint: str | os.PathLike, output: str | os.PathLike, options: ShipOptions, log: Log = print
) -> Agreement | None:
    """Writes the copy.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP; RUN/eval holds the figures of `launch.eval`.
      output: new folder; appears whole or not at all.
      options: see there.
      log: takes lines of progress.

    Returns:
      How far run and copy agree, or None where they were not compared.

    Raises:
      CheckpointError: there is no such checkpoint, it is damaged, or it was not evaluated, or the abilities are those
        of another run or step, or not of all held-out families.
      ConvertError: `output` holds something already, the copy is too large, a number does not fit the type, or a
        source has no licence.
      DataError: the held-out conversations are not there.
    """
    output = pathlib.Path(output).absolute()
    check_new(output)
    run, folder = find_checkpoint(checkpoint)
    config, tokenizer, variables = restore_params_for_inference(folder)
    if (run / CARD).exists():
        raise CheckpointError(f"{run} is such a copy already: give the run that it was made of")
    results, table = (_read_figures(run, name) for name in (RESULTS, TABLE))
    figures = _parsed(results, run / "eval" / RESULTS)
    if figures["step"] != int(folder.name):
        raise CheckpointError(
            f"{run / 'eval' / RESULTS} is of step {figures['step']}, not of {folder.name}, which is to be copied: "
            f"python -m launch.eval --checkpoint={checkpoint} makes it anew"
        )
    measured = _read_abilities(options.abilities, run, folder.name) if options.abilities else None
    learned_from = [name for name in config.data.sources if name not in config.data.generate]
    learned_from += [_CLIPS] if config.data.clips else []
    unlicensed = [name for name in learned_from if name not in options.licences]
    if unlicensed:
        missing = " ".join(f"--licence='{name}: …'" for name in unlicensed)
        raise ConvertError(
            f"the card must say under which licence it may learn from {', '.join(unlicensed)}: {missing}"
        )
    with new_folder(output, _FILES) as work:
        _write_weights(work / CHECKPOINTS / folder.name, variables, options.dtype)
        write_config(work, _without_machine(config))
        shutil.copyfile(tokenizer, work / TOKENIZER)
        (work / RESULTS).write_text(results)
        if measured:
            table_here = measured.table.replace(f"`{RESULTS}`", f"`{MEASURED}`")
            (work / ABILITIES).write_text(table_here, encoding="utf-8")
            (work / MEASURED).write_text(measured.results, encoding="utf-8")
        size = _size(work / CHECKPOINTS)
        log(f"weights in {options.dtype}: {size / 1e6:.1f} MB")
        compared = _compare(folder, work, config, options.compare, log) if options.compare else None
        facts = Facts(
            name=NAME if output == FOLDER else output.name,
            config=config,
            step=int(folder.name),
            dtype=options.dtype,
            bytes=size,
            command=options.command,
            licences=options.licences,
            note=options.note,
            results=figures,
            table=table,
            agreement=compared,
            abilities=measured.summary if measured else "",
        )
        (work / CARD).write_text(card(facts), encoding="utf-8")
        if (total := _size(work)) > MOST_BYTES:
            raise ConvertError(f"the copy has {total / 1e6:.1f} MB, at most {MOST_BYTES / 1e6:.0f} may ship")
    log(f"wrote {output}: {total / 1e6:.1f} MB")
    return compared


def narrowed(variables: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Variables with their matrices in another type.

    Args:
      variables: {"params", "balance"}.
      dtype: one of `DTYPES`.

    Returns:
      The same tree.

    Raises:
      ConvertError: there is no such type, or a number lies outside its range.
    """
    if dtype not in DTYPES:
        raise ConvertError(f"dtype = {dtype!r}: expected one of {', '.join(DTYPES)}")
    params = weights.narrowed(variables["params"], dtype)
    finite = jax.tree.map(lambda leaf: bool(jnp.all(jnp.isfinite(leaf))), params)
    if not all(jax.tree.leaves(finite)):
        raise ConvertError(f"a weight does not fit into {dtype}, or is not finite: take another type, or checkpoint")
    return {**variables, "params": params}


def _write_weights(folder: pathlib.Path, variables: dict[str, Any], dtype: str) -> None:
    model = {"model": narrowed(variables, dtype)}
    metadata = {"data": {"next_step": int(folder.name)}, "checksums": checksums(model)}
    folder.parent.mkdir()
    ocp.save_checkpointables(folder, model, custom_metadata=metadata)
    for note in folder.rglob("commit_success.txt"):  # it names the folder on this machine; only its being there counts
        note.write_text("")


def _read_figures(run: pathlib.Path, name: str) -> str:
    try:
        return (run / "eval" / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{run / 'eval' / name} is missing: python -m launch.eval --checkpoint={run} makes it, for the card"
        ) from error


def _parsed(results: str, path: pathlib.Path) -> dict[str, Any]:
    """The figures of an evaluation, which tells of what step they are."""
    try:
        figures = json.loads(results)
        figures["step"]  # or these are no figures of a run
        return figures
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no evaluation of a run ({error!r}): python -m launch.eval --checkpoint=RUN makes it anew"
        ) from error


@dataclasses.dataclass(frozen=True)
class _Abilities:
    """An evaluation of abilities: its summary, its tables, and all its figures as JSON."""

    summary: str
    table: str
    results: str


def _read_abilities(folder: pathlib.Path, run: pathlib.Path, step: str) -> _Abilities:
    """An evaluation of all abilities of a run's step."""
    try:
        figures = (folder / RESULTS).read_text(encoding="utf-8")
        results = json.loads(figures)
        model, summary, split, families = (results[name] for name in ("model", "summary", "split", "families"))
        named, _, stepped = model.rpartition(", ")
        text = (folder / TABLE).read_text(encoding="utf-8")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{folder} is no evaluation of abilities ({error!r}): python -m launch.eval --suite=interactivity makes it"
        ) from error
    if run.name not in pathlib.Path(named).parts or stepped != f"step {step}":
        raise CheckpointError(
            f"{folder} is of {model}, not of {run}, step {step}, which is to be copied: evaluate that"
        )
    lacking = sorted(set(FAMILIES) - set(families))
    if split != HELD_OUT or lacking:
        what = f"is of the split {split}" if split != HELD_OUT else f"lacks the families {', '.join(lacking)}"
        raise CheckpointError(f"{folder} {what}: the card tells of all held-out families")
    return _Abilities(str(summary), text, figures)


def _without_machine(config: Config) -> Config:
    """Places of the machine that trained it mean nothing elsewhere; the usual ones take their places."""
    data, train = config.data, config.train
    if pathlib.Path(data.directory).is_absolute():
        data = dataclasses.replace(data, directory=f"data/{config.name}")
    if pathlib.Path(train.init_from).is_absolute():
        train = dataclasses.replace(train, init_from=f"runs/{pathlib.Path(train.init_from).name}")
    if pathlib.Path(data.clips).is_absolute():
        data = dataclasses.replace(data, clips=f"data/{pathlib.Path(data.clips).name}")
    return dataclasses.replace(config, data=data, train=train)


def _size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _compare(run: pathlib.Path, copy: pathlib.Path, config: Config, count: int, log: Log) -> Agreement:
    """Streams held-out conversations through both; their families take turns in the held-out set."""
    held_out = list(open_shards(pathlib.Path(config.data.directory) / config.data.held_out))
    conversations: list[Conversation] = held_out[:count]
    log(f"streaming {len(conversations)} held-out conversations through the run and through the copy")
    tasks = any(planned(conversation) for conversation in held_out)  # as in the evaluation
    first, second = (stream(Talker(str(folder), delegate=tasks), conversations) for folder in (run, copy))
    return agreement(conversations, first, second, reply_frequency(held_out))
