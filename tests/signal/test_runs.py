"""Runs of true values."""

import numpy as np
import pytest

from tml_jax.signal.runs import true_runs


@pytest.mark.parametrize(
    "row, runs",
    [("", []), ("000", []), ("111", [(0, 3)]), ("0110", [(1, 3)]), ("1001011", [(0, 1), (3, 4), (5, 7)])],
)
def test_each_run_has_its_first_and_one_past_its_last(row, runs):
    found = true_runs(np.asarray([place == "1" for place in row], bool))
    assert found.shape == (len(runs), 2) and [tuple(run) for run in found.tolist()] == runs
