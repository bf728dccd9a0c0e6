"""Sound of a call: what is lost on the way in, and what waits to be played on the way out."""

import numpy as np
from dialogue_client import FakeLive
from hypothesis import given
from hypothesis import strategies as st
from small import small_config

from tml_jax.serve import voice as voices
from tml_jax.serve.rtc_dialogue import RtcDialogue
from tml_jax.serve.rtc_sound import SoundIn
from tml_jax.serve.voice import KEPT_AT_YIELD, Piece, Voice
from tml_jax.serve.words import MicroTurn

FRAME = 960


def take(stamps: list[int]) -> tuple[np.ndarray, list[int]]:
    """A tone in frames with these stamps, and how much was lost before each."""
    stream, got = SoundIn(), []
    for stamp in stamps:
        time = (stamp - stamps[0]) % 2**32 + np.arange(FRAME)
        got.append(stream.take(np.sin(2 * np.pi * 500 * time / 48_000).astype(np.float32), stamp))
    return np.concatenate([sound for pieces in got for sound, _ in pieces]), [
        sum(count for _, count in pieces) for pieces in got
    ]


def test_lost_frames_are_silence_of_their_length_and_said():
    whole, lost = take([FRAME * n for n in range(50)])
    assert not any(lost)
    holed, lost = take([FRAME * n for n in range(50) if n not in (20, 21)])
    assert [(n, count) for n, count in enumerate(lost) if count] == [(20, 2 * FRAME // 3)]
    hole = slice(20 * FRAME // 3, 22 * FRAME // 3)
    assert not holed[hole].any()
    rest = min(len(holed), len(whole))  # what is around it is in its place
    for part in (slice(0, hole.start - 50), slice(hole.stop + 50, rest)):
        np.testing.assert_allclose(holed[part], whole[part], atol=1e-3)


def test_stamps_that_begin_anew_are_no_loss_and_a_frame_that_comes_twice_is_heard_once():
    whole, _ = take([FRAME * n for n in range(20)])
    start = 2**32 - 5 * FRAME + 7
    wrapped, lost = take([(start + FRAME * n) % 2**32 for n in range(20)])
    assert not any(lost) and np.array_equal(wrapped, whole)
    twice, lost = take([FRAME * n for n in (*range(10), 9, 8, *range(10, 20))])
    assert not any(lost) and np.array_equal(twice, whole)


def test_after_a_pause_sound_goes_on_without_the_silence_that_has_passed():
    paused, lost = take([*(FRAME * n for n in range(10)), *(FRAME * n for n in range(100, 110))])
    assert not any(lost) and len(paused) <= 20 * FRAME // 3


COUNTS = st.lists(st.tuples(st.sampled_from(["say", "play", "cut"]), st.integers(1, 6000)), max_size=40)


@given(COUNTS)
def test_what_is_played_is_what_was_said_in_order_and_a_cut_leaves_no_more_than_it_may(steps):
    voice, said, heard, cuts = Voice(), 0, [], 0
    for kind, count in steps:
        if kind == "say":
            voice, said = (
                voices.say(voice, Piece(np.arange(said + 1, said + count + 1, dtype=np.float32), "r")),
                said + count,
            )
        elif kind == "cut":
            voice, cuts = voices.cut(voice, count), cuts + 1
            assert voice.length <= max(count, 0) or not voice.pieces
        else:
            voice, sound, reply = voices.play(voice, count)
            assert len(sound) == count and (reply == "r") == bool(sound.any())
            heard.append(sound)
    heard = np.concatenate([*heard, np.zeros(0, np.float32)])
    heard = heard[heard > 0]
    if not cuts:
        assert np.all(np.diff(heard) >= 1) and heard.size <= said


class Turns:
    """Micro-turns of a dialogue over WebRTC."""

    def __init__(self) -> None:
        self.dialogue, self.index = RtcDialogue(FakeLive(), "small", small_config()), 0

    def turn(self, speaks: bool) -> list[str]:
        samples = np.full(4800, 0.25 if speaks else 0.0, np.float32)
        gate = "SPEAK" if speaks else "LISTEN"
        turn = MicroTurn(self.index, 0.2 * self.index, gate, "", "", np.zeros((20, 80), np.float32), samples, 0.01)
        self.index += 1
        return [event["type"] for event in self.dialogue.micro_turn(turn)]


def test_a_voice_that_yields_after_a_stall_says_no_more_than_it_may_and_then_it_has_stopped():
    turns = Turns()
    for _ in range(10):
        assert "response.output_audio.delta" not in turns.turn(speaks=True)
    assert "response.done" in turns.turn(speaks=False)
    sound, events = turns.dialogue.play(24_000)
    assert np.flatnonzero(sound)[-1] < KEPT_AT_YIELD
    assert [event["type"] for event in events] == ["output_audio_buffer.started", "output_audio_buffer.stopped"]


def test_pieces_that_come_late_get_more_time_and_the_response_sounds_on():
    turns = Turns()
    turns.turn(speaks=True)
    sound, events = turns.dialogue.play(9600)  # 400 ms: the next piece should be here
    assert np.flatnonzero(sound)[0] == 960 and [event["type"] for event in events] == ["output_audio_buffer.started"]
    turns.turn(speaks=True)
    sound, events = turns.dialogue.play(9600)
    assert np.flatnonzero(sound)[0] == 960 + 480 and not events


def test_what_the_server_leaves_out_of_its_voice_was_not_heard():
    turns = Turns()
    for _ in range(3):
        turns.turn(speaks=True)  # at once: the oldest is more than 600 ms behind
    heard = turns.dialogue._live.unheard
    assert heard == [(0, 0)]
    turns.dialogue.play(960 + 1000)
    turns.turn(speaks=False)
    assert heard[1:] == [(1, 1000 + KEPT_AT_YIELD), (2, 0)]
    sound, _ = turns.dialogue.play(24_000)
    assert np.count_nonzero(sound[: KEPT_AT_YIELD + 1]) >= KEPT_AT_YIELD - 1
    for _ in range(2):
        turns.turn(speaks=True)
    turns.dialogue.play(960 + 700)
    turns.dialogue._output_audio_buffer_clear({}, 0.0)
    assert heard[3:] == [(4, 700), (5, 0)]


def test_a_micro_turn_that_is_cut_twice_was_heard_up_to_the_second_cut():
    turns = Turns()
    turns.turn(speaks=True)
    turns.dialogue.play(960 + 1000)
    turns.turn(speaks=False)
    turns.dialogue.play(300)
    turns.dialogue._output_audio_buffer_clear({}, 0.0)
    assert turns.dialogue._live.unheard[:2] == [(0, 1000 + KEPT_AT_YIELD), (0, 1300)]
