"""A live client is heard without delay again after its network stood still; one that sends fast is heard whole."""

import base64
import contextlib
import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import Line, ScriptedEngine
from served import Served, send
from small import small_config

from tml_jax.serve.jitter import JitterBuffer, push, take
from tml_jax.serve.lag import MOST
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.sound_formats import to_pcm16

PIECE = 320  # samples of 20 ms
TICK = 0.2
DELAY = 0.06
OPTIONS = dict(max_examples=20, deadline=None, database=None, derandomize=True)


def numbered(first: int, count: int) -> np.ndarray:
    """Loud samples that tell their own number."""
    return np.arange(first + 1, first + count + 1, dtype=np.float32)


def play(sent: list[tuple[float, np.ndarray]], seconds: float, phase: float) -> tuple[JitterBuffer, list]:
    """Pushes (time, samples), sorted; takes windows at every tick; (time, window) of each."""
    buffer, windows, waiting = JitterBuffer(delay=DELAY), [], list(sent)
    for tick in range(int(seconds / TICK) + 2):
        now = phase + tick * TICK
        while waiting and waiting[0][0] <= now:
            at, samples = waiting.pop(0)
            buffer = push(buffer, samples, at)
        buffer, window = take(buffer, now)
        if window is not None:
            windows.append((now, window))
    assert not waiting
    return buffer, windows


def live(
    seconds: float, piece: int, stalls: list[tuple[float, float]], make=numbered
) -> list[tuple[float, np.ndarray]]:
    """A microphone whose pieces arrive as they are made, but for the (begin, length) in which all is held up."""
    sent = []
    for first in range(0, int(seconds * 16_000) - piece, piece):
        at = (first + piece) / 16_000
        for begin, length in stalls:
            at = begin + length if begin <= at < begin + length else at
        sent.append((at, make(first, piece)))
    return sent


def lags(windows: list) -> dict[float, float]:
    """Time of a window → seconds since its last sample was made."""
    return {now: now - window.audio.max() / 16_000 for now, window in windows if window.missing == 0}


@settings(**OPTIONS)
@given(st.floats(0.9, 8.0), st.floats(0, TICK), st.sampled_from([320, 1600, 3200]))
def test_after_a_stall_a_live_client_is_heard_without_delay_again(stall, phase, piece):
    buffer, windows = play(live(20.0 - 0.1, piece, [(4.0, stall)]), 20.0, phase)
    usual = max(lag for now, lag in lags(windows).items() if now < 4.0)
    after = {now: lag for now, lag in lags(windows).items() if now > 4.0 + stall + 0.3}
    assert max(after.values()) > stall - 0.3  # it was late
    assert max(lag for now, lag in after.items() if now > 4.0 + stall + 3.0) < max(usual, DELAY + piece / 16_000) + 0.05
    heard = np.concatenate([window.audio for _, window in windows])
    heard = heard[heard > 0]
    assert np.all(np.diff(heard) > 0)  # in order, and nothing twice
    counts = buffer.counts
    assert counts.dropped + counts.heard + int(buffer.here.sum()) == len(live(19.9, piece, [])) * piece
    assert sum(window.dropped for _, window in windows) == counts.dropped <= counts.missing
    assert sum(window.cut for _, window in windows) == (counts.dropped > 0)


def test_short_stalls_do_not_add_up():
    stalls = [(begin, 0.3) for begin in np.arange(2.0, 56.0, 3.0)]
    _, windows = play(live(59.9, PIECE, stalls), 60.0, 0.05)
    assert max(lags(windows).values()) < 0.3 + MOST / 16_000 + 0.5


def test_what_a_short_stall_has_delayed_is_made_up_for_in_a_pause_without_loss():
    def speech(first: int, count: int) -> np.ndarray:
        return numbered(first, count) if not 10.0 <= first / 16_000 < 11.0 else np.zeros(count, np.float32)

    buffer, windows = play(live(19.9, PIECE, [(4.0, 0.6)], speech), 20.0, 0.0)
    usual = max(lag for now, lag in lags(windows).items() if now < 4.0)
    assert max(lag for now, lag in lags(windows).items() if 6.0 < now < 9.0) > usual + 0.1
    assert max(lag for now, lag in lags(windows).items() if now > 12.0) < usual + 0.01
    assert buffer.counts.dropped and not any(window.cut for _, window in windows)
    heard = np.concatenate([window.audio for _, window in windows])
    spoken = np.concatenate([part for at, part in live(19.9, PIECE, [], speech) if at < 19.0])
    assert set(spoken[spoken > 0]) <= set(heard)


def paced(seconds: float, speed: float, begin: float, first: int) -> list[tuple[float, np.ndarray]]:
    """A recording that is sent at a multiple of real time, from `begin` on; `speed` 0 is at once."""
    pieces = int(seconds * 50)
    gap = 0.02 / speed if speed else 0.0
    return [(begin + gap * index, numbered(first + PIECE * index, PIECE)) for index in range(pieces)]


