import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from synthetic import make_config, make_conversation, tokenizer

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.elements import (
    conversation_elements,
    element_sizes,
    gates,
    input_elements,
    patches_of_pair,
    spoken_words,
)
from tml_jax.data.layout import layout
from tml_jax.data.packing import sizes
from tml_jax.data.record import BACKGROUND, MODEL, USER, Conversation, Text, Word
from tml_jax.signal.mel import SILENT_OWN_MEL, dmel, own_mel
from tml_jax.tokens import Control, Stream

CONFIG = make_config()
TEXT = CONFIG.model.text_vocab_size
ORDER = (
    Stream.TIME,
    Stream.TEXT_IN,
    Stream.VIDEO,
    Stream.AUDIO_IN,
    Stream.TEXT_OUT,
    Stream.GATE,
    Stream.AUDIO_OUT,
)
seeds = st.integers(0, 10_000)


def build(conversation, config=CONFIG):
    return conversation_elements(conversation, tokenizer(), config)


def tokens_of(elements, stream, turn=None):
    chosen = elements.stream == stream
    return elements.token[chosen if turn is None else chosen & (elements.micro_turn == turn)].tolist()


def encode(text):
    return tokenizer().encode_words(text)


def lost_seconds(conversation, turn):
    """Seconds of a micro-turn's window that lie in gaps."""
    inside = ((max(start, 0.2 * turn), min(end, 0.2 * turn + 0.2)) for start, end in conversation.gaps)
    return sum(max(0.0, end - start) for start, end in inside)


def tone(seconds, rate):
    return (8000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def click(seconds, at, rate):
    sound = np.zeros(int(seconds * rate), np.int16)
    sound[int(at * rate) : int(at * rate) + 24] = 20000
    return sound


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_every_micro_turn_has_its_streams_in_order_and_one_time_and_one_gate(seed):
    conversation = make_conversation(seed)
    elements = build(conversation)
    turns = conversation.micro_turns
    assert np.array_equal(np.unique(elements.micro_turn), np.arange(turns))
    assert np.all(np.diff(elements.micro_turn) >= 0)
    for turn in range(turns):
        stream = elements.stream[elements.micro_turn == turn].tolist()
        assert [s for s, _ in itertools.groupby(stream)] == [s for s in ORDER if s in stream]
        count = {s: stream.count(s) for s in Stream}
        assert count[Stream.TIME] == count[Stream.GATE] == 1
        missing = lost_seconds(conversation, turn)
        assert count[Stream.AUDIO_IN] == (4 if conversation.user_audio is not None and missing < 0.1999 else 0)
        assert (TEXT + Control.LOST_AUDIO in tokens_of(elements, Stream.TEXT_IN, turn)[:1]) == (missing > 1e-4)
        assert count[Stream.VIDEO] in (0, 1)
        assert count[Stream.TEXT_IN] <= CONFIG.serve.max_text_in
        assert count[Stream.TEXT_OUT] <= CONFIG.model.max_text_out
        speak = tokens_of(elements, Stream.GATE, turn) == [TEXT + Control.SPEAK]
        assert count[Stream.AUDIO_OUT] == (4 if speak else 0)
        assert tokens_of(elements, Stream.TIME, turn) == [TEXT + Control.TIME]
    gate_tokens = np.where(gates(conversation), TEXT + Control.SPEAK, TEXT + Control.LISTEN)
    assert tokens_of(elements, Stream.GATE) == gate_tokens.tolist()


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_slots_count_through_each_side_array(seed):
    elements = build(make_conversation(seed))
    sides = {
        Stream.AUDIO_IN: elements.audio_in,
        Stream.VIDEO: elements.video,
        Stream.AUDIO_OUT: elements.audio_out,
    }
    for stream, side in sides.items():
        assert np.array_equal(elements.slot[elements.stream == stream], np.arange(len(side)))
    assert not elements.slot[~np.isin(elements.stream, list(sides))].any()
    assert not elements.token[np.isin(elements.stream, list(sides))].any()
    dtypes = ("int8", "int32", "int32", "int32", "uint8", "uint8", "float32")
    assert tuple(getattr(elements, f.name).dtype for f in dataclasses.fields(elements)) == dtypes


@settings(max_examples=100, deadline=None)
@given(seeds)
def test_cheap_sizes_equal_those_of_the_elements(seed):
    conversation = make_conversation(seed)
    assert np.array_equal(element_sizes(conversation, tokenizer(), CONFIG), sizes(build(conversation)))


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_input_elements_equal_the_input_part_of_a_conversation(seed):
    conversation = make_conversation(seed)
    elements = build(conversation)
    inputs = (Stream.TIME, Stream.TEXT_IN, Stream.VIDEO, Stream.AUDIO_IN)
    for turn in range(conversation.micro_turns):
        mine = (elements.micro_turn == turn) & np.isin(elements.stream, inputs)
        seen = elements.video[elements.slot[mine & (elements.stream == Stream.VIDEO)]]
        heard = elements.audio_in[elements.slot[mine & (elements.stream == Stream.AUDIO_IN)]]
        typed = tokens_of(elements, Stream.TEXT_IN, turn)
        block = input_elements(typed, seen if len(seen) else None, heard if len(heard) else None, CONFIG.model)
        assert np.array_equal(block.stream, elements.stream[mine])
        assert np.array_equal(block.token, elements.token[mine])
        assert np.array_equal(block.video, seen) and np.array_equal(block.audio_in, heard)
        assert len(block.audio_out) == 0 and not block.micro_turn.any()


def test_a_silent_micro_turn_costs_one_output_element():
    elements = build(Conversation("quiet", 2.0, user_audio=tone(2, 16000)))
    outputs = np.isin(elements.stream, (Stream.TEXT_OUT, Stream.GATE, Stream.AUDIO_OUT))
    assert np.array_equal(np.bincount(elements.micro_turn[outputs]), np.ones(10))
    assert set(elements.token[outputs].tolist()) == {TEXT + Control.LISTEN}
    assert np.array_equal(np.bincount(elements.micro_turn), np.full(10, 6))


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 55))
def test_a_user_click_is_heard_in_the_micro_turn_of_its_time(piece):
    at = (piece + 0.5) * 0.05  # the middle of a 50 ms piece
    elements = build(Conversation("click", 3.0, user_audio=click(3.0, at, 16000)))
    levels = elements.audio_in.astype(int).sum(axis=1)
    # A heard frame looks back 50 ms: the click is in the frame of its piece and in the next one.
    assert sorted(np.flatnonzero(levels > levels[0]).tolist()) == [piece, piece + 1]
    turns = elements.micro_turn[elements.stream == Stream.AUDIO_IN]
    assert turns[piece] == int(at / MICRO_TURN_SECONDS)


