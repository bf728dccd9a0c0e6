"""Segments of speech from probabilities, and recognisers behind one function."""

import sys
import types

import numpy as np
import pytest
from fdb_folders import sound, speech

from tml_jax.eval import recognition
from tml_jax.eval.voice_activity import PAD, WINDOW, speech_probabilities, speech_segments


def segments(text, length=None):
    """From a letter for each 32 ms: S speech, m in between, - silence."""
    probabilities = np.asarray([{"S": 0.9, "m": 0.4, "-": 0.1}[letter] for letter in text])
    found = speech_segments(probabilities, length or WINDOW * len(text))
    return [(start / WINDOW, end / WINDOW) for start, end in found]


def test_segments_by_the_rule_of_the_detector():
    pad = PAD / WINDOW
    assert segments("----" + "S" * 10 + "----------") == [(4 - pad, 14 + pad)]
    assert segments("----SSSSSSS---------") == []  # 224 ms are too short
    assert segments("----SSSSSSSS--------") == [(4 - pad, 12 + pad)]
    assert segments("----" + "Sm" * 8 + "--------") == [(4 - pad, 20 + pad)]  # in between goes on
    assert segments("----mmmmmmmmmm------") == []  # and does not begin
    assert segments("S" * 10 + "----" + "S" * 10 + "----------") == [(0, 24 + pad)]  # the fourth begins after 96 ms
    assert segments("S" * 20, 20 * WINDOW - 100) == [(0, 20 - 100 / WINDOW)]  # open at the end
    assert segments("S" * 10 + "-----" + "S" * 10 + "-----") == [(0, 10 + pad), (15 - pad, 25 + pad)]
    assert segments("") == []


def test_detector_hears_speech_and_no_noise():
    samples = sound(4.0, [(1.0, 0.0, 2.0)])
    found = speech_probabilities(samples)
    assert found.shape == (125,) and found[:25].max() < 0.3 and np.median(found[35:80]) > 0.8
    np.testing.assert_array_equal(found, speech_probabilities(samples))  # nothing is left from the recording before
    with pytest.raises(ValueError, match=r"expected one channel"):
        speech_probabilities(samples[None])


def test_recognised_words_have_the_times_of_the_recording():
    early = recognition.words_heard(speech(), 16_000)
    late = recognition.words_heard(np.concatenate([np.zeros(16_000, np.float32), speech()]), 16_000)
    assert [word.text for word in late][:3] == ["he", "was", "not"]
    for word, other in zip(early[:3], late[:3]):
        assert other.start - word.start == pytest.approx(1.0, abs=0.1)
    assert all(word.start < word.end <= other.start + 0.011 for word, other in zip(late, late[1:]))


def test_whisper_is_asked_for_words_without_silences(monkeypatch):
    asked = {}

    class Model:
        def __init__(self, name, **settings):
            asked["model"] = name

        def transcribe(self, samples, **settings):
            asked.update(settings, samples=len(samples))
            word = types.SimpleNamespace(word=" Hi.", start=np.float64(0.5), end=np.float64(0.75))
            return iter([types.SimpleNamespace(words=[word]), types.SimpleNamespace(words=None)]), None

    monkeypatch.setitem(sys.modules, "faster_whisper", types.SimpleNamespace(WhisperModel=Model))
    recognition._whisper.cache_clear()
    found = recognition.words_heard(np.zeros(24_000, np.float32), 24_000, "whisper", "FOLDER")
    recognition._whisper.cache_clear()
    assert found == [recognition.HeardWord("Hi.", 0.5, 0.75)]
    assert asked["model"] == "FOLDER" and asked["samples"] == 16_000
    assert asked["word_timestamps"] and asked["vad_filter"]
    with pytest.raises(ValueError, match="recogniser 'x': expected one of pocketsphinx, whisper"):
        recognition.words_heard(np.zeros(10, np.float32), 16_000, "x")
