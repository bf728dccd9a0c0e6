"""Streaming of held-out conversations, and what is said about the model's sound. The whole is in tests/train."""

import dataclasses

import numpy as np
import pytest
from synthetic import make_conversation

from tml_jax.data.record import MODEL, USER, Conversation, Word
from tml_jax.eval import baselines, replica
from tml_jax.serve.words import MicroTurn


def seen_by(conversation):
    """Without frames, whose size is not that of the small model."""
    return dataclasses.replace(conversation, frames=None, frame_times=None)


def test_stream_gives_each_conversation_what_it_would_get_alone(small_talker, monkeypatch):
    monkeypatch.setattr(replica, "TOGETHER", 2)
    conversations = [seen_by(make_conversation(seed, duration)) for seed, duration in ((1, 1.5), (2, 0.6), (3, 1.0))]
    together = replica.stream(small_talker, conversations)
    assert [[turn.index for turn in turns] for turns in together] == [list(range(8)), list(range(3)), list(range(5))]
    for number, conversation in enumerate(conversations):
        windows = replica.user_side(conversation, conversation.micro_turns)
        alone = [turns[0] for turns in small_talker.talk_together([windows], [small_talker.seed + number])]
        assert [(turn.gate, turn.text) for turn in alone] == [(turn.gate, turn.text) for turn in together[number]]
        np.testing.assert_allclose([turn.mel for turn in alone], [turn.mel for turn in together[number]], atol=1e-3)


def test_user_side_holds_nothing_that_the_model_said():
    conversation = make_conversation(0, 2.0)
    arrived = list(replica.user_side(conversation, 12))
    assert len(arrived) == 12
    texts = [text for window in arrived for text in window.texts]
    assert texts == [text for text in conversation.texts if text.speaker != MODEL]


def test_mute_silences_the_user_and_nothing_else():
    noise = np.arange(1, 3201).astype(np.int16)
    muted = replica.mute(Conversation("a", 0.2, noise, noise))
    assert not muted.user_audio.any() and muted.user_audio.shape == noise.shape
    assert muted.model_audio is noise
    assert replica.mute(Conversation("b", 0.2)).user_audio is None


def spoken(words=("yes",), audio=True):
    noise = np.random.default_rng(0).integers(-3000, 3000, 24_000).astype(np.int16)
    said = tuple(Word(MODEL, word, 0.2 * i, 0.2 * i + 0.2) for i, word in enumerate(words))
    return Conversation("a", 1.0, None, noise if audio else None, words=(Word(USER, "tell", 0.0, 0.2), *said))


def test_heard_words_compares_the_sound_with_the_text_and_the_record():
    conversations = [spoken(("yes", "indeed")), spoken(())]
    sentence = replica.heard_words(conversations, [baselines.as_recorded(item) for item in conversations])
    assert "over 1 replies" in sentence and sentence.count("%") == 2


@pytest.mark.parametrize("conversation", [spoken(()), spoken(audio=False)])
def test_heard_words_without_a_recorded_voice_says_so(conversation):
    turns = [baselines.as_recorded(conversation)]
    assert "No held-out conversation has timed words" in replica.heard_words([conversation], turns)


def test_heard_words_of_a_silent_model_says_so():
    silent: list[MicroTurn] = baselines.as_recorded(spoken(()))
    assert "The model said nothing" in replica.heard_words([spoken()], [silent])
