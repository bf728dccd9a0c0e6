"""A run as a picture: its losses, its gradients, how evenly its experts are used and what they drop, and its speed."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tml_jax.train.metrics import HELD_OUT, METRICS, TRAIN, read

FILE = "curves.png"
_PANELS: tuple[tuple[str, tuple[str, ...], float | None], ...] = (  # title, metrics, an ideal to draw
    ("loss", ("text_loss", "gate_loss", "flow_loss"), None),
    ("accuracy", ("text_accuracy", "gate_accuracy"), 1.0),
    ("load of the fullest expert / mean load, worst layer", ("expert_load_max",), 1.0),
    ("share of pairs of token and expert that are dropped", ("expert_dropped",), 0.0),
    ("gradient norm", ("grad_norm",), None),
    ("micro-turns a second", ("micro_turns_per_second",), None),
)
_SMOOTHED = 50  # points a curve is averaged to: single steps are too noisy to see a course in


def draw_curves(run_dir: str | os.PathLike) -> pathlib.Path | None:
    """Draws RUN/metrics.jsonl into RUN/curves.png: means over training steps as lines, held-out values as dots.

    Args:
      run_dir: folder of the run.

    Returns:
      The picture's path; None where there is no step to draw.

    Raises:
      MetricsError: a line of metrics.jsonl is not JSON.
    """
    run_dir = pathlib.Path(run_dir)
    lines = list(read(run_dir / METRICS))
    steps, held_out = ([line for line in lines if line["split"] == split] for split in (TRAIN, HELD_OUT))
    if not steps:
        return None
    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 3).flat
    for panel, (title, names, ideal) in zip(axes, _PANELS, strict=True):
        for number, name in enumerate(names):
            color = f"C{number}"
            _line(panel, [(line["step"], line[name]) for line in steps if name in line], name, color)
            dots = [(line["step"], line[name]) for line in held_out if name in line]
            if dots:
                panel.plot(*zip(*dots), "o", color=color, markersize=4, label=f"{name}, held out")
        if ideal is not None:
            panel.axhline(ideal, color="0.7", linewidth=1, linestyle="--")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=8, frameon=False)
    figure.suptitle(run_dir.name)
    figure.savefig(run_dir / FILE, dpi=110)
    return run_dir / FILE


def _line(panel: Axes, points: Sequence[tuple[int, float]], name: str, color: str) -> None:
    if not points:
        return
    groups = np.array_split(np.asarray(points, np.float64), min(_SMOOTHED, len(points)))
    means = np.stack([group.mean(axis=0) for group in groups])
    panel.plot(means[:, 0], means[:, 1], color=color, label=name)
