"""The chart of the suite `interactivity`: each figure with its interval, against its target and simple policies."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tml_jax.eval.estimates import Estimate

INK, MODEL_COLOUR, OWN_COLOUR, OTHER_COLOUR, TARGET_COLOUR = "#2b2f36", "#c05f2e", "#b0526a", "#7d8591", "#4c8a5c"
MARKS = ("v", "x", "+", "^", "s", "D")  # of the policies, in their order
LONGEST_SECONDS = 3.0  # later replies are drawn at the edge


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of the chart.

    Attributes:
      label: at the left.
      unit: `%` (shares, 0 to 1) or `s`.
      target: to be reached.
      at_most: from above, else from below.
      model: the model's figure.
      own: the same under the ablation that must make the ability collapse.
      others: figures of the policies and the record.
    """

    label: str
    unit: str
    target: float
    at_most: bool
    model: Estimate
    own: Estimate
    others: Mapping[str, Estimate]


def draw(path: pathlib.Path, lines: Sequence[Line], title: str) -> None:
    """Writes a PNG with a panel for shares and one for seconds; with no lines, the title alone."""
    panels = {unit: [line for line in lines if line.unit == unit] for unit in ("%", "s")}
    panels = {unit: rows for unit, rows in panels.items() if rows}
    heights = [len(rows) + 1 for rows in panels.values()] or [1]
    picture = Figure(figsize=(11, 1.1 + 0.42 * sum(heights)), dpi=100, layout="constrained", facecolor="white")
    FigureCanvasAgg(picture)
    picture.suptitle(title, color=INK, fontsize=11)
    axes_of = picture.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (unit, rows) in zip(axes_of, panels.items()):
        _panel(axes, unit, rows)
    if panels:
        handles = dict(zip(*reversed(axes_of[0].get_legend_handles_labels())))
        picture.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    else:
        axes_of[0].set_axis_off()
    picture.savefig(path)


def _panel(axes: Axes, unit: str, rows: Sequence[Line]) -> None:
    scale, limit = (100.0, math.inf) if unit == "%" else (1.0, LONGEST_SECONDS)
    place = lambda value: scale * min(value, limit)  # noqa: E731
    for height, line in enumerate(rows):
        goal, edge = place(line.target), _far_edge(unit, line.at_most)
        axes.barh(height, edge - goal, left=goal, height=0.8, color=TARGET_COLOUR, alpha=0.16, lw=0, label="target")
        for mark, (name, found) in zip(MARKS, line.others.items()):
            if found.count:
                axes.plot(place(found.value), height, mark, color=OTHER_COLOUR, ms=6, mew=1.4, label=name, ls="")
        if line.own.count:
            axes.plot(
                place(line.own.value), height, "o", mfc="white", mec=OWN_COLOUR, ms=8, ls="", label="own ablation"
            )  # fmt: skip
        low, high = (line.model.value if math.isnan(end) else end for end in (line.model.low, line.model.high))
        axes.plot([place(low), place(high)], [height, height], color=MODEL_COLOUR, lw=3, alpha=0.55)
        axes.plot(place(line.model.value), height, "o", color=MODEL_COLOUR, ms=7, ls="", label="model")
    axes.set_yticks(range(len(rows)), [line.label for line in rows], fontsize=9, color=INK)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(*((-2, 102) if unit == "%" else (-0.5, LONGEST_SECONDS + 0.05)))
    axes.set_xlabel("%" if unit == "%" else f"seconds ({LONGEST_SECONDS:g} or more at the edge)", fontsize=9, color=INK)
    axes.grid(axis="x", color="#e6e8eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _far_edge(unit: str, at_most: bool) -> float:
    """Where the region that reaches a target ends, in units of the axis."""
    if unit == "%":
        return 0.0 if at_most else 100.0
    return -0.5 if at_most else LONGEST_SECONDS
