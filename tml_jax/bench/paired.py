"""Two kinds of ticks that were taken turn about, block by block, compared like with like.

What else a machine does falls on both, and the interval comes from drawing pairs of blocks, so that what lasts longer
than a tick does not make it too narrow.
"""

import dataclasses

import numpy as np

from tml_jax.eval.estimates import Estimate, estimate, medians, resample_weights

_LEAST = 10  # ticks that a kind of work must have on both sides


@dataclasses.dataclass(frozen=True, eq=False)
class Ticks:
    """Ticks of one side.

    Attributes:
      seconds: (blocks, n) float, of each by the clock.
      processor: (blocks, n) float, seconds that all cores together worked for this process.
      work: (blocks, n) int, what kind of work each did.
    """

    seconds: np.ndarray
    processor: np.ndarray
    work: np.ndarray


def ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    """Median of `above` over that of `below`, (blocks, n) each, of all ticks."""
    return same_work_ratio(above, below, np.zeros_like(above, int), np.zeros_like(below, int))


def same_work_ratio(above: np.ndarray, below: np.ndarray, work_above: np.ndarray, work_below: np.ndarray) -> Estimate:
    """The same of ticks of the same work, so that it does not matter what was said.

    Args:
      above: (blocks, n) float.
      below: like it, the blocks that were taken beside those.
      work_above: (blocks, n) int.
      work_below: like it.

    Returns:
      Mean over the kinds of work, weighted by how many ticks there are on the side with fewer; `count` is their sum.
      NaN where the sides have no kind in common.
    """
    weights = np.repeat(resample_weights(len(above)), above.shape[1], axis=1)
    above, below, work_above, work_below = (side.ravel() for side in (above, below, work_above, work_below))
    total, share, count = np.zeros(len(weights)), np.zeros(len(weights)), 0
    for kind in np.intersect1d(work_above, work_below):
        one, other = work_above == kind, work_below == kind
        least = int(min(one.sum(), other.sum()))
        if least < _LEAST:
            continue
        found = medians(above[one], weights[:, one]) / medians(below[other], weights[:, other])
        known = ~np.isnan(found)
        total += np.where(known, least * found, 0.0)
        share += least * known
        count += least
    values = np.full(len(weights), np.nan)
    np.divide(total, share, out=values, where=share > 0)
    return estimate(values, count)
