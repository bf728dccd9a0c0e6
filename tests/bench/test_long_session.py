"""The measurement of long sessions: every micro-turn is in it, and sessions that outgrow their context stay in it."""

import jax
import numpy as np
import pytest
from small import small_config
from synthetic import tokenizer

from tml_jax.bench import long_session
from tml_jax.bench.long_session import LongSession, long_session_bench
from tml_jax.serve.engine import Engine
from tml_jax.serve.program import LoadedModel


def test_every_tick_is_measured_and_memory_stays(warm_engine, monkeypatch):
    engine = warm_engine
    monkeypatch.setattr(long_session, "TURNS_A_MINUTE", 40)
    lines = []
    found = long_session_bench(engine, 3, log=lines.append)
    assert found.seconds.shape == (3, 40) and (found.seconds > 0).all()
    count, seen = found.elements
    assert count >= 120 * 7 > seen == engine.config.serve.context  # time, frame, four of sound, gate: past the context
    assert found.recompilations == 0 and len(lines) == 3 and not engine.taken
    assert found.on_device[1] == found.on_device[-1] > 0 and (found.speaks <= 1).all()
    assert found.speaks.shape == found.steps.shape == (3, 40)
    most = engine.config.model.max_text_out + 1
    assert (1 <= found.steps).all() and (found.steps <= most).all() and found.same_work_ratio > 0
    assert f"last minute / first minute: {found.ratio:.3f}" in str(found) and "| 3 |" in str(found)


def test_ticks_of_the_same_work_are_compared_like_with_like():
    seconds = np.asarray([[0.01, 0.01, 0.02, 0.5], [0.02, 0.9, 0.9, 0.06]])
    speaks = np.asarray([[0.0, 0.0, 0.0, 1.0], [0.0, 0.5, 1.0, 0.0]])
    steps = np.asarray([[1, 1, 2, 3], [1, 1, 4, 2]])  # in common: one step twice as slow, two steps thrice
    found = LongSession(1, (10, 5), seconds, np.ones(3), np.ones(3), speaks, steps, 0)
    assert found.same_work_ratio == pytest.approx(2.5) and found.ratio == pytest.approx(0.48 / 0.015)
    assert np.isnan(
        LongSession(1, (10, 5), seconds, np.ones(3), np.ones(3), speaks, steps * [[1], [9]], 0).same_work_ratio
    )


def test_numbers_that_are_none_end_it(small_variables, optimised):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), small_variables)
    engine = Engine(LoadedModel(small_config(), tokenizer(), broken), 3)  # as `warm_engine`: compiled once
    with pytest.raises(ValueError, match="not finite"):
        long_session_bench(engine, 1)
