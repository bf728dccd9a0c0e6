"""What a run writes down about itself: metrics.jsonl, TensorBoard and the line of progress.

metrics.jsonl has one line for each step and one for each evaluation. Everything in a line but the keys in `TIMING` is a
function of the configuration alone, so a resumed run writes the same lines as one that was never stopped.
"""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import tensorboardX

from tml_jax.files import write_whole

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
TRAIN, HELD_OUT = "train", "held_out"
TIMING = ("micro_turns_per_second", "share_waiting", "goodput", "time")


class MetricsError(ValueError):
    """metrics.jsonl is broken, or a number cannot be written to it."""


class MetricsWriter:
    """Appends to RUN/metrics.jsonl and RUN/tensorboard. Use it as a context manager."""

    def __init__(self, run_dir: str | os.PathLike, step: int, tensorboard_every: int = 1) -> None:
        """Opens the files and drops what was written after `step`.

        Args:
          run_dir: folder of the run.
          step: the step that was restored, 0 for a new run.
          tensorboard_every: steps between training points in TensorBoard.
        """
        run_dir = pathlib.Path(run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        truncate(run_dir / METRICS, step)
        self._file = open(run_dir / METRICS, "a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(str(run_dir / TENSORBOARD), purge_step=step + 1)
        self._every = tensorboard_every

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.sync()
        self._file.close()
        self._board.close()

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Writes one line, whole, and its points.

        Args:
          step: optimiser steps done.
          split: TRAIN or HELD_OUT.
          values: finite numbers by name.

        Raises:
          MetricsError: a value is not finite, which JSON cannot say.
        """
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if bad:
            raise MetricsError(f"step {step}, {split}: {bad} cannot be written: metrics must be finite")
        line = {"step": step, "split": split, **values, "time": round(time.time(), 3)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if split != TRAIN or step % self._every == 0:
            for name, value in values.items():
                self._board.add_scalar(f"{split}/{name}", value, step)

    def sync(self) -> None:
        """Puts every line on disk; called before a checkpoint, so that none is missing from a run that resumes."""
        self._file.flush()
        os.fsync(self._file.fileno())


def truncate(path: str | os.PathLike, step: int) -> None:
    """Drops the lines after `step`, and a last line cut short by a kill. The file changes at once or not at all.

    Args:
      path: a metrics.jsonl, which may be missing.
      step: last step whose lines stay.

    Raises:
      MetricsError: a line other than the last is not JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return
    write_whole(path, "".join(json.dumps(line) + "\n" for line in read(path) if line["step"] <= step))


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """Yields the lines of a metrics.jsonl as dicts, without a last line that was cut short.

    Raises:
      MetricsError: a line other than the last is not JSON.
    """
    with open(path, encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text) if text.endswith("\n") else None
            except json.JSONDecodeError:
                line = None
            if isinstance(line, dict):
                yield line
            elif file.read(1):
                raise MetricsError(f"{path}, line {number} is not JSON: restore the file or move it away")


@dataclasses.dataclass
class Meter:
    """Adds up time, waiting and micro-turns between two lines of progress."""

    seconds: float = 0.0
    waiting: float = 0.0
    micro_turns: float = 0.0
    steps: int = 0

    def add(self, seconds: float, waiting: float, micro_turns: float) -> dict[str, float]:
        """Adds a step.

        Args:
          seconds: wall time of the step.
          waiting: the part of it in which the training process waited for its next batch. The device may have been busy
            meanwhile, so this is the most that faster data could save.
          micro_turns: micro-turns of the batch.

        Returns:
          The step's own `micro_turns_per_second` and `share_waiting`.
        """
        self.seconds, self.waiting = self.seconds + seconds, self.waiting + waiting
        self.micro_turns, self.steps = self.micro_turns + micro_turns, self.steps + 1
        return Meter(seconds, waiting, micro_turns, 1).rates()

    def rates(self) -> dict[str, float]:
        """`micro_turns_per_second` and `share_waiting` (0 … 1) over the steps added."""
        seconds = max(self.seconds, 1e-9)
        share = min(self.waiting / seconds, 1.0)
        return {"micro_turns_per_second": round(self.micro_turns / seconds, 3), "share_waiting": round(share, 4)}


def progress_line(step: int, steps: int, values: Mapping[str, float], meter: Meter, compiling: bool = False) -> str:
    """One line that tells a person how the run is doing.

    Args:
      step: steps done.
      steps: steps of the run.
      values: metrics of this step; those that are there among loss and its parts are shown.
      meter: the steps since the last line.
      compiling: whether compilation is in the meter's time, which then says nothing about the steps to come.
    """
    parts = [f"{name} {values[f'{name}_loss']:.3f}" for name in ("text", "gate", "flow") if f"{name}_loss" in values]
    start = f"step {step:>{len(str(steps))}}/{steps}  loss {values['loss']:.4f} ({' '.join(parts)})  "
    if compiling:
        return f"{start}{duration(meter.seconds)} with compilation"
    rates = meter.rates()
    left = (steps - step) * meter.seconds / max(meter.steps, 1)
    return (
        f"{start}{rates['micro_turns_per_second']:,.0f} micro-turns/s  "
        f"waiting for data {rates['share_waiting']:.0%}  {duration(left)} left"
    )


def held_out_line(step: int, values: Mapping[str, float]) -> str:
    """One line with the means of an evaluation."""
    return f"held-out at step {step}: " + "  ".join(f"{name} {value:.4f}" for name, value in values.items())


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
