"""What the suite `interactivity` found: JSON, Markdown tables, a chart, and a summary of one paragraph."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tml_jax.eval.abilities.ablations import ABLATIONS
from tml_jax.eval.abilities.aims import ABILITIES, PASSED, Ability, Aim, Seen, collapses, figure, with_best_constant
from tml_jax.eval.abilities.chart import Line, draw
from tml_jax.eval.baselines import MAJORITY, POLICIES
from tml_jax.eval.estimates import Estimate
from tml_jax.eval.interactivity import NEVER_SECONDS, by_family, table
from tml_jax.eval.suites.report import cell
from tml_jax.files import write_whole
from tml_jax.markdown import markdown_table

MODEL, CEILING = "model", "as recorded"
Found = Mapping[str, Mapping[int, Sequence[Seen]]]  # what was run → seed → what was observed, a scene each
Figures = Mapping[str, Mapping[str, Estimate]]  # what was run → aim → its figure

_PROOF = 200  # scenes of a family
_HARDEST, _ENOUGH = 15, 5  # wordings that the table shows; scenes that one must have
NOTES = """\
Times are those of the sound: 10 ms frames above −50 dBFS. A reply counts as timely within 0.4 s of the recorded one,
with the words due and no others in the model's text; in `timed`, `cue` and what is seen, nothing may be said before it
is due. A time to the reply is `never` where most requests got none. Intervals are bootstrap intervals over wordings,
each with all its scenes. An ability collapses where a figure gets worse beyond both intervals and misses its target.
`energy threshold` replies after 0.3 s of sound and 500 ms without; `majority` gives the family's most frequent reply
at its most frequent time, and counts by the one number that is right most often in these very scenes; `as recorded`
plays the record. Everything right: each reply timely, no take-over or false start, yielded, kept, counted exactly,
tasks those due.
"""


def write_report(output: pathlib.Path, facts: Mapping[str, Any], found: Found) -> str:
    """Writes results.json, table.md and abilities.png.

    Args:
      output: folder.
      facts: what was run, JSON types.
      found: of the model, its ablations, the policies and the record, each with the same scenes.

    Returns:
      The tables, with the summary above them.
    """
    pooled = {name: [item for items in seeds.values() for item in items] for name, seeds in found.items()}
    figures = {
        name: {aim.name: figure(aim, _judged(name, aim, items)) for aim in _aims()} for name, items in pooled.items()
    }
    spread = {
        aim.name: {seed: figure(aim, items, resamples=1).value for seed, items in found[MODEL].items()}
        for aim in _aims()
    }
    families, noises = (_passed_by(key, pooled) for key in (lambda item: item.family, lambda item: item.noise))
    wordings = _passed_by(lambda item: f"{item.family}: {item.wording}", {MODEL: pooled[MODEL]})
    scores = by_family([item.measured for item in pooled[MODEL]])
    said = summary(facts, figures)
    text = "\n".join(
        [
            f"{said}\n",
            _targets(figures, spread),
            "Beside ablations of its input and policies that know no words:\n",
            _beside(figures),
            "What each ability rests on:\n",
            _collapse(figures),
            "Scenes in which everything was right:\n",
            _passed_table("family", families),
            "The same by the noise behind them; `wind` and `beeps` lie behind no scene of training:\n",
            _passed_table("noise", noises),
            *_hardest(wordings),
            "The model by family, with the columns of `tml_jax/eval/interactivity.py`, by sound:\n",
            table(scores),
            NOTES,
        ]
    )
    results = {
        **facts,
        "summary": said,
        "abilities": [_plain_ability(ability, figures, spread) for ability in ABILITIES],
        "passed": _plain_rows(families),
        "passed_by_noise": _plain_rows(noises),
        "passed_by_wording": {
            asked: {"share": row[MODEL].value, "scenes": row[MODEL].count} for asked, row in wordings.items()
        },
        "families": {name: _plain_score(score) for name, score in scores.items()},
    }
    write_whole(output / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    write_whole(output / "table.md", text)
    draw(output / "abilities.png", _lines(figures), f"{facts['model']}, {len(pooled[MODEL])} scenes")
    return text


def summary(facts: Mapping[str, Any], figures: Figures) -> str:
    """One paragraph: targets reached and missed, abilities that are whole, and what falls without its input."""
    judged = {aim.name: aim.reached(figures[MODEL][aim.name].value) for aim in _aims()}
    reached = [name for name, ok in judged.items() if ok]
    missed = [name for name, ok in judged.items() if ok is False]
    whole = [ability.name for ability in ABILITIES if _whole(ability, figures[MODEL])]
    falls = {ability.name: collapses(ability, figures[MODEL], figures[ability.own]) for ability in ABILITIES}
    judged_falls = [ok for ok in falls.values() if ok is not None]
    seeds, each = ", ".join(map(str, facts["seeds"])), facts["scenes"] * len(facts["seeds"])
    return (
        f"{facts['model']}, {facts['scenes']} {facts['split'].replace('_', '-')} scenes of each of "
        f"{len(facts['families'])} families with each of the seeds {seeds}: "
        f"{len(reached)} of {len(reached) + len(missed)} targets are reached"
        f"{f' ({_listed(reached)})' if reached else ''}"
        f"{f'; missed are {_listed(missed)}' if missed else ''}. "
        f"Abilities with all their targets: {_listed(whole) or 'none'}. Without what they rest on, "
        f"{sum(judged_falls)} of {len(judged_falls)} abilities collapse."
        f"{'' if each >= _PROOF else f' {each} scenes of a family are a look, and no proof: that takes {_PROOF}.'}"
    )


def _aims() -> list[Aim]:
    return [aim for ability in ABILITIES for aim in ability.aims]


def _judged(name: str, aim: Aim, items: Sequence[Seen]) -> Sequence[Seen]:
    """What was observed of `name`; of the majority, what counts would be of the constant that serves the aim best."""
    return with_best_constant(aim, items) if name == MAJORITY else items


def _whole(ability: Ability, model: Mapping[str, Estimate]) -> bool:
    judged = [aim.reached(model[aim.name].value) for aim in ability.aims if aim.target is not None]
    return bool(judged) and all(judged)


def _passed_by(key: Callable[[Seen], str], pooled: Mapping[str, Sequence[Seen]]) -> dict[str, dict[str, Estimate]]:
    """Value of `key` → what was run → the share of its scenes in which everything was right."""
    return {
        value: {name: figure(PASSED, [item for item in items if key(item) == value]) for name, items in pooled.items()}
        for value in sorted({key(item) for item in pooled[MODEL]})
    }


def _in_question(figures: Figures) -> list[tuple[Ability, Aim]]:
    """The aims that the scenes of these families have cases of, each with its ability."""
    return [
        (ability, aim)
        for ability in ABILITIES
        for aim in ability.aims
        if figures[MODEL][aim.name].count or figures[CEILING][aim.name].count
    ]


def _targets(figures: Figures, spread: Mapping[str, Mapping[int, float]]) -> str:
    heads = ["ability", "figure", "target", "model (95%)", "lowest and highest seed", "cases", "reached"]
    rows = [[*heads, "best policy that knows no words"]]
    for ability, aim in _in_question(figures):
        found = figures[MODEL][aim.name]
        reached = aim.reached(found.value)
        values = [value for value in spread[aim.name].values() if not math.isnan(value)]
        ends = f"{_value(min(values), aim.unit)} to {_value(max(values), aim.unit)}" if values else "–"
        limit = "–" if aim.target is None else f"{'≤' if aim.at_most else '≥'} {_value(aim.target, aim.unit)}"
        verdict = {None: "–", True: "yes", False: "no"}[reached]
        row = [ability.name or "also", aim.name, limit, _cell(found, aim.unit), ends, found.count, verdict]
        rows.append([*row, _best_policy(aim, figures)])
    return markdown_table(rows)


def _best_policy(aim: Aim, figures: Figures) -> str:
    """The value and name of the policy that serves an aim best: what can be had without knowing a word."""
    values = {name: figures[name][aim.name].value for name in POLICIES if name in figures}
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if not known:
        return "–"
    best = (min if aim.at_most or aim.median else max)(known, key=known.__getitem__)
    return f"{_value(known[best], aim.unit)}, {best}"


def _beside(figures: Figures) -> str:
    rows = [
        [aim.name, *(_value(part[aim.name].value, aim.unit) for part in figures.values())]
        for _, aim in _in_question(figures)
    ]
    return markdown_table([["figure", *figures], *rows])


def _collapse(figures: Figures) -> str:
    rows = [["ability", "without", "collapses"]]
    for ability in ABILITIES:
        falls = collapses(ability, figures[MODEL], figures[ability.own])
        if ability.name and falls is not None:
            rows.append([ability.name, ability.own, "yes" if falls else "no"])
    return markdown_table(rows)


def _passed_table(by: str, shares: Mapping[str, Mapping[str, Estimate]]) -> str:
    rows = [[by, "scenes", *next(iter(shares.values()))]]
    for value, row in shares.items():
        others = [_value(found.value, "%") for name, found in row.items() if name != MODEL]
        rows.append([value, row[MODEL].count, _cell(row[MODEL], "%"), *others])
    return markdown_table(rows)


def _hardest(wordings: Mapping[str, Mapping[str, Estimate]]) -> list[str]:
    """The table with its head; nothing where no wording has scenes enough."""
    often = [(asked, row[MODEL]) for asked, row in wordings.items() if row[MODEL].count >= _ENOUGH]
    hardest = sorted(often, key=lambda each: each[1].value)[:_HARDEST]
    rows = [[asked, found.count, _value(found.value, "%")] for asked, found in hardest]
    if not rows:
        return []
    head = f"The {len(rows)} wordings of which fewest scenes were all right (`results.json` has all):\n"
    return [head, markdown_table([["wording", "scenes", "model"], *rows])]


def _lines(figures: Figures) -> list[Line]:
    """What the chart shows: figures with a target that were measured."""
    lines = []
    for ability in ABILITIES:
        for aim in ability.aims:
            if aim.target is not None and figures[MODEL][aim.name].count:
                others = {name: row[aim.name] for name, row in figures.items() if name not in (MODEL, *ABLATIONS)}
                without = figures[ability.own][aim.name]
                label = f"{ability.name}: {aim.name}"
                lines.append(Line(label, aim.unit, aim.target, aim.at_most, figures[MODEL][aim.name], without, others))
    return lines


def _value(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    if unit == "s":
        return "never" if value >= NEVER_SECONDS else f"{value:.2f} s"
    return f"{100 * value:.1f}%"


def _cell(found: Estimate, unit: str) -> str:
    return "never" if unit == "s" and found.count and found.value >= NEVER_SECONDS else cell(found, unit)


def _listed(names: Sequence[str]) -> str:
    return "; ".join(names)


def _plain(found: Estimate) -> dict[str, Any]:
    fields = dataclasses.asdict(found)
    return {name: None if isinstance(part, float) and math.isnan(part) else part for name, part in fields.items()}


def _plain_rows(rows: Mapping[str, Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    return {value: {name: _plain(part) for name, part in row.items()} for value, row in rows.items()}


def _plain_score(score: Any) -> dict[str, Any]:
    parts = {field.name: getattr(score, field.name) for field in dataclasses.fields(score)}
    return {name: _plain(part) if isinstance(part, Estimate) else part for name, part in parts.items()}


def _plain_ability(ability: Ability, figures: Figures, spread: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
    aims = [
        {
            "name": aim.name,
            "unit": aim.unit,
            "target": aim.target,
            "at_most": aim.at_most,
            "reached": aim.reached(figures[MODEL][aim.name].value),
            "seeds": {seed: None if math.isnan(value) else value for seed, value in spread[aim.name].items()},
            **{name: _plain(row[aim.name]) for name, row in figures.items()},
        }
        for aim in ability.aims
    ]
    falls = collapses(ability, figures[MODEL], figures[ability.own])
    return {"name": ability.name, "own_ablation": ability.own, "collapses": falls, "figures": aims}
