"""What a suite found: figures with bootstrap intervals as JSON, as a Markdown table and as a picture."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tml_jax.eval.estimates import Estimate, mean, pooled
from tml_jax.files import write_whole


@dataclasses.dataclass(frozen=True)
class Metric:
    """One figure of a task, from its values for each item.

    Attributes:
      name: of the figure.
      values: id of the item → value. Items for which it is not defined are left out.
      unit: `%` (values are shares, 0 to 1), `s`, or "" for a plain number.
      counts: id of the item → cases that `values` is the sum of; None where each item is one case.
    """

    name: str
    values: Mapping[str, float]
    unit: str = "%"
    counts: Mapping[str, int] | None = None

    @property
    def estimate(self) -> Estimate:
        """The mean over cases; items are drawn whole."""
        if self.counts is None:
            return mean(list(self.values.values()))
        return pooled(list(self.values.values()), [self.counts[item] for item in self.values])


@dataclasses.dataclass(frozen=True)
class Section:
    """The figures of one task of a suite. `notes` say what a reader must know to understand them."""

    task: str
    items: int
    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()


def table(sections: Sequence[Section]) -> str:
    """A Markdown table, a line for each figure, and the notes below."""
    lines = ["| task | items | figure | value (95%) | cases |", "| --- | ---: | --- | ---: | ---: |"]
    for section in sections:
        for metric in section.metrics:
            found = metric.estimate
            cells = section.task, section.items, metric.name, cell(found, metric.unit), found.count
            lines.append("| " + " | ".join(str(part).replace("|", "\\|") for part in cells) + " |")
    notes = list(dict.fromkeys(f"{section.task}: {note}" for section in sections for note in section.notes))
    return "\n".join(lines) + "\n" + "".join(f"\n- {note}" for note in notes) + ("\n" if notes else "")


def cell(found: Estimate, unit: str) -> str:
    """`97.0% (95.0–99.0)`, `0.20 s (0.15 to 0.25)`, or a dash where there were no cases."""
    if not found.count:
        return "–"
    scale, digits = (100, 1) if unit == "%" else (1, 2 if unit == "s" else 3)
    value, low, high = (f"{scale * number:.{digits}f}" for number in (found.value, found.low, found.high))
    return f"{value}% ({low}–{high})" if unit == "%" else f"{value}{f' {unit}' if unit else ''} ({low} to {high})"


def write_report(output: pathlib.Path, facts: Mapping[str, Any], sections: Sequence[Section]) -> str:
    """Writes results.json, table.md and figures.png.

    Args:
      output: folder; it is made.
      facts: what was run, JSON types: suite, evaluator, recogniser, judge, …
      sections: what was found.

    Returns:
      The table.
    """
    results = {**facts, "tasks": [_plain(section) for section in sections]}
    write_whole(output / "results.json", json.dumps(results, indent=1, ensure_ascii=False))
    text = table(sections)
    write_whole(output / "table.md", text)
    draw(output / "figures.png", sections, str(facts.get("suite", "")))
    return text


def metrics_by(name: str, values: Mapping[str, float], category: Mapping[str, str]) -> tuple[Metric, ...]:
    """A metric of all items, and of those of each category.

    Args:
      name: of the metric; the category is named behind it.
      values: item → its value.
      category: item → its category.

    Returns:
      `all` first, then the categories as they come.
    """
    found: dict[str, dict[str, float]] = {"all": dict(values)}
    for item, value in values.items():
        found.setdefault(category[item], {})[item] = value
    return tuple(Metric(f"{name}, {kind}", entries) for kind, entries in found.items())


def draw(path: pathlib.Path, sections: Sequence[Section], title: str) -> None:
    """One panel for each unit: a dot for each figure, a line for its interval."""
    units = [unit for unit in ("%", "s", "") if any(metric.unit == unit for s in sections for metric in s.metrics)]
    rows = {u: [(s.task, m) for s in sections for m in s.metrics if m.unit == u and m.estimate.count] for u in units}
    rows = {unit: entries for unit, entries in rows.items() if entries}
    heights = [len(entries) for entries in rows.values()] or [1]
    figure = Figure(figsize=(8, 0.6 + 0.32 * sum(heights) + 0.5 * len(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (unit, entries) in zip(panels, rows.items()):
        scale = 100 if unit == "%" else 1
        for line, (_, metric) in enumerate(entries):
            found = metric.estimate
            low, high = (found.value if math.isnan(end) else end for end in (found.low, found.high))
            axes.plot([scale * low, scale * high], [line, line], color="#9aa1ab", lw=2)
            axes.plot([scale * found.value], [line], "o", color="#3b6ea5")
        axes.set_yticks(range(len(entries)), [f"{task}: {metric.name}" for task, metric in entries], fontsize=8)
        axes.set_ylim(len(entries) - 0.5, -0.5)
        axes.set_xlabel({"%": "%", "s": "seconds", "": "value"}[unit], fontsize=8)
        if unit == "%":
            axes.set_xlim(-2, 102)
        axes.grid(axis="x", color="#e6e8eb")
    figure.savefig(path, dpi=100)


def _plain(section: Section) -> dict[str, Any]:
    metrics = {}
    for metric in section.metrics:
        entry = dataclasses.asdict(metric.estimate)
        entry = {name: None if isinstance(part, float) and math.isnan(part) else part for name, part in entry.items()}
        metrics[metric.name] = {**entry, "unit": metric.unit, "items": dict(metric.values)}
    return {"task": section.task, "items": section.items, "metrics": metrics, "notes": list(section.notes)}
