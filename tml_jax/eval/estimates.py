"""Figures of a set of cases with bootstrap intervals.

Weights say how often each resample draws each case; row 0 is the set itself, so one product gives a figure and all of
its resamples.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A figure with its 95% bootstrap interval. `count` is the number of cases behind it; NaN where there are none."""

    value: float
    low: float
    high: float
    count: int


def resample_weights(total: int, seed: int = 0, resamples: int = 1000) -> np.ndarray:
    """How often each of `total` cases is drawn, (1 + resamples, total) int64; row 0 is all ones."""
    draws = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / total), size=resamples)
    return np.concatenate([np.ones((1, total), np.int64), draws])


def resample_groups(groups: Sequence[str], seed: int = 0, resamples: int = 1000) -> np.ndarray:
    """The same, (1 + resamples, cases) int64, where the cases of one group are drawn together, or not at all.

    What is alike in a group (the wording of a request, say) varies from group to group, so cases of the same few groups
    tell less than as many of their own: see the cluster bootstrap (Field and Welsh, 2007).

    Args:
      groups: name of the group of each case.
      seed: of the draws.
      resamples: how many.
    """
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    return resample_weights(len(names), seed, resamples)[:, of]


def for_few_groups(found: Estimate, groups: int, bounds: tuple[float, float]) -> Estimate:
    """An interval of `resample_groups` made wider, as far as so few groups call for.

    The quantiles of a bootstrap over G groups are too near: its variance is (G − 1) / G of what it should be, and its
    tails are those of a normal distribution, not of Student's t with G − 1 degrees of freedom (Cameron, Gelbach and
    Miller, 2008). With ten groups that is a fifth. Where all cases are alike, the interval stays a point.

    Args:
      found: from draws of groups.
      groups: how many there were.
      bounds: between which the figure lies, whatever the cases, and its interval with it.
    """
    if groups < 2 or math.isnan(found.low):
        return found
    wider = float(stats.t.ppf(0.975, groups - 1) / stats.norm.ppf(0.975)) * math.sqrt(groups / (groups - 1))
    low, high = found.value - wider * (found.value - found.low), found.value + wider * (found.high - found.value)
    return dataclasses.replace(found, low=max(low, bounds[0]), high=min(high, bounds[1]))


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Their quotient, NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), np.nan)


def medians(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Medians of `values` (n,), each taken weights[r, n] times: (r,), NaN where a row has no weight."""
    if not values.size:
        return np.full(len(weights), np.nan)
    order = np.argsort(values)
    reached = np.cumsum(weights[:, order], axis=1)
    total = reached[:, -1:]
    low = values[order][np.argmax(reached > (total - 1) // 2, axis=1)]
    high = values[order][np.argmax(reached > total // 2, axis=1)]
    return np.where(total[:, 0] > 0, (low + high) / 2, np.nan)


def estimate(values: np.ndarray, count: int) -> Estimate:
    """From the figure of the set itself, values[0], and of its resamples."""
    drawn = values[1:][~np.isnan(values[1:])]
    if count == 0 or not drawn.size:
        return Estimate(float(values[0]), np.nan, np.nan, count)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(float(values[0]), float(low), float(high), count)


def mean(values: Sequence[float], seed: int = 0, resamples: int = 1000) -> Estimate:
    """Mean of independent cases; NaN with a count of 0 where there are none."""
    if not len(values):
        return Estimate(np.nan, np.nan, np.nan, 0)
    weights = resample_weights(len(values), seed, resamples)
    return estimate(weights @ np.asarray(values, np.float64) / len(values), len(values))


def pooled(hits: Sequence[float], counts: Sequence[float], seed: int = 0, resamples: int = 1000) -> Estimate:
    """Sum of `hits` over sum of `counts`, where whole items, with several cases each, are drawn."""
    if not len(hits) or not sum(counts):
        return Estimate(np.nan, np.nan, np.nan, 0)
    weights = resample_weights(len(hits), seed, resamples)
    return estimate(ratio(weights @ np.asarray(hits), weights @ np.asarray(counts)), int(sum(counts)))


def pooled_apart(
    hits: Sequence[float], counts: Sequence[float], other_hits: Sequence[float], other_counts: Sequence[float]
) -> Estimate:
    """How far the ratio of `pooled` lies above that of others, item by item the same: both are drawn together."""
    weights = resample_weights(len(hits))
    one, other = (
        ratio(weights @ np.asarray(hits), weights @ np.asarray(counts)),
        ratio(weights @ np.asarray(other_hits), weights @ np.asarray(other_counts)),
    )
    return estimate(one - other, len(hits))
