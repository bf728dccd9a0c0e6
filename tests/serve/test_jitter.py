"""Every sample that comes in time is heard once and in its place; every other is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tml_jax.serve.jitter import JitterBuffer, begin, catch_up, clear, due, push, take

HOP = 320  # samples of a packet of 20 ms
TICK = 0.2
OPTIONS = dict(max_examples=150, deadline=None, database=None, derandomize=True)


def ramp(offset: int, count: int) -> np.ndarray:
    """Samples that tell their own number: 1, 2, 3, …"""
    return np.arange(offset + 1, offset + count + 1, dtype=np.float32)


def play(packets: list[tuple[float, int, int]], ticks: int, delay: float, phase: float = 0.0) -> tuple:
    """Sends (time, offset, count) packets in order of time and takes a window at each tick that has one due."""
    buffer, windows = JitterBuffer(delay=delay), []
    waiting = sorted(packets)
    for tick in range(ticks):
        now = phase + tick * TICK
        while waiting and waiting[0][0] <= now:
            time, offset, count = waiting.pop(0)
            buffer = push(buffer, ramp(offset, count), time, offset)
        buffer, window = take(buffer, now)
        if window is not None:
            windows.append((now, window))
    return buffer, windows


packets_on_the_way = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["once", "twice", "lost"])), min_size=12, max_size=60
)


@settings(**OPTIONS)
@given(packets_on_the_way, st.floats(0, 0.3), st.floats(0, TICK))
def test_what_comes_in_time_is_heard_once_in_its_place_and_the_rest_is_counted(fates, delay, phase):
    packets = []
    for number, (steps, fate) in enumerate(fates):
        made = 1.0 + (number + 1) * HOP / 16_000
        copies = {"once": [steps], "twice": [steps, steps + 3], "lost": []}[fate]
        packets += [(made + 0.01 * more, number * HOP, HOP) for more in copies]
    buffer, windows = play(packets, 30, delay, phase)
    assert [window.index for _, window in windows] == list(range(len(windows)))
    taken_at = {window.index: now for now, window in windows}
    heard = np.concatenate([window.audio for _, window in windows] or [np.zeros(0, np.float32)])
    present = heard > 0
    np.testing.assert_array_equal(heard[present], np.flatnonzero(present) + 1)  # in its place, so once, and in order

    arrived = {}
    for time, offset, _ in packets:
        arrived.setdefault(offset, []).append(time)
    for number in range(len(fates)):
        for edge in (number * HOP, number * HOP + HOP - 1):
            window = edge // 3200
            if window in taken_at and abs(taken_at[window] - min(arrived.get(edge // HOP * HOP, [99]))) > 1e-9:
                assert present[edge] == (min(arrived.get(edge // HOP * HOP, [99])) <= taken_at[window])
    assert sum(window.missing for _, window in windows) == np.sum(~present) == buffer.counts.missing
    assert buffer.counts.heard == np.sum(present)
    sent = sum(count for time, _, count in packets if time <= phase + 29 * TICK)
    counts = buffer.counts
    assert sent == counts.heard + counts.late + counts.duplicate + counts.beyond + int(buffer.here.sum())


@settings(**OPTIONS)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.lists(st.booleans(), min_size=30, max_size=30))
def test_sound_without_stamps_loses_nothing_however_it_is_cut_and_delayed(sizes, pauses):
    buffer, heard, sent, now = JitterBuffer(delay=0.0), [], 0, 5.0
    for size, pause in zip(sizes, pauses):
        buffer = push(buffer, ramp(sent, size), now)
        sent += size
        for _ in range(1 + 4 * pause):
            now += TICK
            buffer, window = take(buffer, now)
            heard.append(np.zeros(0) if window is None else window.audio)
    for _ in range(200):
        now += TICK
        buffer, window = take(buffer, now)
        heard.append(window.audio)
    every = np.concatenate(heard)
    np.testing.assert_array_equal(every[every > 0], np.arange(1, sent + 1))
    assert buffer.counts.heard == sent and buffer.counts.late == buffer.counts.duplicate == 0


def test_a_window_waits_the_stated_delay_and_no_longer():
    buffer = push(JitterBuffer(delay=0.06), ramp(0, HOP), now=1.02, offset=0)  # made at 1.00 … 1.02
    assert due(buffer) == pytest.approx(1.26)
    assert take(buffer, 1.25)[1] is None
    after, window = take(buffer, 1.26)
    assert window.missing == 3200 - HOP and due(after) == pytest.approx(1.46)
    late = push(after, ramp(HOP, HOP), 1.27, HOP)
    assert late.counts.late == HOP and not late.here.any()


def test_nothing_is_due_before_time_has_begun():
    assert take(JitterBuffer(), 1e9)[1] is None
    typed = begin(JitterBuffer(delay=0.0), 3.0)
    assert begin(typed, 9.0) == typed
    assert take(typed, 3.1)[1] is None and take(typed, 3.2)[1].missing == 3200


def test_what_is_too_far_ahead_is_not_kept():
    buffer = push(JitterBuffer(horizon=3200), ramp(0, 4000), 0.0, 0)
    assert buffer.counts.beyond == 800 and buffer.here.sum() == 3200
    far = push(buffer, ramp(10**9, 10), 0.0, 10**9)
    assert far.counts.beyond == 810 and len(far.samples) == 3200


@pytest.mark.parametrize("offset", [0, 3200, 48_000, 10**9])
def test_a_session_begins_with_its_first_sound_whatever_number_that_has(offset):
    whole = np.ones(20 * HOP, np.float32)
    buffer, heard = JitterBuffer(delay=0.06), 0
    for piece in range(20):  # as it is spoken
        buffer = push(buffer, whole[:HOP], 5 + piece * 0.02, offset + piece * HOP)
    for tick in range(4):
        buffer, window = take(buffer, 5.2 + tick * TICK)
        heard += 0 if window is None else window.audio.sum()
    assert heard == buffer.counts.heard == len(whole)
    assert buffer.counts.beyond == buffer.counts.late == buffer.counts.skipped == 0


def test_the_buffer_given_is_never_changed():
    before = push(JitterBuffer(), ramp(0, 100), 0.0, 0)
    samples, here = before.samples, before.here
    push(before, ramp(50, 4000), 0.1, 50)
    take(before, 99.0)
    clear(before)
    np.testing.assert_array_equal(before.samples, samples)
    np.testing.assert_array_equal(before.here, here)


@pytest.mark.parametrize("offset", [None, 25_000], ids=["at the end", "in a hole"])
def test_a_piece_copies_what_it_touches_however_much_waits(offset):
    buffer = push(JitterBuffer(horizon=60 * 16_000), ramp(0, 20_000), 0.0, 0)
    buffer = push(buffer, ramp(30_000, 900_000), 0.0, 30_000)
    after = push(buffer, ramp(0, HOP), 0.0, offset)
    assert after.here.sum() == buffer.here.sum() + HOP
    assert sum(one is not other for one, other in zip(buffer.blocks, after.blocks)) <= 2
    assert all(
        np.shares_memory(one.samples, other.samples) for one, other in zip(buffer.blocks[20:], after.blocks[20:-1])
    )


def test_after_clearing_sound_goes_on_from_the_next_window():
    buffer = clear(push(JitterBuffer(delay=0.0), ramp(0, 5000), 0.0))
    _, window = take(push(buffer, ramp(0, 10), 0.1), 1.0)
    np.testing.assert_array_equal(window.audio[:10], ramp(0, 10))
    assert window.missing == 3190


def test_after_an_overload_the_last_window_that_is_due_comes_next():
    buffer = push(JitterBuffer(delay=0.0), ramp(0, 5 * 3200), 1.0, 0)  # window 0 is due at 1.0, the others follow
    late = catch_up(buffer, 1.65)
    assert late.counts.skipped == 3 * 3200
    _, window = take(late, 1.65)
    assert window.index == 3 and window.audio[0] == 3 * 3200 + 1
    assert catch_up(buffer, 1.15).taken == 0
    assert catch_up(JitterBuffer(), 9.0).taken == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="offset = -1"):
        push(JitterBuffer(), ramp(0, 1), 0.0, -1)
    with pytest.raises(ValueError, match="delay = -1"):
        JitterBuffer(delay=-1)
