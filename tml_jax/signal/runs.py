"""Runs of what is true in a row of yes and no."""

import numpy as np


def true_runs(mask: np.ndarray) -> np.ndarray:
    """First and one past the last of each run of true values: (n,) bool → (runs, 2) int64, rising."""
    return np.flatnonzero(np.diff(np.asarray(mask, np.int8), prepend=0, append=0)).reshape(-1, 2)
