"""One run of the suite `interactivity`: scenes, the model and its ablations, policies that know no words, the report.

A cell is one family with one seed. What is known of a cell is kept, so that a run that was cut short goes on.
"""

import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tml_jax.data.record import Conversation
from tml_jax.eval import baselines
from tml_jax.eval.abilities.ablations import ABLATIONS
from tml_jax.eval.abilities.aims import NOTHING_ASKED, Seen
from tml_jax.eval.abilities.report import CEILING, MODEL, Found, write_report
from tml_jax.eval.abilities.scenes import check_families, kept_scenes
from tml_jax.eval.conversation import write_example
from tml_jax.eval.delegation import Delegation, score_delegation
from tml_jax.eval.interactivity import Measurement, measure, reply_frequency
from tml_jax.eval.streaming import stream
from tml_jax.eval.suites.run import check_own, claimed
from tml_jax.eval.suites.transcripts import SuiteError
from tml_jax.files import write_whole
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.scripts import HELD_OUT, TEST_SPLITS
from tml_jax.scenes.sources import TRAINING
from tml_jax.serve.session import Talker
from tml_jax.serve.words import MicroTurn

FIT_SCENES, FEWEST_FIT, FIT_SEED = 64, 8, 0  # of each family's training split, that the policies are fitted on
# Family → the fact of a scene that says what decides, where that is not the wording of the request.
_DECIDES = {"interruption": "break_in", "backchannel": "break_in", "side_talk": "talk", "background": "talk"}
_NOTED = {field.name for field in dataclasses.fields(Seen)}
NAMES = (MODEL, *ABLATIONS, *baselines.POLICIES, CEILING)  # of what is run
Cell = dict[str, list[Seen]]  # each of `NAMES` → what was observed, a scene each


def evaluate(
    talker: Callable[[], Talker],
    output: pathlib.Path,
    model: str,
    version: str = "",
    scenes: int = 200,
    seeds: Sequence[int] = (0, 1, 2),
    families: Sequence[str] = (),
    data: pathlib.Path | None = None,
    split: str = HELD_OUT,
    log: Callable[[str], None] = print,
) -> str:
    """Runs the suite and writes OUTPUT: `results.json`, `table.md`, `abilities.png`, `examples/FAMILY/`, `cells/`.

    Args:
      talker: loads the model, as it serves.
      output: folder to write to.
      model: what `talker` loads, as the tables call it. A run goes on where it was cut short, if the same model made
        what is there.
      version: tells models of one name apart.
      scenes: how many of each family and seed.
      seeds: of the scenes.
      families: names; none for all.
      data: folder where the scenes are kept; None for OUTPUT/scenes.
      split: of the scenes, one of `TEST_SPLITS`: `held_out`; `extrapolation`, which goes beyond the ranges of training;
        `other_voices`, held out with speakers of another engine; or `development`, by which to choose.
      log: where progress goes.

    Returns:
      The tables, in Markdown, with a summary.

    Raises:
      ValueError: a family or split is unknown, or there are no scenes or seeds.
      SuiteError: OUTPUT is another model's, tells of more seeds, or holds other files.
      FolderBusyError: another process is at work there.
      ImportError: the voices are not installed.
    """
    chosen = check_families(families)
    seeds = tuple(dict.fromkeys(seeds))
    if scenes < 1 or not seeds or min(seeds) < 0:
        raise ValueError(
            f"scenes {scenes}, seeds {','.join(map(str, seeds)) or 'none'}: expected at least one of each, and no seed "
            "below 0"
        )
    if split not in TEST_SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(TEST_SPLITS)}")
    made_by = {"suite": "interactivity", "model": model, "version": version, "split": split}
    # The policies are fitted on as many scenes of each family; and fewer scenes must not take the place of more.
    made_by |= {"families": ",".join(chosen), "scenes": str(scenes)}
    if data is not None:
        made_by["data"] = str(data.resolve())
    places = [(family, seed) for family in chosen for seed in seeds]
    check_own(output)
    with claimed(output, made_by):
        _check_seeds(output, seeds)
        kept = {place: _read(_path(output, place), scenes) for place in places}
        missing = [place for place, cell in kept.items() if cell is None]
        there = len(places) - len(missing)
        log(f"interactivity: {len(places)} times {scenes} scenes, {there} of {len(places)} are there")
        if missing:
            source = output / "scenes" if data is None else data
            fitted = _fit(source, min(max(scenes, FEWEST_FIT), FIT_SCENES), log)
            speaker, began = talker(), time.monotonic()
            for done, place in enumerate(missing, start=1):
                kept[place] = _run(speaker, kept_scenes(source, split, *place, scenes), *place, fitted, output)
                _write(_path(output, place), kept[place])
                each = (time.monotonic() - began) / done
                left = f"{scenes / each:.1f} scenes a second, {each * (len(missing) - done):.0f} s left"
                log(f"{place[0]}, seed {place[1]}: {done} of {len(missing)}, {left}")
        facts = {
            "suite": "interactivity",
            "model": model,
            "split": split,
            "scenes": scenes,
            "seeds": list(seeds),
            "families": list(chosen),
            "data": None if data is None else str(data),
        }
        found: Found = {
            name: {seed: [item for family in chosen for item in kept[family, seed][name]] for seed in seeds}
            for name in NAMES
        }
        return write_report(output, facts, found)


