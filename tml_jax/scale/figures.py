"""The published figures of pods: what is compiled for them, and the tables that they make."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from tml_jax.config import BATCH_AXES, MICRO_TURN_SECONDS


@dataclasses.dataclass(frozen=True)
class Figure:
    """One call of `launch.compile`, and so one line of a table.

    Attributes:
      config: name of the configuration, `configs/NAME.py`.
      topology: chips and their shape.
      step: `train` or `serve`.
      sessions: for serve, in one call.
      frames: for serve, whether a video frame arrives in every micro-turn.
    """

    config: str
    topology: str
    step: str
    sessions: int = 0
    frames: bool = False

    @property
    def name(self) -> str:
        """Of the file that holds it."""
        rest = f"_{self.sessions}{'_frames' if self.frames else ''}" if self.step == "serve" else ""
        return f"{self.config}_{self.step}{rest}"

    def arguments(self) -> list[str]:
        """What `launch.compile` is given."""
        common = [f"--config=configs/{self.config}.py", f"--topology={self.topology}", f"--step={self.step}"]
        if self.step == "train":
            return common
        return [*common, f"--sessions={self.sessions}", f"--frames={str(self.frames).lower()}"]


def _serve(config: str, topology: str, *sessions: tuple[int, bool]) -> tuple[Figure, ...]:
    return tuple(Figure(config, topology, "serve", count, frames) for count, frames in sessions)


_SESSIONS = ((1, False), (1, True), (128, False), (128, True), (256, False), (256, True))
FIGURES = (
    Figure("tml_v5p_512", "v5p:8x8x8", "train"),
    Figure("tml_tpu7x_64", "tpu7x:4x4x4", "train"),
    Figure("tml_v6e_256", "v6e:16x16", "train"),
    *_serve("tml_serve_tpu7x_16", "tpu7x:2x2x4", *_SESSIONS),
    *_serve("tml_serve_v6e_64", "v6e:8x8", *_SESSIONS),
    *_serve("tml_serve_v6e_16", "v6e:4x4", (1, False), (1, True)),
)


def _memory(report: dict[str, Any]) -> str:
    return f"{report['hbm_bytes_per_device'] / 2**30:.1f} of {report['hbm_bytes_available'] / 2**30:.1f} GiB"


def _rate(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _by_part(report: dict[str, Any]) -> str:
    times = report["steps_of_a_micro_turn"]
    each = report["optimal_seconds_by_part"]
    return ", ".join(f"{times[part]} × {seconds * 1e3:.2f}" for part, seconds in each.items())


_TRAIN = {
    "chips": lambda r: r["topology"],
    "rows, remat": lambda r: f"{r['rows']}, {r['remat']}",
    "memory": _memory,
    "step": lambda r: f"{r['optimal_seconds']:.2f} s",
    "operations, compiler / by hand": lambda r: f"{r['flops'] / 1e12:.0f} / {r['analytic_flops'] / 1e12:.0f} T",
    "MFU": lambda r: "–" if r["mfu"] is None else f"{r['mfu']:.1%}",
    "tokens / s / chip": lambda r: _rate(r["tokens_per_second_per_chip"]),
    "micro-turns / s / chip": lambda r: _rate(r["micro_turns_per_second_per_chip"]),
    "memory alone": lambda r: f"{r['memory_seconds']:.2f} s",
    "collectives": lambda r: f"{r['sent_bytes'] / 1e9:.0f} GB, {r['collective_seconds']:.2f} s",
    "untimed": lambda r: f"{r['untimed_operations']:,.0f}",
}
_SERVE = {
    "chips": lambda r: r["topology"],
    "weights": lambda r: r["weights"],
    "sessions": lambda r: f"{r['sessions']}{' with video' if r['frames'] else ''}",
    "memory": _memory,
    "micro-turn": lambda r: f"{r['optimal_seconds'] * 1e3:.1f} ms",
    "of it input, text, audio": _by_part,
    "collectives": lambda r: f"{r['collective_seconds'] * 1e3:.1f} ms",
    "share of 200 ms": lambda r: f"{r['share_of_200_ms']:.0%}",
    "operations, compiler / by hand": lambda r: f"{r['flops'] / 1e9:.1f} / {r['analytic_flops'] / 1e9:.1f} G",
}


def tables(reports: dict[str, dict[str, Any] | str]) -> str:
    """Markdown of the figures.

    Args:
      reports: name of a figure → what `launch.compile` wrote, or the line with which it ended.

    Returns:
      A table for training, one for serving, how many sessions fit, and a line for each that failed.
    """
    found = {name: report for name, report in reports.items() if not isinstance(report, str)}
    parts = []
    for step, columns in (("train", _TRAIN), ("serve", _SERVE)):
        rows = [report for report in found.values() if report["step"] == step]
        if rows:
            head = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
            lines = [f"| {' | '.join(cell(report) for cell in columns.values())} |" for report in rows]
            parts.append("\n".join([*head, *lines]))
    parts += how_many_fit(found.values())
    parts += [f"{name}: {line}" for name, line in reports.items() if isinstance(line, str)]
    return "\n\n".join(parts)


def how_many_fit(reports: Iterable[dict[str, Any]]) -> list[str]:
    """How many sessions fit in 200 ms, and in memory, on a straight line through two counts that were compiled.

    Args:
      reports: of `launch.compile`; those of serving count, and of them the two with the most sessions, but not one
        session alone, which is laid over the devices in another way.

    Returns:
      A line for each configuration, with and without video, of which there are two and the larger takes more.
    """
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for report in reports:
        if report["step"] == "serve" and report["sessions"] > 1:
            groups.setdefault((report["config"], report["frames"]), []).append(report)
    lines = []
    for (config, frames), group in groups.items():
        if len(group) < 2:
            continue
        few, many = sorted(group, key=lambda report: report["sessions"])[-2:]
        if not all(few[figure] < many[figure] for figure in ("optimal_seconds", "hbm_bytes_per_device")):
            continue  # a line that does not rise reaches nothing
        time = _on_the_line(few, many, "optimal_seconds", MICRO_TURN_SECONDS)
        unhidden = _on_the_line(_with_collectives(few), _with_collectives(many), "optimal_seconds", MICRO_TURN_SECONDS)
        memory = _on_the_line(few, many, "hbm_bytes_per_device", many["hbm_bytes_available"])
        how = "interpolated" if few["sessions"] <= time <= many["sessions"] else "extrapolated"
        lines.append(
            f"{config}, {many['topology']}, {'sound and video' if frames else 'sound'}: {time} sessions in 200 ms, "
            f"{unhidden} if no collective is hidden, {memory} in memory ({how} from {few['sessions']} and "
            f"{many['sessions']}, not compiled)"
        )
    return lines


def _with_collectives(report: dict[str, Any]) -> dict[str, Any]:
    return report | {"optimal_seconds": report["optimal_seconds"] + report["collective_seconds"]}


def _on_the_line(few: dict[str, Any], many: dict[str, Any], figure: str, limit: float) -> int:
    """Sessions at which a figure reaches its limit, as many on each device; 0 where it is above it without any."""
    each = (many[figure] - few[figure]) / (many["sessions"] - few["sessions"])
    devices = math.prod(many["mesh"][axis] for axis in BATCH_AXES)
    return max(0, math.floor((many["sessions"] + (limit - many[figure]) / each) / devices) * devices)
