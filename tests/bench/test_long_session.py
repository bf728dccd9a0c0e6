"""The measurement of long sessions: every micro-turn is in it, and sessions that outgrow their context stay in it."""

import jax
import numpy as np
import pytest
from small import small_config
from synthetic import tokenizer

from tml_jax.bench import long_session
from tml_jax.bench.long_session import long_session_bench
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
    assert found.on_device[1] == found.on_device[-1] > 0 and found.speaks.shape == (3, 40)
    for side in (found.old, found.new):  # two minutes in blocks of five
        assert side.seconds.shape == side.processor.shape == side.work.shape == (16, 5)
        assert (side.work // 2 >= 1).all() and (side.work // 2 <= engine.config.model.max_text_out + 1).all()
    np.testing.assert_array_equal(found.old.seconds.ravel(), found.seconds[1:].ravel())
    assert f"all ticks {found.ratio.value:.3f}" in str(found) and "| 3 |" in str(found)
    with pytest.raises(ValueError, match="expected at least 2"):
        long_session_bench(engine, 1)


def test_sessions_beside_it_are_new_ones_and_change_nothing(warm_engine, monkeypatch):
    """The old ones say what they say alone; those beside them what sessions say that begin with what is heard then."""
    monkeypatch.setattr(long_session, "TURNS_A_MINUTE", 10)
    said = {}
    real = Engine.tick

    def tick(self, inputs):
        ticked = real(self, inputs)
        said.setdefault(id(self), []).append([turn.samples for turn in ticked.turns.values()])
        return ticked

    monkeypatch.setattr(Engine, "tick", tick)
    long_session_bench(warm_engine, 3)
    old, new = said.values()
    assert len(old) == 30 and len(new) == 20
    said.clear()
    monkeypatch.setattr(long_session, "COMPARED", 1)
    long_session_bench(warm_engine, 3)
    again, later = said.values()
    np.testing.assert_array_equal(old, again)
    np.testing.assert_array_equal(new[10:], later)


def test_numbers_that_are_none_end_it(small_variables, optimised):
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), small_variables)
    engine = Engine(LoadedModel(small_config(), tokenizer(), broken), 3)  # as `warm_engine`: compiled once
    with pytest.raises(ValueError, match="not finite"):
        long_session_bench(engine, 2)
