"""Records → batches with grain: every batch is a pure function of (data seed, global step).

Rows are planned from stored lengths alone (see `mixture`): any process on any number of hosts can build any step, and
a run resumes from the number of its next step, whatever the number of hosts or workers was before.
"""

import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from tml_jax.config import Config
from tml_jax.data.elements import conversation_elements
from tml_jax.data.lengths import Records, Report, record_name, source_lengths, usable_records
from tml_jax.data.mixture import RowPlan
from tml_jax.data.packing import Batch, pack, plan_epoch
from tml_jax.data.shards import DamagedError, open_shards
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.data.workers import end_with

ENDLESS = 2**48  # steps; no run gets there


class TrainingData:
    """The training mixture, ready to build the batch of any step. Picklable where its sources are.

    Attributes:
      names: names of the sources; records are numbered through them in this order.
      plan: which records lie in which row.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, sources: Mapping[str, Records], report: Report = print):
        """Measures the sources where that was not done before, and plans the run.

        Args:
          config: the run's configuration.
          tokenizer: tokenizer of the text.
          sources: the records of every source in `config.data.sources`.
          report: called with progress, and with what is left out.

        Raises:
          ValueError: sources do not match the configuration, or one has no usable record.
        """
        if set(sources) != set(config.data.sources):
            raise ValueError(f"sources {sorted(sources)}: config.data.sources names {sorted(config.data.sources)}")
        self.names = tuple(sorted(sources))
        self._config, self._tokenizer = config, tokenizer
        self._records = tuple(sources[name] for name in self.names)
        self._first = np.cumsum([0, *(len(records) for records in self._records)])
        lengths, usable = [], []
        for name, records, first in zip(self.names, self._records, self._first):
            lengths.append(source_lengths(records, tokenizer, config, name, report))
            usable.append(first + usable_records(records, lengths[-1], config, name, report))
        weights = [config.data.sources[name].weight for name in self.names]
        self.plan = RowPlan(np.concatenate(lengths), usable, weights, config.data.packing, config.data.seed)

    def batch_at(self, step: int, rows: Sequence[int] | None = None) -> Batch:
        """Builds rows of the batch of a step.

        Step s has rows [s · B, (s + 1) · B) of the run's rows, B = `config.data.batch_size`.

        Args:
          step: global step, from 0.
          rows: which of the B rows, rising, such as those of one process; None for all.

        Returns:
          The batch of these rows.

        Raises:
          ValueError: a row does not exist, or a record cannot be read any more; says which.
        """
        rows = _checked_rows(self._config.data.batch_size, rows)
        start = step * self._config.data.batch_size
        planned = self.plan.rows(start + rows[0], start + rows[-1] + 1)
        return self._build([planned[row - rows[0]] for row in rows])

    def _build(self, rows: list[list[int]]) -> Batch:
        elements = [[self._elements(number) for number in row] for row in rows]
        return pack(elements, rows, self._config.data.packing)

    def _elements(self, number: int) -> Any:
        source, index = self._locate(number)
        try:
            return conversation_elements(self._records[source][index], self._tokenizer, self._config)
        except DamagedError:  # it names the folder and the remedy
            raise
        except Exception as error:
            raise ValueError(
                f"record {self.describe([number])[0]} was usable when it was measured and now fails: {error}. If the "
                "data has changed, remove its lengths-*.npy"
            ) from error

    def _locate(self, number: int) -> tuple[int, int]:
        source = int(np.searchsorted(self._first, number, side="right")) - 1
        return source, int(number - self._first[source])

    def describe(self, record_numbers: Any) -> list[str]:
        """Names of records, for error messages.

        Args:
          record_numbers: numbers such as `Batch.record`, of any shape; −1 is left out.

        Returns:
          "source/number (id)" of each.
        """
        located = [self._locate(number) for number in np.asarray(record_numbers).ravel().tolist() if number >= 0]
        return [f"{self.names[source]}/{record_name(self._records[source], index)}" for source, index in located]

    def iterator(self, start_step: int = 0, rows: Sequence[int] | None = None) -> "StepIterator":
        """An endless iterator over batches, see `make_train_iterator`."""
        rows = _checked_rows(self._config.data.batch_size, rows)
        return StepIterator(functools.partial(self._open_at, functools.partial(self.batch_at, rows=rows)), start_step)

    def _open_at(self, build: Callable[[int], Batch], step: int) -> grain.DatasetIterator[Batch]:
        start = step * self._config.data.batch_size
        self.plan.rows(start, start + 1)  # so that workers, who get a copy, need not plan all epochs so far themselves
        options = grain.MultiprocessingOptions(
            num_workers=self._config.data.workers, per_worker_buffer_size=self._config.data.prefetch
        )
        return _batches(build, options, step)


def _checked_rows(batch_size: int, rows: Sequence[int] | None) -> Sequence[int]:
    """Rows of the global batch to build; all where none are named."""
    if rows is None:
        return range(batch_size)
    if not rows or list(rows) != sorted(set(rows)) or rows[0] < 0 or rows[-1] >= batch_size:
        raise ValueError(f"rows = {tuple(rows)}: rows of the batch, rising, in 0 … {batch_size - 1}")
    return rows


def _batches(
    build: Callable[[int], Batch], options: grain.MultiprocessingOptions, start: int
) -> grain.DatasetIterator[Batch]:
    """Batches from step `start` on. Workers take turns, so their number does not change the order."""
    if options.num_workers and not flags.FLAGS.is_parsed():
        # Grain looks at its own absl flags when it starts workers. In a notebook or a test nobody has parsed any; their
        # defaults are meant.
        flags.FLAGS.mark_as_parsed()
    build = functools.partial(_build_for, os.getpid(), build)
    steps = grain.MapDataset.range(start, ENDLESS).map(build)
    # One batch at a time: building it is Python and NumPy work, which threads of one process would not speed up.
    dataset = steps.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    return iter(dataset.mp_prefetch(options))


def _build_for(training: int, build: Callable[[int], Batch], step: int) -> Batch:
    """Builds a batch in the process number `training` or in a worker of it."""
    if os.getpid() != training:
        end_with(training)
    return build(step)


class StepIterator(grain.DatasetIterator[Batch]):
    """A grain iterator whose whole state is the number of the next step.

    Grain's own state of several workers is tied to their number. Here any step can be built from its number, so the
    state is `{"next_step": s}`: it fits any number of workers and hosts. Workers start with the first batch, or with
    `start_prefetch`.
    """

    def __init__(self, open_at: Callable[[int], grain.DatasetIterator[Batch]], start_step: int):
        super().__init__()
        self._open_at = open_at
        self._step = start_step
        self._batches: grain.DatasetIterator[Batch] | None = None

    def __next__(self) -> Batch:
        self._assert_not_closed()
        self.start_prefetch()
        batch = next(self._batches)
        self._step += 1
        return batch

    def start_prefetch(self) -> None:
        """Starts the workers."""
        if self._batches is None:
            self._batches = self._open_at(self._step)
            self._batches.start_prefetch()

    def get_state(self) -> dict[str, Any]:
        """`{"next_step": s}`, s the step of the batch that comes next."""
        return {"next_step": self._step}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on at a state from `get_state`, of this or another run with the same data and seed."""
        step = int(state["next_step"])
        if not 0 <= step < ENDLESS:
            raise ValueError(f"next_step = {step}: expected 0 … {ENDLESS - 1}")
        self._stop()
        self._step = step

    def close(self) -> None:
        """Stops the workers. Safe to call twice."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        batches, self._batches = getattr(self, "_batches", None), None
        if batches is not None:
            batches.close()

    def __str__(self) -> str:
        return f"StepIterator(next_step={self._step})"


def open_training_data(config: Config, tokenizer: Tokenizer, report: Report = print) -> TrainingData:
    """Opens the sources named in `config.data.sources`.

    Raises:
      DataError: a folder is missing or incomplete.
      ValueError: see `TrainingData`.
    """
    folder = pathlib.Path(config.data.directory)
    sources = {name: open_shards(folder / source.path) for name, source in config.data.sources.items()}
    return TrainingData(config, tokenizer, sources, report)


def make_train_iterator(
    config: Config, tokenizer: Tokenizer, start_step: int = 0, rows: Sequence[int] | None = None
) -> StepIterator:
    """The training batches, without end.

    Args:
      config: the run's configuration.
      tokenizer: tokenizer of the text.
      start_step: step of the first batch.
      rows: rows of each global batch to build, such as those of one process (see `train.hosts`); None for all.

    Returns:
      A grain iterator with `get_state`, `set_state` and `close`.

    Raises:
      ValueError: see `open_training_data` and `TrainingData.batch_at`.
    """
    return open_training_data(config, tokenizer).iterator(start_step, rows)


def batch_at(config: Config, tokenizer: Tokenizer, step: int) -> Batch:
    """The global batch of one step; for many steps open the data once, with `open_training_data`."""
    return open_training_data(config, tokenizer).batch_at(step)


def held_out_batches(
    config: Config,
    tokenizer: Tokenizer,
    count: int,
    rows: Sequence[int] | None = None,
    records: Records | None = None,
    report: Report = print,
) -> list[Batch]:
    """Held-out conversations, always the same.

    Args:
      config: the run's configuration.
      tokenizer: tokenizer of the text.
      count: most batches; there are fewer where the conversations do not fill so many.
      rows: rows of each global batch to build, such as those of one process; None for all.
      records: the conversations; by default those in `config.data.held_out`.
      report: called with progress, and with what is left out.

    Returns:
      Batches of these rows, the last one filled up with rows of padding. `Batch.record` counts from 0 in the held-out
      folder.

    Raises:
      DataError: the folder is missing or incomplete.
      ValueError: no conversation can be used.
    """
    data, name = config.data, config.data.held_out
    if records is None:
        records = open_shards(pathlib.Path(data.directory) / name)
    lengths = source_lengths(records, tokenizer, config, name, report)
    usable = usable_records(records, lengths, config, name, report)
    planned = plan_epoch(lengths, np.random.default_rng(data.seed).permutation(usable), data.packing)
    planned += [[] for _ in range(-len(planned) % data.batch_size)]
    mine = _checked_rows(data.batch_size, rows)
    batches = []
    for start in range(0, min(len(planned), count * data.batch_size), data.batch_size):
        chosen = [planned[start + row] for row in mine]
        elements = [[conversation_elements(records[n], tokenizer, config) for n in row] for row in chosen]
        batches.append(pack(elements, chosen, data.packing))
    return batches
