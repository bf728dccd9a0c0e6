"""The order of training: which records lie in which row, for ever, as a pure function of (seed, epoch, lengths).

An epoch of the mixture draws about as many records as there are. Source i with share s_i (its weight over the sum of
weights) has given round(e · M · s_i) draws before epoch e, M being the number of records of all sources: so shares are
exact over a run, to within one record. Each source hands out its records in an endless series of permutations, which
goes on from one epoch to the next; so none of its records comes a second time before all others came once. The draws of
an epoch are shuffled together and packed into rows. Rows of all epochs follow one another without a break.
"""

from collections.abc import Sequence

import numpy as np

from tml_jax.config import PackingConfig
from tml_jax.data.packing import plan_epoch

_PERMUTATION, _EPOCH = 0, 1  # kinds of draw, so that no two use the same random numbers


class RowPlan:
    """All rows of a run by number, without end.

    Planning row r plans every epoch up to the one it lies in, once; nothing is read but lengths.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        sources: Sequence[np.ndarray],
        weights: Sequence[float],
        packing: PackingConfig,
        seed: int,
    ):
        """Plans rows for a mixture of sources.

        Args:
          lengths: (N, 5) int32, lengths of all records of all sources, see `packing.sizes`.
          sources: for each source, the numbers (rows of `lengths`) of its usable records.
          weights: share of each source in the drawn records, relative to the others.
          packing: what a row holds.
          seed: seed of every shuffle.

        Raises:
          ValueError: a source is empty, a weight is not above 0, or their numbers differ.
        """
        if len(sources) != len(weights) or not sources:
            raise ValueError(f"{len(sources)} sources and {len(weights)} weights: expected as many, at least one")
        if any(len(source) == 0 for source in sources) or min(weights) <= 0:
            raise ValueError(f"{[len(s) for s in sources]} records, weights {list(weights)}: all must be above 0")
        self._lengths = lengths
        self._sources = tuple(np.asarray(source, np.int64) for source in sources)
        self._shares = np.asarray(weights, np.float64) / np.sum(weights)
        self._packing = packing
        self._seed = seed
        self._starts = [0]  # number of the first row of each epoch planned so far
        self._recent: dict[int, list[list[int]]] = {}  # rows of the epochs last used

    def draws(self, source: int, epoch: int) -> int:
        """How many records source `source` has given before `epoch`."""
        total = sum(len(records) for records in self._sources)
        return int(np.rint(epoch * total * self._shares[source]))

    def epoch_order(self, epoch: int) -> np.ndarray:
        """Record numbers of an epoch in the order in which they are packed, (draws,) int64."""
        drawn = [
            self._stream(source, self.draws(source, epoch), self.draws(source, epoch + 1))
            for source in range(len(self._sources))
        ]
        return np.random.default_rng([self._seed, _EPOCH, epoch]).permutation(np.concatenate(drawn))

    def epoch_rows(self, epoch: int) -> list[list[int]]:
        """Rows of an epoch, each the record numbers of its segments."""
        rows = self._recent.get(epoch)
        if rows is None:
            rows = plan_epoch(self._lengths, self.epoch_order(epoch), self._packing)
            self._recent = {**{e: self._recent[e] for e in list(self._recent)[-1:]}, epoch: rows}
        return rows

    def rows(self, start: int, stop: int) -> list[list[int]]:
        """Rows start … stop − 1 of the run, each the record numbers of its segments."""
        return [self._row(number) for number in range(start, stop)]

    def _row(self, number: int) -> list[int]:
        starts = self._starts
        while starts[-1] <= number:
            # A new list, not an append: another thread that does the same work cannot be disturbed.
            starts = [*starts, starts[-1] + len(self.epoch_rows(len(starts) - 1))]
        self._starts = starts
        epoch = int(np.searchsorted(starts, number, side="right")) - 1
        return self.epoch_rows(epoch)[number - starts[epoch]]

    def _stream(self, source: int, start: int, stop: int) -> np.ndarray:
        """Draws start … stop − 1 of a source's endless series of permutations."""
        records = self._sources[source]
        first, last = start // len(records), -(-stop // len(records))
        passes = [self._permutation(source, number) for number in range(first, last)]
        if not passes:
            return records[:0]
        begin = start - first * len(records)
        return np.concatenate(passes)[begin : begin + stop - start]

    def _permutation(self, source: int, number: int) -> np.ndarray:
        rng = np.random.default_rng([self._seed, _PERMUTATION, source, number])
        return rng.permutation(self._sources[source])