def _check_seeds(output: pathlib.Path, seeds: Sequence[int]) -> None:
    """Makes sure that the tables of some seeds do not take the place of those of more."""
    try:
        told = set(json.loads((output / "results.json").read_text(encoding="utf-8"))["seeds"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if not told <= set(seeds):
        every = ",".join(map(str, sorted(told | set(seeds))))
        raise SuiteError(f"{output} tells of more seeds: give --seeds={every}, or another --output")


def _fit(source: pathlib.Path, count: int, log: Callable[[str], None]) -> Mapping[str, baselines.Params]:
    """Parameters for the policies: of each family's training scenes, where they have a reply, and of all under "".

    All are there whichever are measured, so that what a policy is does not depend on that.
    """
    log(f"fitting the policies on {count} training scenes of each of {len(FAMILIES)} families")
    scenes = {family: kept_scenes(source, TRAINING, family, FIT_SEED, count) for family in FAMILIES}
    fitted = {"": baselines.fit([record for records in scenes.values() for record in records])}
    for family, records in scenes.items():
        with contextlib.suppress(ValueError):  # it has no reply
            fitted[family] = baselines.fit(records)
    return fitted


def _run(
    talker: Talker,
    scenes: Sequence[Conversation],
    family: str,
    seed: int,
    fitted: Mapping[str, baselines.Params],
    output: pathlib.Path,
) -> Cell:
    """Everything that is measured on the scenes of one family and seed."""
    frequency = reply_frequency(scenes)

    def measured(turns: Sequence[Sequence[MicroTurn]]) -> list[Seen]:
        return [
            Seen(
                measure(scene, lines, frequency, sound=True),
                score_delegation(scene, lines),
                _noise(scene),
                _wording(scene),
            )
            for scene, lines in zip(scenes, turns)
        ]

    spoken = stream(talker, scenes)
    example = output / "examples" / family
    if not example.exists():
        write_example(example, scenes[0], spoken[0], desk=talker.config.serve.delegate)
    cell = {MODEL: measured(spoken)}
    del spoken
    for name, change in ABLATIONS.items():
        changed = [change(scene, index) for index, scene in enumerate(scenes)]
        differs = any(_differs(one, other) for one, other in zip(scenes, changed))
        cell[name] = measured(stream(talker, changed)) if differs else cell[MODEL]
    for name, policy in baselines.POLICIES.items():
        # The majority knows what kind of scene it is in; where that has no reply, it says nothing.
        params = fitted.get(family) if policy is baselines.majority else fitted[""]
        chosen = (policy, params) if params is not None else (baselines.always_listening, fitted[""])
        cell[name] = measured([baselines.run(*chosen, scene) for scene in scenes])
    cell[CEILING] = measured([baselines.as_recorded(scene) for scene in scenes])
    return cell


def _noise(scene: Conversation) -> str:
    """The kind of noise behind a scene, as `Seen` has it."""
    return "faint" if scene.meta.get("near_clean") else scene.meta.get("noise", "none")


def _wording(scene: Conversation) -> str:
    """What is said that decides, as `Seen` has it."""
    decides = _DECIDES.get(scene.family, "wording")
    return scene.meta.get(decides) or NOTHING_ASKED


def _differs(scene: Conversation, changed: Conversation) -> bool:
    """Whether a change of a scene changed what the model gets; where there are no frames, none can be frozen."""
    same = scene.frames is changed.frames and scene.user_audio is changed.user_audio
    return not same or scene.texts != changed.texts


def _path(output: pathlib.Path, place: tuple[str, int]) -> pathlib.Path:
    return output / "cells" / f"{place[0]}-{place[1]}.json"


def _write(path: pathlib.Path, cell: Cell) -> None:
    write_whole(path, json.dumps({name: [dataclasses.asdict(item) for item in items] for name, items in cell.items()}))


def _read(path: pathlib.Path, scenes: int) -> Cell | None:
    """A cell with as many scenes that notes all that is told of them now, or None: it is measured then."""
    try:
        plain = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    try:
        whole = all(len(plain[name]) == scenes for name in NAMES)
        noted = all(_NOTED <= set(item) for item in plain[MODEL])
        return {name: [_seen(item) for item in plain[name]] for name in NAMES} if whole and noted else None
    except (KeyError, TypeError, AttributeError):  # JSON of another shape
        return None


def _seen(item: dict[str, Any]) -> Seen:
    """From JSON."""
    measured, tasks = Measurement(**_tuples(item["measured"])), Delegation(**_tuples(item["tasks"]))
    return Seen(measured, tasks, item["noise"], item["wording"])


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """Lists, as JSON has them, as tuples."""
    deep = lambda part: tuple(map(deep, part)) if isinstance(part, list) else part  # noqa: E731
    return {name: deep(part) for name, part in fields.items()}
