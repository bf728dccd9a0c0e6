"""The training loop: start or resume, step, evaluate, checkpoint, stop.

Every batch and every draw is a function of a seed and the step, so a run that is killed at any moment and started again
writes the same losses, bit for bit.
"""

import contextlib
import dataclasses
import hashlib
import os
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from tml_jax.config import Config, ConfigError
from tml_jax.data import pipeline
from tml_jax.data.packing import Batch
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train import checkpoint, goodput, init_from, metrics
from tml_jax.train.hosts import check_agreement
from tml_jax.train.profile import StepTrace
from tml_jax.train.step import Train, TrainState, make_train, mean_metrics

# When a run resumes, its model, data, seed and layout of typed text stay; with others it would be another run. What may
# change: the rest of `train` (a longer run, another learning rate, …), `mesh`, `serve.context`, and of the data these
# fields, which say where they lie and how fast they come, not what they are.
_FREE_DATA_FIELDS = ("directory", "generate", "workers", "prefetch")
_FIXED_FIELDS = {"train": ("seed",), "serve": ("max_text_in",)}


class NonFiniteError(RuntimeError):
    """The loss or a gradient is not finite: says at which step, on which records, and which checkpoint is intact."""


@dataclasses.dataclass(frozen=True)
class Report:
    """How a run ended.

    Attributes:
      state: the last TrainState; its checkpoint is on disk.
      step: optimiser steps done.
      resumed_from: the step from which this call went on, 0 for a new run.
      interrupted: whether a signal ended it before `config.train.steps`.
      held_out: means of the last evaluation in this call; empty where there was none.
    """

    state: TrainState
    step: int
    resumed_from: int
    interrupted: bool
    held_out: dict[str, float]


@dataclasses.dataclass(frozen=True)
class _Pending:
    """A step that was sent to the device and whose metrics were not looked at yet."""

    step: int
    metrics: dict[str, jax.Array]
    records: np.ndarray  # (rows, segments) record numbers
    waiting: float  # seconds this process waited for the batch


def train(
    config: Config,
    run_dir: str | os.PathLike,
    log: Callable[[str], None] = print,
    profile: range = range(0),
    started: float | None = None,
) -> Report:
    """Trains, or goes on training, the run in `run_dir`; see `checkpoint` for what lies there.

    SIGTERM and SIGINT end the run after the step under way with a checkpoint. On several processes, call this on each.

    Args:
      config: the configuration; its data must have been prepared.
      run_dir: folder of the run; holds tokenizer.json already.
      log: takes a line of progress; called on the first process only.
      profile: steps to trace, see `StepTrace`.
      started: when the process was started, for the account of time, see `Goodput`; now by default.

    Returns:
      How the run ended.

    Raises:
      CheckpointError: a checkpoint is damaged, of another model, or cannot be written.
      ConfigError: the run in `run_dir` was started with another model, other data, or another seed.
      DataError: data are missing or broken.
      NonFiniteError: the loss or a gradient is not finite. The update is not saved.
    """
    run_dir = pathlib.Path(run_dir)
    first = jax.process_index() == 0
    log = log if first else lambda line: None
    spent = goodput.Goodput(run_dir if first else None, started)
    tokenizer = Tokenizer.load(run_dir / checkpoint.TOKENIZER)
    data = pipeline.open_training_data(config, tokenizer, log)
    setup = make_train(config, make_mesh(config.mesh))
    check_agreement({"configuration": config, **_place(1, config, data, tokenizer)})
    held_out_batches = pipeline.held_out_batches(config, tokenizer, config.train.eval_batches, setup.rows, report=log)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(checkpoint.Checkpoints(run_dir, config.train.keep))
        state, start = _start(config, run_dir, setup, checkpoints, data, tokenizer, spent, log)
        spent.resume(start)
        writer = stack.enter_context(metrics.MetricsWriter(run_dir, start, config.train.log_every)) if first else None
        batches = stack.enter_context(contextlib.closing(data.iterator(start, setup.rows)))
        stop_requested = stack.enter_context(_interruptions())
        trace = stack.enter_context(StepTrace(run_dir, profile, log))
        steps = _Steps(config, data, writer, checkpoints, spent, log)
        held_out: dict[str, float] = {}
        step, stopping, compiled = start, False, False
        if profile and profile[0] <= start:
            log(f"step {profile[0]} is done already: no profile of steps {profile[0]} to {profile[-1]}")
        if start > config.train.steps:
            log(f"step {start} is past config.train.steps = {config.train.steps} already: nothing to train")
        stack.enter_context(spent.cause(goodput.STEP))

        while step < config.train.steps and not stopping:
            batch, waiting = steps.next_of(batches)
            step += 1
            with trace.step(step, steps.aside):
                with contextlib.nullcontext() if compiled else spent.cause(goodput.COMPILATION):
                    state, values = setup.step(state, setup.put_batch(batch))
                compiled = True
                # The device computes this step while the host reads the metrics of the one before.
                steps.add(_Pending(step, values, batch.record, waiting))

            stopping = stop_requested(step)
            last = step == config.train.steps
            if last or step % config.train.eval_every == 0:
                with steps.aside(goodput.EVALUATION):
                    held_out = evaluate(config, setup, state, held_out_batches)
                    steps.held_out(step, held_out)
            if last or stopping or step % config.train.checkpoint_every == 0:
                with steps.aside(goodput.CHECKPOINT):  # so a state is saved only when its step is known to be finite
                    if writer:
                        writer.sync()
                    checkpoints.save(state, _place(step, config, data, tokenizer))
                spent.write(step, now=True)
        with spent.cause(goodput.CHECKPOINT):
            checkpoints.wait()
        interrupted = step < config.train.steps
        spent.write(step, now=True, finished=not interrupted)
        if first:
            log(str(goodput.summarise(run_dir)))
        if interrupted:
            log(f"stopped by a signal after step {step}; checkpoint saved, the same command goes on from there")
        return Report(state, step, start, interrupted, held_out)


