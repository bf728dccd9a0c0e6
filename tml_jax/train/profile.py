"""A trace of some steps, to be read with xprof or TensorBoard: RUN/tensorboard/plugins/profile."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator

import jax

from tml_jax.train.metrics import TENSORBOARD


class StepTrace:
    """Traces a range of steps, on every process. Use it as a context manager: leaving it ends a trace under way."""

    def __init__(self, run_dir: str | os.PathLike, steps: range, log: Callable[[str], None]) -> None:
        """Takes the steps to trace.

        Args:
          run_dir: folder of the run.
          steps: steps, counted from 1 as in the lines of progress; none of an empty range.
          log: told where the trace is.
        """
        self._directory, self._steps, self._log = pathlib.Path(run_dir) / TENSORBOARD, steps, log
        self._running = False

    def __enter__(self) -> "StepTrace":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    @contextlib.contextmanager
    def step(self, step: int, aside: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
        """Surrounds one step: marks it, and begins or ends the trace where it is the first or the last of the range.

        Args:
          step: its number.
          aside: waits for the steps sent off before, so that the trace holds the whole of its steps and no others, and
            surrounds what is not part of any.
        """
        if step not in self._steps:
            yield
            return
        if step == self._steps[0]:
            with aside():
                jax.profiler.start_trace(self._directory)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            yield
        if step == self._steps[-1]:
            with aside():
                self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            self._log(f"profile of steps {self._steps[0]} to {self._steps[-1]}: {self._directory}/plugins/profile")
