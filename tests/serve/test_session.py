"""Sessions: live input becomes the elements that training saw, and what comes out has the promised form."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small import small_config
from synthetic import VOCABULARY, make_config, make_conversation, tokenizer

from tml_jax.data.elements import conversation_elements
from tml_jax.data.layout import INPUT_SAMPLES, arrived_samples, control_token, fit_samples
from tml_jax.data.record import BACKGROUND, MODEL, USER, Conversation, Text
from tml_jax.serve.session import NotFiniteError, Talker
from tml_jax.serve.windows import Arrived, Ear, arrivals, block_sizes, make_block, take_in
from tml_jax.serve.words import Mouth
from tml_jax.tokens import Control, Stream

CONFIG = make_config()
INPUTS = (Stream.TIME, Stream.TEXT_IN, Stream.VIDEO, Stream.AUDIO_IN)


def taken_in(conversation: Conversation, config) -> list:
    """What a session takes in of the user's side of a conversation, micro-turn by micro-turn."""
    audio = conversation.user_audio
    audio = None if audio is None else fit_samples(audio, conversation.micro_turns * INPUT_SAMPLES)
    frames = [] if conversation.frames is None else list(zip(conversation.frame_times.tolist(), conversation.frames))
    texts = [text for text in conversation.texts if text.speaker != MODEL]
    ear, turns = Ear(), []
    sound = arrived_samples(conversation, conversation.micro_turns)
    for arrived in arrivals(audio, frames, texts, conversation.micro_turns, sound):
        ear, elements = take_in(ear, arrived, tokenizer(), config)
        turns.append(elements)
    return turns


def check_same_as_training(conversation: Conversation, config) -> None:
    whole = conversation_elements(conversation, tokenizer(), config)
    turns = taken_in(conversation, config)
    given_ = np.isin(whole.stream, INPUTS)
    turn_of = np.repeat(np.arange(len(turns)), [len(turn.stream) for turn in turns])
    np.testing.assert_array_equal(turn_of, whole.micro_turn[given_])
    for name in ("stream", "token"):
        np.testing.assert_array_equal(
            np.concatenate([getattr(turn, name) for turn in turns]), getattr(whole, name)[given_]
        )
    for name in ("audio_in", "video"):
        np.testing.assert_array_equal(np.concatenate([getattr(turn, name) for turn in turns]), getattr(whole, name))
    for turn in turns:
        for stream in (Stream.AUDIO_IN, Stream.VIDEO):
            np.testing.assert_array_equal(turn.slot[turn.stream == stream], np.arange(np.sum(turn.stream == stream)))


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 10_000))
@example(1)
def test_a_session_takes_in_what_training_made_of_the_same_conversation(seed):
    check_same_as_training(make_conversation(seed), CONFIG)


def test_the_edges_of_windows_are_those_of_training():
    """Frames and text exactly at multiples of 100 ms, where a rounding error would move them by a window."""
    rng = np.random.default_rng(0)
    times = np.arange(0, 60) / 10
    kept = rng.random(60) < 0.6
    texts = [Text(USER, str(rng.choice(VOCABULARY)), float(time)) for time in times[rng.random(60) < 0.3]]
    frames = rng.integers(0, 256, (int(kept.sum()), 40, 40, 3)).astype(np.uint8)
    conversation = Conversation("edges", 6.0, None, None, frames, times[kept], (), tuple(texts))
    check_same_as_training(conversation, CONFIG)


def test_long_text_spills_into_the_next_micro_turns():
    texts = (Text(USER, " ".join(VOCABULARY * 2), 0.1), Text(BACKGROUND, "blue box", 0.3))
    conversation = Conversation("long", 4.0, texts=texts)
    check_same_as_training(conversation, CONFIG)
    turns = taken_in(conversation, CONFIG)
    most = CONFIG.serve.max_text_in
    assert [len(turn.stream) - 1 for turn in turns[:3]] == [most] * 3 and len(turns[-1].stream) == 1


