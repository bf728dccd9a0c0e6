"""Sessions in real time, by a clock that the test moves."""

import dataclasses

import numpy as np
import pytest

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import USER, Text
from tml_jax.serve.engine import FullError
from tml_jax.serve.scheduler import MAX_WAITING_TEXT, OVERLOADED, Ended, Scheduler
from tml_jax.serve.windows import Arrived, InputError

TICK = MICRO_TURN_SECONDS


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def live(engine):
    """(scheduler, clock, run): run(n) does n ticks on time."""
    clock = Clock()
    scheduler = Scheduler(engine, delay=0.0, clock=clock)

    def run(ticks: int = 1) -> None:
        for _ in range(ticks):
            scheduler.run_tick(clock.now)
            clock.now += TICK

    return scheduler, clock, run


def sound(windows: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(3200 * windows)).astype(np.float32)


def alone(engine, seed: int, windows: list[Arrived]) -> list:
    slot = engine.join(seed)
    turns = [engine.tick({slot: window}).turns[slot] for window in windows]
    engine.leave(slot)
    return turns


def same(ours: list, theirs: list) -> None:
    assert [(t.gate, t.text, t.index) for t in ours] == [(t.gate, t.text, t.index) for t in theirs]
    for one, other in zip(ours, theirs):
        np.testing.assert_array_equal(one.samples, other.samples)


def test_sound_and_text_reach_the_model_as_they_were_given(live):
    scheduler, clock, run = live
    expected = alone(scheduler.engine, 5, [Arrived(part) for part in sound(6).reshape(6, 3200)])
    turns = []
    session = scheduler.join(turns.append, 5, stamped=False)
    run()
    assert turns == []  # nothing has come, so its time has not begun
    session.hear(sound(6), clock.now)
    run(6)
    same(turns, expected)
    run()
    assert turns[-1].index == 6  # time goes on


def test_text_alone_begins_a_session_without_a_microphone(live):
    scheduler, clock, run = live
    expected = alone(scheduler.engine, 5, [Arrived(None, texts=[Text(USER, "red", 0.0)]), Arrived(None)])
    turns = []
    scheduler.join(turns.append, 5, stamped=False).read(Text(USER, "red", 0.0), clock.now - TICK)
    run(2)
    same(turns, expected)


def test_lost_sound_is_marked_and_late_sound_is_not_heard(live):
    scheduler, clock, run = live
    given = sound(4)
    half = given[:3200].copy()
    half[1600:] = 0
    expected = alone(
        scheduler.engine,
        5,
        [Arrived(half, lost=True), Arrived(None, lost=True), Arrived(given[6400:9600]), Arrived(given[9600:])],
    )
    turns = []
    session = scheduler.join(turns.append, 5, stamped=True)
    session.hear(given[:1600], clock.now - TICK / 2, 0)
    session.hear(given[6400:], clock.now - TICK / 2, 6400)  # early
    run(1)
    session.hear(given[1600:3200], clock.now, 1600)  # late
    run(3)
    same(turns, expected)
    assert session.counts.late == 1600 and session.counts.missing == 1600 + 3200


def test_at_most_as_many_sessions_as_slots_and_a_place_is_free_once_one_leaves(live):
    scheduler, clock, run = live
    sessions = [scheduler.join(lambda turn: None, seed, stamped=False) for seed in range(3)]
    assert scheduler.free == 0 and scheduler.sessions == 3
    with pytest.raises(FullError, match="all 3 places"):
        scheduler.join(lambda turn: None, 9, stamped=False)
    run()
    scheduler.leave(sessions[1])
    scheduler.leave(sessions[1])
    assert scheduler.free == 1
    turns = []
    scheduler.join(turns.append, 7, stamped=False).read(Text(USER, "red", 0.0), clock.now - TICK)
    run()
    assert len(turns) == 1 and scheduler.engine.taken == {0, 1, 2}


def test_one_that_leaves_before_its_first_tick_takes_no_slot(live):
    scheduler, _, run = live
    scheduler.leave(scheduler.join(lambda turn: None, 1, stamped=False))
    run()
    assert scheduler.engine.taken == frozenset() and scheduler.free == 3


def test_late_ticks_are_counted_and_caught_up_without_loss(live):
    scheduler, clock, _ = live
    expected = alone(scheduler.engine, 5, [Arrived(part) for part in sound(5).reshape(5, 3200)])
    turns = []
    session = scheduler.join(turns.append, 5, stamped=True)
    scheduled = clock.now
    session.hear(sound(5), clock.now, 0)
    clock.now += 0.5
    for _ in range(5):
        scheduled = scheduler.run_tick(scheduled)
        clock.now += 0.05
    same(turns, expected)
    assert scheduler.late_ticks == 2 and scheduler.skipped_windows == 0


