"""The measurement of a server: of every sample of every window; and it says so when the server does not play along."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "serve"))

from served import KEY, Served

from tml_jax.bench.batches import noise
from tml_jax.bench.clients import Talk, talk_at_once
from tml_jax.bench.serve import CUSHION, HELD_WAIT, ServeBench, played, serve_bench, summarise


@pytest.fixture(scope="module")
def url(warm_engine):
    with Served(warm_engine) as served:
        yield f"ws://127.0.0.1:{served.port}/v1/realtime"


def talk(arrived, speaks=None, index=None, lost=0) -> Talk:
    arrived = np.asarray(arrived, float)
    index = np.arange(len(arrived)) if index is None else np.asarray(index)
    speaks = np.zeros(len(arrived), bool) if speaks is None else np.asarray(speaks, bool)
    return Talk(index, arrived, speaks, np.full(len(arrived), 0.05), 3200 * len(arrived) - lost, lost, np.zeros(3))


def test_every_window_of_every_client_is_in_it(url):
    lines = []
    found = serve_bench(lambda count: contextlib.nullcontext(url), [1, 2, 4], 1.0, noise(), KEY, lines.append)
    assert [load.clients for load in found.loads] == [1, 2]
    assert len(lines) == 6 and "every place is taken" in lines[-1]  # there are three
    for load in found.loads:
        answered = 5 * load.clients - load.passed_over
        assert len(load.tick) == len(load.wait) == len(load.mouth_to_ear) / 200 == answered
        assert (load.tick > 0).all() and (load.wait > 0).all() and 0 <= load.lost < 1


def test_a_client_is_given_the_answers_to_its_own_windows(url):
    found = talk_at_once(url, 3, 5, noise(), KEY)
    assert len(found) == 3
    for seen in found:
        assert (np.diff(seen.index) > 0).all() and seen.index[-1] <= 4
        assert (seen.arrived > 0.2 * (seen.index + 1)).all()  # nothing is answered before it has been said
        assert seen.heard % 3200 == 0 or seen.lost


def test_a_server_that_refuses_or_is_not_there_is_said(url):
    with pytest.raises(OSError, match="401"):
        talk_at_once(url, 1, 5, noise(), "wrong")
    with pytest.raises(OSError, match="launch.serve"):
        talk_at_once("ws://127.0.0.1:9/v1/realtime", 1, 5, noise())
    with pytest.raises(ValueError, match="every place is taken"):
        talk_at_once(url, 4, 5, noise(), KEY)


def test_sound_that_comes_in_time_goes_on_without_a_gap_and_late_sound_leaves_one():
    #              silence, begins, goes on, comes 30 ms too late, silence while that is still played
    arrived, speaks = [0.3, 0.5, 0.72, 0.97, 1.10], [False, True, True, True, False]
    begins, gap = played(talk(arrived, speaks))
    assert begins == pytest.approx([0.3 + CUSHION, 0.5 + CUSHION, 0.7 + CUSHION, 0.97 + CUSHION, 1.17 + CUSHION])
    assert gap.tolist() == [False, False, False, True, False]


def test_mouth_to_ear_is_from_every_sample_of_a_window_to_the_sound_that_answers_it():
    load = summarise([talk([0.3, 0.5]), talk([0.3, 0.8], index=[0, 2])], windows=3)
    first = load.mouth_to_ear[:200]  # of window 0, that is answered 100 ms after its end
    assert first.max() == pytest.approx(0.3 + CUSHION, abs=0.001) and first.min() == pytest.approx(
        0.1 + CUSHION, abs=0.001
    )
    assert np.mean(load.mouth_to_ear[-200:]) == pytest.approx(0.8 + CUSHION - 0.5)  # window 2, not the second answer
    assert load.wait == pytest.approx([0.1, 0.1, 0.1, 0.2]) and load.passed_over == 2


@pytest.mark.parametrize(
    ("wait", "index", "lost", "held"),
    [
        (HELD_WAIT - 0.01, None, 0, True),
        (HELD_WAIT + 0.01, None, 0, False),
        (0.1, [0, 1, 3], 0, False),
        (0.1, None, 1, False),
    ],
)
def test_clients_are_held_if_nothing_is_passed_over_or_lost_and_answers_come_in_time(wait, index, lost, held):
    places = np.arange(3) if index is None else np.asarray(index)
    load = summarise([talk(0.2 * (places + 1) + wait, index=index, lost=lost)], windows=int(places[-1]) + 1)
    assert load.held is held


def test_the_table_has_a_row_for_each_number_of_clients_and_how_many_are_held():
    loads = [summarise([talk(0.2 * np.arange(1, 4) + wait)] * count, 3) for count, wait in ((2, 0.1), (4, 0.6))]
    shown = str(ServeBench(tuple(loads), 0.6, 0.25))
    assert "| 2 | 50 / 50 / 50 | 240 / 330 / 338 | 100 / 100 / 100 | 0 | 0.00% | 0.00% | 0% | 0 | yes |" in shown
    assert "| 4 | 50 / 50 / 50 | 740 / 830 / 838 | 600 / 600 / 600 | 0 | 0.00% | 0.00% | 0% | 0 | no |" in shown
    assert "Held in real time: 2 " in shown and "others kept 0.2 busy" in shown
