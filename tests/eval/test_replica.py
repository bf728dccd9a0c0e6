"""Streaming of held-out conversations, and what is said about the model's sound. The whole is in tests/train."""

import dataclasses

import numpy as np
import pytest
from small import small_config
from synthetic import make_conversation, tokenizer

from tml_jax.data.record import BACKGROUND, MODEL, USER, Conversation, Text, Word
from tml_jax.eval import baselines, replica, streaming
from tml_jax.eval.estimates import Estimate
from tml_jax.eval.sound import word_error_excess, word_error_rate
from tml_jax.serve.words import MicroTurn, Span

CONFIG = small_config()


def seen_by(conversation):
    """Without frames, whose size is not that of the small model."""
    return dataclasses.replace(conversation, frames=None, frame_times=None)


def test_stream_gives_each_conversation_what_it_would_get_alone(small_talker, monkeypatch):
    monkeypatch.setattr(streaming, "TOGETHER", 2)
    conversations = [seen_by(make_conversation(seed, duration)) for seed, duration in ((1, 1.5), (2, 0.6), (3, 1.0))]
    together = streaming.stream(small_talker, conversations)
    assert [[turn.index for turn in turns] for turns in together] == [list(range(8)), list(range(3)), list(range(5))]
    for number, conversation in enumerate(conversations):
        windows = streaming.user_side(conversation, conversation.micro_turns)
        alone = [turns[0] for turns in small_talker.talk_together([windows], [small_talker.seed + number])]
        assert [(turn.gate, turn.text) for turn in alone] == [(turn.gate, turn.text) for turn in together[number]]
        np.testing.assert_allclose([turn.mel for turn in alone], [turn.mel for turn in together[number]], atol=1e-3)


def test_a_model_that_may_hand_over_tasks_has_a_desk_of_its_own_in_every_conversation(monkeypatch):
    """A talker that writes what it read: each reads the results of its own tasks, and no result of the record."""

    class Reader:
        seed, tokenizer = 0, tokenizer()
        config = dataclasses.replace(CONFIG, serve=dataclasses.replace(CONFIG.serve, delegate=True))

        def talk_together(self, sessions, seeds):
            silence = baselines.as_recorded(Conversation("", 0.2))[0]
            for index, arrived in enumerate(zip(*sessions, strict=True)):
                assert not any(arrived[seeds.index(seed)].texts for seed in seeds)
                asked = [(Span(f"{seed} + 1"),) if index == 1 else () for seed in seeds]
                yield [dataclasses.replace(silence, index=index, spans=spans) for spans in asked]

    monkeypatch.setattr(streaming, "TOGETHER", 2)
    results = (Text(BACKGROUND, "#1. here", 0.3),)
    conversations = [Conversation(name, 3.0 + number, texts=results) for number, name in enumerate("abc")]
    streamed = streaming.stream(Reader(), conversations)
    assert [len(turns) for turns in streamed] == [15, 20, 25]
    for number, turns in enumerate(streamed):
        assert {turn.index: turn.given for turn in turns if turn.given} == {6: (f"#1. {number + 1}",)}
        assert [event.what for turn in turns for event in turn.tasks] == ["asked", "done"]


def test_user_side_holds_nothing_that_the_model_said():
    conversation = make_conversation(0, 2.0)
    arrived = list(streaming.user_side(conversation, 12))
    assert len(arrived) == 12
    texts = [text for window in arrived for text in window.texts]
    assert texts == [text for text in conversation.texts if text.speaker != MODEL]


def spoken(words=("yes",), audio=True):
    noise = np.random.default_rng(0).integers(-3000, 3000, 24_000).astype(np.int16)
    said = tuple(Word(MODEL, word, 0.2 * i, 0.2 * i + 0.2) for i, word in enumerate(words))
    return Conversation("a", 1.0, None, noise if audio else None, words=(Word(USER, "tell", 0.0, 0.2), *said))


def test_heard_words_compares_the_sound_with_the_text_and_the_record(monkeypatch):
    conversations = [spoken(("yes", "indeed")), spoken(("no", "never")), spoken(())]
    # Of each reply first the model's sound, then that of the record.
    heard = iter(["yes indeed", "yes indeed", "no ever more", "no never"])
    monkeypatch.setattr(replica, "recognise", lambda samples, rate: next(heard))
    sentence, rates = replica.heard_words(conversations, [baselines.as_recorded(item) for item in conversations])
    assert "over 2 replies: 50.0% (0.0–100.0) word error" in sentence and "0.0% (0.0–0.0) for the recorded" in sentence
    excess = rates.pop("excess")
    assert rates == {"model": Estimate(0.5, 0.0, 1.0, 4), "as recorded": Estimate(0.0, 0.0, 0.0, 4)}
    assert excess == Estimate(0.5, 0.0, 1.0, 2) and "has 50.0% (0.0–100.0) more of its words wrong" in sentence


def test_replies_are_compared_one_by_one_so_that_hard_ones_widen_nothing():
    words = ["one two", "three four"] * 20
    hard = ["one", "three four"] * 20  # every other one is half wrong, on both sides
    found = word_error_excess(words, hard, words, hard)
    assert found == Estimate(0.0, 0.0, 0.0, 40) and word_error_rate(words, hard).high > 0.27


@pytest.mark.parametrize("conversation", [spoken(()), spoken(audio=False)])
def test_heard_words_without_a_recorded_voice_says_so(conversation):
    sentence, rates = replica.heard_words([conversation], [baselines.as_recorded(conversation)])
    assert "No held-out conversation has timed words" in sentence and not rates


def test_heard_words_of_a_silent_model_says_so():
    silent: list[MicroTurn] = baselines.as_recorded(spoken(()))
    sentence, rates = replica.heard_words([spoken()], [silent])
    assert "The model wrote no words beside its sound" in sentence and not rates