def test_in_an_overload_nobody_new_is_let_in(live):
    scheduler, clock, _ = live
    scheduled = clock.now
    clock.now += 0.9
    scheduled = scheduler.run_tick(scheduled)
    assert scheduler.late_ticks == 0  # nobody was there for whom it could be late
    session = scheduler.join(lambda turn: None, 5, stamped=False)
    for _ in range(OVERLOADED):
        assert scheduler.free == 2
        clock.now += TICK
        scheduled = scheduler.run_tick(scheduled)
    assert scheduler.late_ticks == OVERLOADED and scheduler.free == 0
    clock.now = scheduled
    scheduler.run_tick(scheduled)
    assert scheduler.free == 2
    scheduler.leave(session)


def test_a_schedule_too_far_behind_starts_anew_and_says_what_was_lost(live):
    scheduler, clock, run = live
    given = sound(10)
    expected = alone(scheduler.engine, 5, [Arrived(given[:3200]), Arrived(given[7 * 3200 : 8 * 3200], lost=True)])
    turns = []
    session = scheduler.join(turns.append, 5, stamped=True)
    session.hear(given, clock.now, 0)
    scheduled = scheduler.run_tick(clock.now)
    clock.now += 7 * TICK
    assert scheduler.run_tick(scheduled) == pytest.approx(clock.now + TICK)
    assert [turn.index for turn in turns] == [0, 7] and turns[1].start == pytest.approx(7 * TICK)  # time goes on
    same([turns[0], dataclasses.replace(turns[1], index=1, start=expected[1].start)], expected)
    assert scheduler.skipped_windows == 6 and session.counts.skipped == 6 * 3200


def test_nobody_new_is_let_in_from_the_first_window_on_that_is_passed_over(live, monkeypatch):
    scheduler, clock, _ = live
    tick = scheduler.engine.tick

    def slow(inputs):
        clock.now += 1.3
        return tick(inputs)

    monkeypatch.setattr(scheduler.engine, "tick", slow)
    session = scheduler.join(lambda turn: None, 5, stamped=False)
    session.hear(sound(10), clock.now)
    scheduled = clock.now
    while not scheduler.skipped_windows:
        assert scheduler.free == 2
        scheduled = scheduler.run_tick(scheduled)
    assert scheduler.late_ticks < OVERLOADED and scheduler.free == 0
    scheduler.leave(session)


def test_what_the_model_cannot_take_is_refused_at_the_door(live):
    scheduler, clock, run = live
    session = scheduler.join(lambda turn: None, 5, stamped=False)
    for bad in (np.full(10, np.nan, np.float32), np.zeros(10), np.zeros((2, 5), np.float32)):
        with pytest.raises(InputError, match="expected finite float32"):
            session.hear(bad, clock.now)
    with pytest.raises(InputError, match="offset = 3: expected none"):
        session.hear(np.zeros(10, np.float32), clock.now, 3)
    stamped = scheduler.join(lambda turn: None, 5, stamped=True)
    for offset in (None, -1, 10**400):
        with pytest.raises(InputError, match="expected 0 to"):
            stamped.hear(np.zeros(10, np.float32), clock.now, offset)
    with pytest.raises(InputError, match=r"\(40, 40, 3\)"):
        session.see(np.zeros((10, 10, 3), np.uint8), clock.now)
    with pytest.raises(InputError, match=f"expected {MAX_WAITING_TEXT}"):
        session.read(Text(USER, "x" * MAX_WAITING_TEXT, 0.0), clock.now)
    with pytest.raises(InputError, match="no Unicode"):
        session.read(Text(USER, "\ud800", 0.0), clock.now)
    session.see(np.zeros((40, 40, 3), np.uint8), clock.now)
    run(2)


def test_an_engine_that_fails_ends_every_session(live):
    scheduler, clock, _ = live
    ended = []
    session = scheduler.join(ended.append, 5, stamped=False)
    scheduler.engine.tick = None  # calling it is an error
    try:
        session.begin(clock.now - TICK)
        scheduler._run()
    finally:
        del scheduler.engine.tick
    assert ended == [Ended("engine_failed")] and scheduler.failed and scheduler.free == 0