@settings(**OPTIONS)
@given(st.sampled_from([0, 1.5, 2, 5, 20]), st.floats(0, 20), st.floats(0, TICK), st.floats(2, 10))
def test_recordings_sent_faster_than_real_time_are_heard_whole_also_after_pauses(speed, pause, phase, seconds):
    one = paced(seconds, speed, 1.0, 0)
    two = paced(seconds, speed, max(one[-1][0], 1.0 + seconds) + pause, PIECE * len(one))
    buffer, windows = play(one + two, two[-1][0] + 2 * seconds + 2, phase)
    heard = np.concatenate([window.audio for _, window in windows])
    np.testing.assert_array_equal(heard[heard > 0], np.arange(1, PIECE * len(one + two) + 1))
    assert buffer.counts.dropped == 0


def test_what_a_fast_sender_has_sent_is_not_given_up_for_the_microphone_that_follows():
    """Nothing was missing, so nothing is made up for."""
    sent = paced(5.0, 0, 0.1, 0) + [(0.1 + at, part + 80_000) for at, part in live(10.0, PIECE, [])]
    buffer, windows = play(sent, 16.0, 0.0)
    assert buffer.counts.dropped == 0


@pytest.mark.parametrize("piece", [1600, 3200])
@pytest.mark.parametrize("speed", [1.0008, 0.9992])
@pytest.mark.parametrize("pauses", [True, False])
def test_a_clock_that_is_not_the_servers_does_not_put_a_session_behind_in_hours(speed, pauses, piece):
    """A quarter of an hour of a clock that is wrong by 0.08 % is two hours of one that is wrong by 0.01 %."""
    buffer, waited, cuts, first = JitterBuffer(delay=DELAY, horizon=60 * 16_000), [], 0, 0
    for tick in range(int(900 / TICK)):
        now = tick * TICK
        while (first + piece) / (16_000 * speed) <= now:
            loud = not pauses or first // 16_000 % 10  # of ten seconds one is quiet
            buffer = push(buffer, np.full(piece, 0.1 if loud else 0.0, np.float32), (first + piece) / (16_000 * speed))
            first += piece
        buffer, window = take(buffer, now)
        if window is not None:
            waited.append(buffer.waiting)
            cuts += window.cut
    assert max(waited) < MOST + 3 * 3200
    made = 0.0008 * 900 * 16_000  # that the clock makes too many, or too few
    if speed > 1:
        assert 0.3 * made < buffer.counts.dropped < 1.5 * made and bool(cuts) == (not pauses)
    else:
        assert buffer.counts.dropped == 0 and buffer.counts.missing < 1.5 * made + 3200


@pytest.mark.parametrize("lost", [[], [1, 3]])
def test_the_window_after_the_cut_is_marked_as_lost_and_other_marks_stay_with_their_sound(lost):
    session = LiveSession(lambda turn: None, 0, False, DELAY, 10**7, config=small_config())
    marks = []
    sent = live(12.0, PIECE, [(4.0, 3.0)])
    held = {at: index for index, (at, _) in enumerate(sent)}
    for tick in range(int(12.0 / TICK)):
        now = 0.05 + tick * TICK
        while sent and sent[0][0] <= now:
            at, samples = sent.pop(0)
            session.hear(samples, at, lost=PIECE if lost and at > 11.0 and held[at] % 50 in lost else 0)
        arrived = session.collect(now)
        if arrived is not None:
            marks.append((now, arrived.lost))
    cuts = [now for now, mark in marks if mark and now < 11.0]
    assert len(cuts) == 1 and 8.5 < cuts[0] < 9.5  # 2 s after it is live again
    assert any(mark for now, mark in marks if now > 11.0) == bool(lost)


@pytest.mark.slow
def test_over_a_socket_the_client_is_told_what_was_dropped():
    piece = base64.b64encode(to_pcm16(np.full(480, 0.1, np.float32))).decode()
    with Served(ScriptedEngine(lambda index, arrived: Line())) as served, served.socket("?resumable=1") as socket:
        began, sent, notices = time.monotonic(), 0, []
        while not notices and time.monotonic() - began < 60:
            made = int((time.monotonic() - began) / 0.02)
            while sent < made and not 100 <= made < 250:  # its network stands still for 3 s
                send(socket, type="input_audio_buffer.append", audio=piece)
                sent += 1
            time.sleep(0.02)
            with contextlib.suppress(TimeoutError):
                while True:
                    event = json.loads(socket.recv(timeout=0))
                    notices += [event] if event["type"] == "session.notice" else []
        assert notices[0]["code"] == "input_audio_dropped" and 1500 < notices[0]["milliseconds"] <= 3000