@settings(max_examples=30, deadline=None)
@given(st.integers(4, 55), st.booleans())
def test_a_model_click_is_put_out_in_the_micro_turn_before_it_is_heard(piece, words):
    at = (piece + 0.8) * 0.05  # later than the 30 ms that the piece before looks ahead
    said = (Word(MODEL, "red", 0.0, 3.0),) if words else ()
    elements = build(Conversation("click", 3.0, model_audio=click(3.0, at, 24000), words=said))
    loud = np.flatnonzero(elements.audio_out.max(axis=(1, 2)) > SILENT_OWN_MEL)
    turns = elements.micro_turn[elements.stream == Stream.AUDIO_OUT]
    window = int(at / MICRO_TURN_SECONDS)
    assert turns[loud].tolist() == [window - 1]
    first_of_turn = np.flatnonzero(turns == window - 1)[0]
    assert loud[0] - first_of_turn == piece % 4


def whole_windows(samples: int, window: int) -> int:
    return -(-samples // window) * window


@settings(max_examples=30, deadline=None)
@given(seeds)
@example(2562)  # sound that ends after its conversation, within a window
def test_audio_is_the_spectrum_of_the_whole_recording_whatever_the_runs_of_speech(seed):
    conversation = make_conversation(seed)
    elements = build(conversation)
    turns = conversation.micro_turns
    if conversation.model_audio is not None:
        padded = np.zeros(whole_windows(max((turns + 5) * 4800, conversation.model_audio.size), 4800), np.float32)
        padded[: conversation.model_audio.size] = conversation.model_audio / np.float32(32768)
        # What lies more than one window past the end is never put out and must not be looked at, bar 30 ms.
        mel = own_mel(padded)[20 : 20 * (turns + 1)].reshape(turns, 4, 5, 80)
        assert np.array_equal(elements.audio_out, mel[gates(conversation)].reshape(-1, 5, 80))
    if conversation.user_audio is not None:
        padded = np.zeros(whole_windows(max(turns * 3200, conversation.user_audio.size), 3200), np.float32)
        padded[: conversation.user_audio.size] = conversation.user_audio / np.float32(32768)
        for start, end in conversation.gaps:
            padded[round(start * 16000) : round(end * 16000)] = 0
        arrived = np.repeat([lost_seconds(conversation, turn) < 0.1999 for turn in range(turns)], 4)
        assert np.array_equal(elements.audio_in, dmel(padded)[: 4 * turns][arrived])


def test_words_go_out_before_they_are_heard_and_the_first_window_at_the_first_chance():
    words = (Word(MODEL, "the", 0.05, 0.15), Word(MODEL, "red", 0.41, 0.6), Word(USER, "blue", 0.4, 0.9))
    elements = build(Conversation("words", 2.0, model_audio=tone(2, 24000), words=words))
    assert tokens_of(elements, Stream.TEXT_OUT, 0) == encode("the")
    assert tokens_of(elements, Stream.TEXT_OUT, 1) == encode("red")
    assert tokens_of(elements, Stream.TEXT_OUT) == encode("the") + encode("red")


def test_a_time_on_the_edge_belongs_to_the_window_that_begins():
    # 0.6 / 0.2 and 1.4 / 0.2 are not whole in floating point.
    for edge in range(1, 12):
        time = edge * 0.2
        typed = Conversation("edge", 3.0, texts=(Text(USER, "red", time),))
        assert tokens_of(build(typed), Stream.TEXT_IN, edge) == [TEXT + Control.FROM_USER, *encode("red")]
        said = Conversation("edge", 3.0, model_audio=tone(3, 24000), words=(Word(MODEL, "red", time, time + 0.2),))
        assert tokens_of(build(said), Stream.TEXT_OUT, edge - 1) == encode("red")
        assert np.flatnonzero(gates(said)).tolist() == [edge - 1]


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_text_spills_into_the_following_micro_turns_in_order(seed):
    conversation = make_conversation(seed)
    elements, plan = build(conversation), layout(conversation, tokenizer(), CONFIG)
    typed = sorted((t for t in conversation.texts if t.speaker != MODEL), key=lambda t: t.time)
    marks = {USER: TEXT + Control.FROM_USER, BACKGROUND: TEXT + Control.FROM_BACKGROUND}
    expected = [token for text in typed for token in (marks[text.speaker], *encode(text.text))]
    shown = [(t.time, t.text) for t in conversation.texts if t.speaker == MODEL]
    said = [(w.start, w.text) for w in spoken_words(conversation)]
    out = []
    for time, text in sorted(said + shown, key=lambda item: item[0]):
        body = encode(text)
        out += [TEXT + Control.DISPLAY, *body, TEXT + Control.END] if (time, text) in shown else body
    came_in, went_out = tokens_of(elements, Stream.TEXT_IN), tokens_of(elements, Stream.TEXT_OUT)
    came_in = [token for token in came_in if token != TEXT + Control.LOST_AUDIO]
    if len({text.speaker for text in typed}) < 2:  # what is typed overtakes results
        assert came_in == expected[: len(came_in)]
    assert collections.Counter(came_in) <= collections.Counter(expected)
    assert went_out == out[: len(went_out)]
    assert plan.cut == len(expected) + len(out) - len(came_in) - len(went_out)


def test_a_long_text_fills_micro_turns_up_to_the_limit_without_a_hole():
    long = "what do you see now please tell me more about a blue box"
    for text, stream, most, first in (
        (Text(USER, long, 0.5), Stream.TEXT_IN, CONFIG.serve.max_text_in, 2),
        (Text(MODEL, long, 0.5), Stream.TEXT_OUT, CONFIG.model.max_text_out, 1),
    ):
        elements = build(Conversation("long", 10.0, texts=(text,)))
        tokens = tokens_of(elements, stream)
        assert len(tokens) > most
        held = np.bincount(elements.micro_turn[elements.stream == stream], minlength=50)
        full, rest = divmod(len(tokens), most)
        assert held.tolist() == ([0] * first + [most] * full + [rest] + [0] * 50)[:50]
    assert tokens == [TEXT + Control.DISPLAY, *encode(long), TEXT + Control.END]


def test_text_that_does_not_fit_before_the_end_is_counted():
    conversation = Conversation("short", 0.4, texts=(Text(MODEL, "what do you see now please", 0.3),))
    plan = layout(conversation, tokenizer(), CONFIG)
    whole = len(encode("what do you see now please")) + 2
    assert plan.cut == whole - 2 * CONFIG.model.max_text_out > 0


def test_gates_bridge_short_pauses_and_ignore_grazing_words():
    def speaking(*spans):
        words = tuple(Word(MODEL, "red", start, end) for start, end in spans)
        return np.flatnonzero(gates(Conversation("gates", 3.0, model_audio=tone(3, 24000), words=words))).tolist()

    assert speaking((0.6, 0.8)) == [2]
    assert speaking((0.6, 0.82)) == [2]  # 20 ms into the next window is not enough
    assert speaking((0.6, 0.83)) == [2, 3]
    assert speaking((0.6, 0.8), (1.05, 1.2)) == [2, 3, 4]  # a pause of 0.25 s
    assert speaking((0.6, 0.8), (1.1, 1.2)) == [2, 4]  # a pause of 0.3 s ends the utterance
    assert speaking((0.0, 0.19)) == []  # heard in window 0, which nothing puts out


def test_without_words_the_level_of_the_sound_opens_the_gate():
    sound = np.zeros(3 * 24000, np.int16)
    sound[24000 : 24000 + 4800] = tone(0.2, 24000)  # window 5
    sound[48000 : 48000 + 4800] = 90  # window 10, −51 dBFS
    sound[57600 : 57600 + 4800] = 120  # window 12, −48.7 dBFS
    assert np.flatnonzero(gates(Conversation("level", 3.0, model_audio=sound))).tolist() == [4, 11]
    assert not gates(Conversation("none", 3.0, user_audio=tone(3, 16000))).any()


def test_frames_are_paired_by_halves_of_the_window_and_only_new_ones_count():
    times = np.array([0.05, 0.15, 0.65, 0.95])
    frames = np.stack([np.full((40, 40, 3), value, np.uint8) for value in (10, 20, 30, 40)])
    elements = build(Conversation("frames", 1.4, frames=frames, frame_times=times))
    turns = elements.micro_turn[elements.stream == Stream.VIDEO].tolist()
    pairs = elements.video[:, :, 0, 0, 0].tolist()
    assert dict(zip(turns, pairs)) == {0: [10, 20], 3: [30, 30], 4: [30, 40]}
    late = Conversation("late", 1.0, frames=frames[:1], frame_times=np.array([0.35]))
    elements = build(late)
    assert elements.micro_turn[elements.stream == Stream.VIDEO].tolist() == [1]
    assert elements.video[:, :, 0, 0, 0].tolist() == [[10, 10]]  # no frame before the middle: the first new one


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 165), min_size=1, max_size=25))
def test_frame_pairs_follow_the_definition_also_on_the_edges(tens):
    milliseconds = sorted(10 * ten for ten in tens)
    frames = np.arange(len(milliseconds), dtype=np.uint8)[:, None, None, None] * np.ones((40, 40, 3), np.uint8)
    elements = build(Conversation("edges", 1.6, frames=frames, frame_times=np.array(milliseconds) / 1000))
    expected = {}
    for turn in range(8):
        begin = 200 * turn
        new = [n for n, time in enumerate(milliseconds) if begin <= time < begin + 200]
        early = [n for n, time in enumerate(milliseconds) if time < begin + 100]
        if new:
            expected[turn] = [early[-1] if early else new[0], new[-1]]
    turns = elements.micro_turn[elements.stream == Stream.VIDEO].tolist()
    assert dict(zip(turns, elements.video[:, :, 0, 0, 0].tolist())) == expected


