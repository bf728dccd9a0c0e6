"""Ticks that were taken turn about are compared like with like, and the interval says how sure that is."""

import numpy as np
import pytest

from tml_jax.bench.paired import ratio, same_work_ratio


def test_what_falls_on_both_sides_does_not_show():
    rng = np.random.default_rng(0)
    machine = np.repeat(rng.choice([1.0, 3.0], (200, 1)), 5, axis=1)  # some seconds take three times as long
    noise = lambda: rng.uniform(0.95, 1.05, (200, 5))  # noqa: E731
    same = ratio(machine * noise(), machine * noise())
    assert same.low < 1.0 < same.high and abs(same.value - 1) < 0.05 and same.count == 1000
    slower = ratio(1.1 * machine * noise(), machine * noise())
    assert slower.low > 1.0


def test_ticks_of_one_kind_of_work_are_held_against_those_of_the_same():
    work = np.arange(40).reshape(20, 2) % 2
    above, below = np.where(work == 0, 2.0, 30.0), np.where(work == 0, 1.0, 10.0)
    found = same_work_ratio(above, below, work, work)
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5, 2.5)) and found.count == 40
    rare = same_work_ratio(above, below, work, np.where(np.arange(40).reshape(20, 2) < 9, work, 7))
    assert np.isnan(rare.value) and rare.count == 0  # too few of a kind on one side
