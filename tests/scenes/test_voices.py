"""The embedded voice: word times, speakers, speed and errors."""

import numpy as np
import pytest

from tml_jax.scenes.voices import (
    HELD_OUT_VOICES,
    MODEL_VOICE,
    RATE,
    TRAIN_VOICES,
    Synthesizer,
    Voice,
    levels,
)


def best_stretch(samples, reference):
    """The factor that lays the mean log spectrum of `reference`, on a logarithmic axis, over that of `samples`."""
    axis = np.exp(np.arange(np.log(800), np.log(9000), 0.01))
    curves = []
    for sound in (samples, reference):
        # Windows this short blur the harmonics, which stay where they are, and leave the formants.
        frames = sound[: len(sound) // 96 * 96].reshape(-1, 96) * np.hanning(96)
        mean = np.log(np.mean(np.abs(np.fft.rfft(frames, 1024)) ** 2, axis=0))
        curves.append(np.interp(axis, np.fft.rfftfreq(1024, 1 / RATE), mean))
    shifts = range(-30, 31)
    inner = np.arange(30, len(axis) - 30)
    fits = [np.corrcoef(curves[0][inner], curves[1][inner - shift])[0, 1] for shift in shifts]
    return float(np.exp(0.01 * shifts[int(np.argmax(fits))]))


@pytest.mark.parametrize("voice", [MODEL_VOICE, TRAIN_VOICES[0], HELD_OUT_VOICES[0]], ids=lambda voice: voice.name)
def test_word_times_agree_with_energy_to_10_ms_where_words_are_set_apart(synthesizer, voice):
    """Energy is taken independently here: 2 ms blocks, another threshold than the synthesizer's."""
    speech = synthesizer.say("garden, window, doctor, river, music, garden", voice, 0.8)
    level = levels(speech.samples, hop=48)
    loud = level > level.max() - 40.0
    misses = []
    for before, after in zip(speech.words, speech.words[1:]):
        if after.start - before.end < 0.04:
            continue  # the voice ran these two together: there is no silence to measure against
        middle = int((before.end + after.start) / 2 * RATE / 48)
        falls = np.flatnonzero(loud[:middle])[-1] + 1
        rises = middle + np.flatnonzero(loud[middle:])[0]
        misses += [before.end - falls * 0.002, after.start - rises * 0.002]
    assert len(misses) >= 4
    # A word that dies away slowly ends where the threshold says, hence the wider bound for the worst.
    assert np.median(np.abs(misses)) <= 0.010
    assert np.max(np.abs(misses)) <= 0.050


def test_words_inside_fluent_speech_fall_on_the_onsets_of_their_plosives_within_40_ms(synthesizer):
    """The closure before the burst of a plosive is quiet and belongs to the word."""
    offsets = []
    for text in ("my small table", "we saw a tiger here", "the same pencil", "you knew a doctor now"):
        speech = synthesizer.say(text)
        word = next(word for word in speech.words if word.text in ("table", "tiger", "pencil", "doctor"))
        level = levels(speech.samples)
        first, last = (int((word.start + shift) * RATE / 120) for shift in (-0.08, 0.14))
        closure = first + int(np.argmin(level[first:last]))
        offsets.append(closure * 0.005 - word.start)
    assert np.all(np.abs(np.asarray(offsets) - 0.03) <= 0.04), offsets


def test_speech_is_trimmed_and_words_cover_it_in_order(synthesizer):
    speech = synthesizer.say("please say the word, tiger", TRAIN_VOICES[1])
    assert [word.text for word in speech.words] == ["please", "say", "the", "word", "tiger"]
    assert speech.words[0].start == 0.0
    assert speech.words[-1].end == pytest.approx(speech.duration, abs=1e-6)
    edges = [edge for word in speech.words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    level = levels(speech.samples)
    assert min(level[1:6].max(), level[-6:-1].max()) > level.max() - 40


def test_voices_differ_in_vocal_tract_and_keep_their_level(synthesizer):
    text = "could you tell me the word banana"
    own = synthesizer.say(text).samples
    for warp in (0.85, 1.15):
        stretched = synthesizer.say(text, Voice("stretched", 1.0, warp)).samples
        assert best_stretch(stretched, own) == pytest.approx(warp, abs=0.06)
    for voice in (MODEL_VOICE, *TRAIN_VOICES, *HELD_OUT_VOICES):
        samples = synthesizer.say(text, voice).samples
        assert 0.03 < np.sqrt(np.mean(samples**2)) < 0.1, voice
        assert np.abs(samples).max() < 1.0, voice


def test_held_out_speakers_are_apart_from_training_speakers_and_none_is_the_model():
    assert len(TRAIN_VOICES) >= 6 and len(HELD_OUT_VOICES) >= 3
    for heard in HELD_OUT_VOICES:
        for voice in (*TRAIN_VOICES, MODEL_VOICE):
            distance = np.hypot(np.log(heard.f0_scale / voice.f0_scale), 2 * np.log(heard.warp / voice.warp))
            assert distance > 0.12, (heard, voice)
    assert all((voice.f0_scale, voice.warp) != (1.0, 1.0) for voice in (*TRAIN_VOICES, *HELD_OUT_VOICES))


def test_same_seed_gives_the_same_sound_and_another_seed_another(synthesizer):
    fresh = Synthesizer(remembered=1)
    first = fresh.say("say tiger", TRAIN_VOICES[2], 1.1, 5).samples
    fresh.say("something else")
    np.testing.assert_array_equal(first, synthesizer.say("say tiger", TRAIN_VOICES[2], 1.1, 5).samples)
    again = synthesizer.say("say tiger", TRAIN_VOICES[2], 1.1, 6).samples
    assert len(again) != len(first) or not np.array_equal(first, again)


@pytest.mark.parametrize("text", ["", "One. Two", "number 100"])
def test_text_without_one_pronunciation_a_word_is_refused(synthesizer, text):
    with pytest.raises(ValueError, match="expected one|not one group"):
        synthesizer.say(text)


@pytest.mark.slow
def test_a_recogniser_hears_the_keyword_in_most_voices():
    pocketsphinx = pytest.importorskip("pocketsphinx")
    import soxr

    from tml_jax.scenes.scripts import KEYWORDS
    from tml_jax.signal.pcm import pcm16

    synthesizer = Synthesizer()
    grammar = "#JSGF V1.0; grammar g; public <s> = please say the word (" + " | ".join(KEYWORDS) + ");"
    decoder = pocketsphinx.Decoder(samprate=16000, lm=None, loglevel="ERROR")
    decoder.add_jsgf_string("keywords", grammar)
    decoder.activate_search("keywords")
    heard = {}
    for voice in (*TRAIN_VOICES, *HELD_OUT_VOICES):
        hits = 0
        for keyword in KEYWORDS:
            sound = soxr.resample(synthesizer.say(f"please say the word {keyword}", voice).samples, RATE, 16000)
            silence = np.zeros(4000, np.float32)
            decoder.start_utt()
            decoder.process_raw(pcm16(np.concatenate([silence, sound, silence])).tobytes(), full_utt=True)
            decoder.end_utt()
            hits += decoder.hyp() is not None and decoder.hyp().hypstr.split()[-1:] == [keyword]
        heard[voice.name] = hits / len(KEYWORDS)
    print(heard)
    assert np.mean(list(heard.values())) > 0.9 and min(heard.values()) > 0.7, heard
