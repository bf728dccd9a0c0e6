import itertools

import pytest

from tml_jax.bench import timing


def test_programs_take_turns_and_the_summary_is_of_every_turn(monkeypatch):
    called = []
    clock = itertools.count()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(clock)))
    steps = {name: lambda name=name: called.append(name) for name in "AB"}
    times = timing.interleaved(steps, repeats=3, steps_per_turn=2, warmup=1)
    assert "".join(called) == "AB" + "AAABBB" * 3  # a turn: one step to warm the caches, two that are timed
    assert times["A"] == timing.Times(median=0.5, low=0.5, high=0.5, repeats=3)


def test_no_turn_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="repeats = 0"):
        timing.interleaved({"A": lambda: None}, repeats=0)