@pytest.mark.parametrize("grid", [(1, 1), (2, 3)])
def test_frames_of_any_grid_are_taken_in_pairs(grid):
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, video_grid=grid))
    frames = np.random.default_rng(1).integers(0, 256, (4, 40 * grid[0], 40 * grid[1], 3)).astype(np.uint8)
    times = np.asarray([0.05, 0.15, 0.5, 0.55])
    check_same_as_training(Conversation("seen", 1.0, None, None, frames, times), config)
    turns = taken_in(Conversation("seen", 1.0, None, None, frames, times), config)
    assert [len(turn.video) for turn in turns] == [grid[0] * grid[1], 0, grid[0] * grid[1], 0, 0]
    top_left = frames[:, :40, :40]
    np.testing.assert_array_equal(turns[0].video[0], top_left[[0, 1]])
    np.testing.assert_array_equal(turns[2].video[0], top_left[[1, 3]])  # the first is the last seen before 0.5 s


def test_wrong_shapes_are_refused():
    silence = np.zeros(3200, np.float32)
    with pytest.raises(ValueError, match=r"\(3199,\).*\(3200,\)"):
        take_in(Ear(), Arrived(silence[1:]), tokenizer(), CONFIG)
    with pytest.raises(ValueError, match=r"\(40, 80, 3\).*\(40, 40, 3\)"):
        take_in(Ear(), Arrived(None, [(0.0, np.zeros((40, 80, 3), np.uint8))]), tokenizer(), CONFIG)


def test_blocks_have_few_shapes_and_hold_every_input():
    conversations = [make_conversation(seed, 3.0) for seed in range(12)]
    sessions = [taken_in(conversation, CONFIG) for conversation in conversations]
    shapes = set()
    for inputs in zip(*sessions):
        for group in (inputs[:1], inputs[1:2], inputs[4:6], inputs):
            block = make_block(group, CONFIG)
            shapes.add(block.elements.stream.shape[1])
            for row, elements in enumerate(group):
                count = block.valid[row]
                assert count == len(elements.stream)
                np.testing.assert_array_equal(block.elements.stream[row, :count], elements.stream)
                np.testing.assert_array_equal(block.elements.token[row, :count], elements.token)
                for stream, side in ((Stream.AUDIO_IN, "audio_in"), (Stream.VIDEO, "video")):
                    slots = block.elements.slot[row, :count][elements.stream == stream]
                    np.testing.assert_array_equal(getattr(block.elements, side)[row][slots], getattr(elements, side))
                assert not block.elements.stream[row, count:].any()
    assert shapes == set(block_sizes(CONFIG))


def noise(seed: int, seconds: float) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(16_000 * seconds))).astype(np.float32)


def test_every_micro_turn_has_its_time_gate_text_and_sound(small_talker):
    turns = list(small_talker.talk(5 * noise(0, 3.1), texts=[Text(USER, "red", 0.3)]))
    assert [turn.index for turn in turns] == list(range(16))  # 3.1 s fill sixteen windows, the last with silence
    assert [turn.start for turn in turns[:8]] == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]
    assert {turn.gate for turn in turns} == {"SPEAK", "LISTEN"}
    for turn in turns:
        assert turn.mel.shape == (20, 80) and turn.mel.dtype == np.float32
        assert turn.samples.shape == (4800,) and turn.samples.dtype == np.float32
        assert np.isfinite(turn.samples).all() and turn.compute_seconds > 0
        assert np.all(turn.mel == -5) == (turn.gate == "LISTEN")
    assert any(turn.text for turn in turns) and any(turn.display for turn in turns)
    loud = [np.abs(turn.samples).max() > 0 for turn in turns]
    assert not any(loud[: [turn.gate for turn in turns].index("SPEAK")]) and any(loud)


def test_after_warming_up_no_micro_turn_compiles(small_talker):
    small_talker.warm_up()
    compiled = small_talker.program.compiled
    texts = [Text(USER, "red green blue red", 0.3), Text(USER, "red", 0.9)]
    list(small_talker.talk(noise(4, 1.6), frames=[(0.5, np.zeros((40, 40, 3), np.uint8))], texts=texts))
    assert small_talker.program.compiled == compiled


def test_without_audio_the_number_of_micro_turns_must_be_given(small_talker):
    assert len(list(small_talker.talk(None, micro_turns=2))) == 2
    with pytest.raises(ValueError, match="micro_turns"):
        next(small_talker.talk(None))


