"""The benchmark of the background: sessions go on whatever their background does, and what became of tasks is told."""

import collections
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from scripted import Line, ScriptedEngine
from synthetic import tokenizer

from tml_jax.bench.background import BLOCK, KINDS, BackgroundBench, background_bench


def test_ticks_go_on_while_a_background_hangs_holds_its_thread_computes_floods_or_dies():
    engine = ScriptedEngine(lambda index, arrived: Line(), slots=2)
    found = background_bench(engine, tokenizer(), BLOCK, log=lambda line: None)
    assert {kind: len(seconds) for kind, seconds in found.seconds.items()} == {kind: BLOCK for kind in KINDS}
    assert not engine.arrived  # every session has left
    asked = 2 * BLOCK // 10
    assert not found.events["none"]
    for kind in list(KINDS)[1:]:
        assert asked <= found.events[kind]["asked"] <= asked + 2, kind
    for kind in ("hangs", "holds its thread", "computes"):
        assert not found.events[kind]["done"] and found.events[kind]["expired"] > 0, kind


def test_the_table_has_a_row_for_each_kind():
    events = {"none": {"asked": 0}, "hangs": {"asked": 3, "expired": 2}}
    counts = {kind: collections.Counter(found) for kind, found in events.items()}
    shown = str(BackgroundBench(2, {kind: np.arange(101) / 1000 for kind in events}, counts))
    assert "| hangs | 50.0 | 95.0 | 99.0 | 100.0 | 3 | 0 | 0 | 2 |" in shown and "2 session(s), 101 ticks" in shown
