"""The account of a run's time: every second once, over any number of starts."""

import json

import pytest

from tml_jax.train import goodput
from tml_jax.train.goodput import CHECKPOINT, DATA, FILE, REPEATED, STARTUP, STEP, STOPPED, Goodput, summarise


class Clock:
    """A clock that the test moves, in place of the `time` module."""

    def __init__(self):
        self.now = 1000.0

    def time(self):
        return self.now

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(goodput, "time", clock)
    return clock


def attempt(run_dir, clock, resumed_from, steps, started=None):
    """5 s of start-up, then steps of 10 s with 1 s of waiting in each, and 2 s of saving after every second."""
    spent = Goodput(run_dir, started)
    clock.now += 5
    spent.resume(resumed_from)
    with spent.cause(STEP):
        for step in range(resumed_from + 1, resumed_from + steps + 1):
            clock.now += 10
            spent.move(1.0, DATA)
            spent.write(step)
            if step % 2 == 0:
                with spent.cause(CHECKPOINT):
                    clock.now += 2
                spent.write(step, now=True)
    return spent


def test_causes_add_up_to_the_wall_time_of_one_attempt(tmp_path, clock):
    spent = attempt(tmp_path, clock, 0, 4, started=997.0)
    spent.write(4, now=True, finished=True)
    whole = summarise(tmp_path)
    assert {cause: seconds for cause, seconds in whole.seconds.items() if seconds} == {
        STEP: 36, DATA: 4, CHECKPOINT: 4, STARTUP: 8,
    }  # fmt: skip
    assert whole.wall == clock.now - 997.0 == 52
    assert whole.goodput == spent.share() == 36 / 52
    assert (
        str(whole)
        == "goodput 69.2% of 52 s (1 start); lost: start-up 15.4%, waiting for data 7.7%, checkpoint save 7.7%"
    )


def test_steps_after_the_last_checkpoint_and_the_time_until_the_restart_are_lost(tmp_path, clock):
    attempt(tmp_path, clock, 0, 3)  # killed after step 3; the checkpoint is of step 2
    clock.now += 30
    spent = attempt(tmp_path, clock, 2, 2)
    spent.write(4, now=True, finished=True)
    whole = summarise(tmp_path)
    assert whole.attempts == 2 and whole.wall == clock.now - 1000
    assert whole.seconds[STEP] == 4 * 9 and whole.seconds[REPEATED] == 9 and whole.seconds[STOPPED] == 30
    assert spent.share() == pytest.approx(whole.goodput)


def test_steps_that_two_restarts_throw_away_are_lost_once(tmp_path, clock):
    attempt(tmp_path, clock, 0, 5)
    attempt(tmp_path, clock, 4, 1)
    attempt(tmp_path, clock, 2, 4)  # the checkpoint of step 4 turned out to be damaged
    whole = summarise(tmp_path)
    assert whole.seconds[STEP] == 6 * 9 and whole.seconds[REPEATED] == 4 * 9


def test_time_after_a_finished_run_is_not_lost(tmp_path, clock):
    attempt(tmp_path, clock, 0, 2).write(2, now=True, finished=True)
    clock.now += 86_400
    attempt(tmp_path, clock, 2, 2)
    assert summarise(tmp_path).seconds[STOPPED] == 0


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path, clock):
    attempt(tmp_path, clock, 0, 2)
    path = tmp_path / FILE
    path.write_text(path.read_text() + '{"attempt": 0, "st')
    attempt(tmp_path, clock, 2, 2)
    assert [json.loads(line)["attempt"] for line in path.read_text().splitlines()].count(1) >= 2
    assert summarise(tmp_path).seconds[STEP] == 4 * 9


def test_other_processes_write_nothing(tmp_path, clock):
    attempt(None, clock, 0, 2)
    assert list(tmp_path.iterdir()) == []