def evaluate(config: Config, setup: Train, state: TrainState, batches: Sequence[Batch]) -> dict[str, float]:
    """Means over all `batches`, each output counting once however the batches are cut."""
    sums: dict[str, float] = {}
    for values in [setup.evaluate(state, setup.put_batch(batch)) for batch in batches]:
        for name, value in jax.device_get(values).items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return {name: float(value) for name, value in mean_metrics(sums, config).items()}


def _start(
    config: Config,
    run_dir: pathlib.Path,
    setup: Train,
    checkpoints: checkpoint.Checkpoints,
    data: pipeline.TrainingData,
    tokenizer: Tokenizer,
    spent: goodput.Goodput,
    log: Callable[[str], None],
) -> tuple[TrainState, int]:
    """Restores the newest checkpoint, or makes a new state. Returns it and its step."""
    if checkpoints.steps:
        check_same_run(config, checkpoint.read_config(run_dir), run_dir)
    with spent.cause(goodput.RESTORE if checkpoints.steps else goodput.STARTUP):
        restored = checkpoints.restore_latest(setup.abstract_state)
    if restored is not None:
        state, place = restored
        step = place["next_step"]
        for what, now in _place(step, config, data, tokenizer).items():
            if place.get(what) != now:
                raise checkpoint.CheckpointError(
                    f"the {what} of {run_dir} changed since its checkpoint of step {step}: put back what it was "
                    "trained with, or train in another run directory, with train.init_from if you like"
                )
        log(f"resuming {run_dir} from step {step}")
    else:
        state, step = setup.init(config.train.seed), 0
        if config.train.init_from:
            init_from.adopt_files(config.train.init_from, run_dir, config.model)
            with spent.cause(goodput.RESTORE):
                state, report = init_from.init_from(config.train.init_from, state)
            log(f"starting from {config.train.init_from}: {report}")
    if jax.process_index() == 0:
        checkpoint.write_config(run_dir, config)
    return state, step


def _place(step: int, config: Config, data: pipeline.TrainingData, tokenizer: Tokenizer) -> dict[str, Any]:
    """The place in the data after `step` steps, and what tells whether the data are still the same."""
    rows = data.plan.rows((step - 1) * config.data.batch_size, step * config.data.batch_size)
    names = [data.describe(row) for row in rows]
    digest = hashlib.sha256(repr(names).encode()).hexdigest()
    return {"next_step": step, "tokenizer": tokenizer.fingerprint, "data": digest}


def check_same_run(config: Config, saved: Config, run_dir: pathlib.Path) -> None:
    """Raises ConfigError where what may not change in a run differs from how it was started, in `saved`."""
    model, data = ([field.name for field in dataclasses.fields(part)] for part in (config.model, config.data))
    fixed = {"model": model, "data": [name for name in data if name not in _FREE_DATA_FIELDS], **_FIXED_FIELDS}
    for section, fields in fixed.items():
        ours, theirs = getattr(config, section), getattr(saved, section)
        names = [name for name in fields if getattr(ours, name) != getattr(theirs, name)]
        if names:
            raise ConfigError(
                f"config.{section}.{names[0]} = {getattr(ours, names[0])!r}: {run_dir} was started with "
                f"{getattr(theirs, names[0])!r}; give that, or train in another run directory"
            )