def test_input_is_taken_only_when_its_time_comes(small_talker):
    """A live source can be streamed: no window is asked for before the one before it is answered."""
    asked = []

    def live():
        for index, window in enumerate(arrivals(noise(2, 0.8), [], [], 4)):
            asked.append(index)
            yield window

    for index, _ in enumerate(small_talker.talk_together([live()], [0])):
        assert asked == list(range(index + 1))


def test_sessions_together_say_what_each_says_alone(small_talker):
    """Words and gates are the same; sound to rounding, as XLA orders sums by the number of sessions."""
    inputs = [
        lambda: arrivals(noise(3, 1.6), [], [], 8),
        lambda: arrivals(None, [(0.3, np.full((40, 40, 3), 90, np.uint8))], [Text(USER, "what do you see", 0.5)], 8),
        lambda: arrivals(noise(4, 1.6), [], [Text(BACKGROUND, "blue", 1.1)], 8),
    ]
    together = list(small_talker.talk_together([window() for window in inputs], [5, 6, 7]))
    assert {turn.gate for turns in together for turn in turns} == {"SPEAK", "LISTEN"}
    for row, (window, seed) in enumerate(zip(inputs, (5, 6, 7))):
        alone = [turns[0] for turns in small_talker.talk_together([window()], [seed])]
        for one, other in zip([turns[row] for turns in together], alone, strict=True):
            assert (one.gate, one.text, one.display) == (other.gate, other.text, other.display)
            np.testing.assert_allclose(one.mel, other.mel, atol=1e-4)


def test_weights_that_are_no_numbers_end_the_talk_instead_of_hanging(small_talker, small_variables):
    scale = small_variables["params"]["backbone"]["final_norm"]["scale"]
    backbone = small_variables["params"]["backbone"] | {"final_norm": {"scale": scale.at[3].set(np.nan)}}
    broken = small_variables | {"params": small_variables["params"] | {"backbone": backbone}}
    talker = Talker.of(small_talker.config, small_talker.tokenizer, broken)
    with pytest.raises(NotFiniteError, match="micro-turn 0: .* not finite; .*take another checkpoint"):
        list(talker.talk(noise(0, 0.4)))


def test_sessions_of_different_length_are_refused(small_talker):
    windows = [arrivals(None, [], [], 2), arrivals(None, [], [], 3)]
    with pytest.raises(ValueError):
        list(small_talker.talk_together(windows, [0, 0]))


def mouth_over(turns: list[list[int]]) -> list[tuple[str, str]]:
    mouth = Mouth(tokenizer(), CONFIG)
    return [mouth.words(tokens) for tokens in turns]


def test_spans_to_show_are_not_spoken_even_over_several_micro_turns():
    encode = tokenizer().encode_words
    show, end = (control_token(control, CONFIG.model) for control in (Control.DISPLAY, Control.END))
    turns = [[*encode("red"), show, *encode("blue")], encode("box"), [*encode("one"), end, *encode("now")], [end]]
    assert mouth_over(turns) == [(" red", " blue"), ("", " box"), (" now", " one"), ("", "")]


def test_tokens_that_are_no_text_are_left_out():
    beyond = tokenizer().size
    assert beyond < CONFIG.model.text_vocab_size
    delegate = control_token(Control.DELEGATE, CONFIG.model)
    assert mouth_over([[beyond, *tokenizer().encode_words("red"), delegate]]) == [(" red", "")]


@pytest.mark.parametrize("cut", itertools.chain(range(1, 9)))
def test_a_character_cut_by_the_end_of_a_micro_turn_comes_whole(cut):
    tokens = tokenizer().encode("né日😀")
    spoken = mouth_over([tokens[:cut], tokens[cut:]])
    assert "".join(text for text, _ in spoken) == "né日😀"
    assert not any("\ufffd" in text for text, _ in spoken)


def test_a_talker_of_parts_keeps_them(small_variables):
    config = small_config()
    talker = Talker.of(config, tokenizer(), small_variables, seed=9)
    assert (talker.config, talker.tokenizer, talker.seed) == (config, tokenizer(), 9)
