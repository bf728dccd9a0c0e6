"""The measurement of a server: it is of every micro-turn, and says so when the server does not play along."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from served import KEY, Served
from small import small_config
from synthetic import tokenizer

from tml_jax.bench.serve import ServeBench, serve_bench
from tml_jax.serve.engine import Engine
from tml_jax.serve.program import LoadedModel


@pytest.fixture(scope="module")
def url(small_variables):
    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), 3)
    engine.warm_up()
    with Served(engine) as served:
        yield f"ws://127.0.0.1:{served.port}/v1/realtime"


def test_every_micro_turn_of_every_client_is_in_it(url):
    found = serve_bench(url, sessions=2, seconds=1.0, api_key=KEY)
    assert {name: len(values) for name, values in found.milliseconds.items()} == {
        "tick": 10,
        "wait": 10,
        "gap between micro-turns": 8,
    }
    assert all((values > 0).all() for values in found.milliseconds.values())
    assert 0 < found.speaks <= 1 and 0 <= found.lost < 1


def test_a_server_that_refuses_or_is_not_there_is_said(url):
    with pytest.raises(OSError, match="401"):
        serve_bench(url, sessions=1, seconds=1.0, api_key="wrong")
    with pytest.raises(OSError, match="launch.serve"):
        serve_bench("ws://127.0.0.1:9/v1/realtime", sessions=1, seconds=1.0)
    with pytest.raises(ValueError, match="every place is taken"):
        serve_bench(url, sessions=4, seconds=1.0, api_key=KEY)


def test_the_table_holds_percentiles():
    times = np.arange(101.0)
    shown = str(ServeBench(2, 20.0, {"tick": times, "wait": times + 100}, 0.25, 0.001))
    assert "| 2 sessions, 20 s | p50 | p95 | p99 | most |" in shown
    assert "| tick, ms | 50 | 95 | 99 | 100 |" in shown and "25% of the micro-turns; 0.10%" in shown