def test_patches_are_row_major_and_keep_every_pixel():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 80, 120, 3)).astype(np.uint8)
    patches = patches_of_pair(first, second)
    assert patches.shape == (6, 2, 40, 40, 3)
    for index, (row, column) in enumerate(itertools.product(range(2), range(3))):
        here = np.s_[40 * row : 40 * row + 40, 40 * column : 40 * column + 40]
        assert np.array_equal(patches[index], np.stack([first[here], second[here]]))
    with pytest.raises(ValueError, match="multiples of 40"):
        patches_of_pair(first[:50], second[:50])


def test_records_that_do_not_fit_the_run_are_refused_with_a_remedy():
    silent = Conversation("mute", 1.0, words=(Word(MODEL, "red", 0.2, 0.4),))
    with pytest.raises(ValueError, match="'mute' has model words but no model_audio"):
        build(silent)
    wide = Conversation("wide", 1.0, frames=np.zeros((1, 40, 80, 3), np.uint8), frame_times=np.zeros(1))
    with pytest.raises(ValueError, match="video_grid"):
        build(wide)
    small = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, text_vocab_size=280))
    with pytest.raises(ValueError, match="train a smaller tokenizer"):
        build(Conversation("any", 1.0), small)
    with pytest.raises(ValueError, match="expected"):
        input_elements([], None, np.zeros((3, 80), np.uint8), CONFIG.model)
