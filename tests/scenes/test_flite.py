"""Voices of another engine: what they say, and the scenes in which they say it. Skipped where flite is missing."""

import ctypes.util

import numpy as np
import pytest
from played import play

from tml_jax.scenes import flite, scripts, sources
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.flite import OTHER_VOICES
from tml_jax.scenes.patterns import exchanges
from tml_jax.scenes.voices import LEVEL, RATE, Synthesizer, levels, vary

needs_flite = pytest.mark.skipif(ctypes.util.find_library("flite") is None, reason="flite is not installed")
WORDS = ["i'd", "be", "glad", "of", "the", "word", "banana"]


@needs_flite
@pytest.mark.parametrize("voice", OTHER_VOICES, ids=lambda voice: voice.name)
def test_a_stranger_says_the_words_at_the_times_told(synthesizer, voice):
    speech = synthesizer.say("i'd be glad of the word, banana", voice)
    assert [word.text for word in speech.words] == WORDS and 1.2 < speech.duration < 4.0
    times = [time for word in speech.words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] == 0.0 and times[-1] == pytest.approx(speech.duration)
    level = levels(speech.samples)
    loud = level > level.max() - 36
    assert np.sqrt(np.mean(np.square(speech.samples[np.repeat(loud, RATE // 200)[: len(speech.samples)]]))) < 2 * LEVEL
    before, last = speech.words[-2:]
    silent = level[int(200 * before.end) + 2 : int(200 * last.start) - 2]
    assert last.start - before.end > 0.05 and silent.max() < level.max() - 25, "a comma is a pause"
    shorter = synthesizer.say("i'd be glad of the word, banana", voice, 1.25)
    assert shorter.duration == pytest.approx(speech.duration / 1.25, rel=0.08)
    assert vary(voice, np.random.default_rng(0)) == voice


@needs_flite
def test_strangers_differ_and_always_sound_alike(synthesizer):
    said = [synthesizer.say("say tiger", voice).samples for voice in OTHER_VOICES]
    assert len({samples.tobytes() for samples in said}) == len(OTHER_VOICES) == 4
    for voice, samples in zip(OTHER_VOICES, said):
        np.testing.assert_array_equal(Synthesizer().say("say tiger", voice).samples, samples)


@needs_flite
def test_in_scenes_of_other_voices_nobody_else_speaks_and_all_else_is_held_out(synthesizer):
    played = play(synthesizer, FAMILIES, (scripts.OTHER_VOICES,), 8, 3)
    names, heard = {voice.name for voice in OTHER_VOICES}, set()
    held_out = {" / ".join(text for _, text in lines) for lines in exchanges(scripts.HELD_OUT)}
    for records in played.values():
        for record in records:
            assert {record.meta["voice"], record.meta.get("other_voice", record.meta["voice"])} <= names
            heard |= {record.meta["voice"], record.meta.get("other_voice", record.meta["voice"])}
            assert record.family != "side_talk" or record.meta["talk"] in held_out
    assert heard == names
    (first,) = sources.generate("other_voices", 1, 0, 1, "timed")
    assert first.meta["split"] == scripts.OTHER_VOICES and first.id == "other_voices-timed-0-000000"


def test_without_flite_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(flite, "_LIBRARIES", ("libflite-of-nobody.so.1",))
    with pytest.raises(ImportError, match="need flite's library: apt install flite"):
        Synthesizer().say("say tiger", OTHER_VOICES[0])