class _Steps:
    """Follows the steps, one behind the device: checks them, writes their metrics and the lines of progress."""

    def __init__(
        self,
        config: Config,
        data: pipeline.TrainingData,
        writer: metrics.MetricsWriter | None,
        checkpoints: checkpoint.Checkpoints,
        spent: goodput.Goodput,
        log: Callable[[str], None],
    ) -> None:
        self._config, self._data, self._writer, self._checkpoints = config, data, writer, checkpoints
        self._spent, self._log = spent, log
        self._pending: _Pending | None = None
        self._meter = metrics.Meter()
        self._compiling = True  # the first step does
        self._clock = time.perf_counter()

    def next_of(self, batches: Iterator[Batch]) -> tuple[Batch, float]:
        """The next batch, and the seconds that this process waited for it.

        They are lost where the device had nothing to do; where it ran out of work meanwhile, all are counted.
        """
        asked, busy = time.perf_counter(), self._device_is_busy()
        batch = next(batches)
        waiting = time.perf_counter() - asked
        if not (busy and self._device_is_busy()):
            self._spent.move(waiting, goodput.DATA)
        return batch, waiting

    def _device_is_busy(self) -> bool:
        return self._pending is not None and not self._pending.metrics["loss"].is_ready()

    def add(self, pending: _Pending) -> None:
        """Takes the step just sent off, and settles the one before."""
        self.settle()
        self._pending = pending

    def settle(self) -> None:
        """Waits for the pending step, if any, checks and writes its metrics.

        Raises:
          NonFiniteError: the step is not fit to go on from.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        values = {name: float(value) for name, value in jax.device_get(pending.metrics).items()}
        if not values.pop("finite", True) or not all(map(np.isfinite, values.values())):
            raise NonFiniteError(self._non_finite(pending, values))
        now = time.perf_counter()
        rates = self._meter.add(now - self._clock, pending.waiting, values["micro_turns"])
        self._clock = now
        if self._writer:
            shown = {**values, **rates, "goodput": round(self._spent.share(), 4)}
            self._writer.write(pending.step, metrics.TRAIN, shown)
        self._spent.write(pending.step)
        steps = self._config.train.steps
        if self._compiling or pending.step % self._config.train.log_every == 0 or pending.step == steps:
            self._log(metrics.progress_line(pending.step, steps, values, self._meter, self._compiling))
            self._meter, self._compiling = metrics.Meter(), False

    def held_out(self, step: int, values: dict[str, float]) -> None:
        """Writes the means of an evaluation.

        Raises:
          NonFiniteError: one of them is not finite, so the last update must not be saved.
        """
        if not all(map(np.isfinite, values.values())):
            raise NonFiniteError(f"step {step}: on the held-out conversations {values}; {self._intact()}")
        if self._writer:
            self._writer.write(step, metrics.HELD_OUT, values)
        self._log(metrics.held_out_line(step, values))

    @contextlib.contextmanager
    def aside(self, cause: str = goodput.OTHER) -> Iterator[None]:
        """Settles the pending step; the time within belongs to `cause`, and to no step."""
        self.settle()
        with self._spent.cause(cause):
            yield
        self._clock = time.perf_counter()

    def _non_finite(self, pending: _Pending, values: dict[str, float]) -> str:
        bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not np.isfinite(value))
        names = self._data.describe(pending.records)
        return (
            f"step {pending.step} is not finite ({bad or 'a gradient'}) on the records {', '.join(names)}; "
            f"{self._intact()}"
        )

    def _intact(self) -> str:
        steps = self._checkpoints.steps
        intact = f"the checkpoint of step {steps[-1]} is intact" if steps else "no checkpoint had been saved yet"
        advice = "look at the data, or lower train.learning_rate or train.clip_norm"
        return f"the update was not saved, {intact}; {advice}"


@contextlib.contextmanager
def _interruptions() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the step that says whether a signal asked to stop; a second signal acts at once."""
    if jax.process_count() > 1:
        # Signals reach the processes at different steps; the runtime agrees on one at which all of them stop.
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda step: False  # only the main thread may set signal handlers
        return
    asked = threading.Event()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        restore()
        os.write(2, b"asked to stop: after the step that runs now (or compiles); a second signal ends it at once\n")

    for number in previous:
        signal.signal(number, ask)
    try:
        yield lambda step: asked.is_set()
    finally:
        restore()
