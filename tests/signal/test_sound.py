import builtins
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soxr

from tml_jax.eval import recognition, sound

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "mel_golden.npz"
TEXT = "He was not an ill-disposed young man."


@pytest.fixture(scope="module")
def speech():
    with np.load(GOLDEN) as file:
        return soxr.resample(file["speech"].astype(np.float32) / 32768, 16_000, 24_000).astype(np.float32)


def test_report_of_real_speech(speech):
    heard = []

    def recogniser(samples, rate):
        assert rate == 24_000 and samples.shape == speech.shape
        heard.append(samples)
        return "he was not an ill disposed young man" if len(heard) == 1 else "he was not an ill disposed man"

    lines = []
    report = sound.measure_sound([(speech, TEXT)], recogniser=recogniser, progress=lines.append)
    np.testing.assert_array_equal(heard[0], speech)  # first the original, then what the vocoder made of it
    assert not np.array_equal(heard[1], speech)
    assert (report.word_error_original.value, report.word_error.value) == (0, 1 / 8)
    assert report.clips == 1 and abs(report.seconds - speech.size / 24_000) < 1e-6
    assert 0 < report.mel_distance < 0.08 and report.mel_distance_db == 20 * report.mel_distance
    assert report.streaming_error < -60
    assert report.edge_click < 4
    assert report.speed > 0 and len(lines) == 1
    assert "12.5% (12.5–12.5)" in report.table() and f"{report.mel_distance:.4f}" in report.table()


def test_a_step_at_the_edges_shows_as_a_click(speech):
    clicking = speech.copy()
    for edge in range(4800, clicking.size, 4800):
        clicking[edge:] += 0.05
    clean, dirty = (np.mean(sound.edge_energies(samples)[0]) for samples in (speech, clicking))
    assert dirty > 10 * clean


def test_two_second_differences_straddle_an_edge():
    samples = np.random.default_rng(0).normal(size=48_000)
    edge, elsewhere = sound.edge_energies(samples)
    assert (edge.size, elsewhere.size) == (2 * 9, 48_000 - 2 - 18)
    step = np.zeros(48_000)
    step[4800:] = 1
    edge, elsewhere = sound.edge_energies(step)  # only the 20 ms around the step count: the rest is silent
    assert edge.size == 2 and edge.min() > 100 and elsewhere.max() == 0


def test_without_recogniser_there_is_no_word_error(speech):
    report = sound.measure_sound([(speech[:9600], TEXT)], recogniser=None)
    assert report.word_error is None and report.word_error_original is None
    assert "not measured" in report.table()


def test_words_are_compared_without_case_and_punctuation():
    assert sound.plain_words("Well, it's  TEN-fifteen!") == "well it's ten fifteen"
    rate = sound.word_error_rate(["One, two three.", "Four"], ["one two", "four"])
    # A resample of the first alone has one error in three words, one of the second none.
    assert (rate.value, rate.low, rate.high, rate.count) == (1 / 4, 0, 1 / 3, 4)
    with pytest.raises(ValueError, match="reference 1"):
        sound.word_error_rate(["one", "?"], ["one", ""])


def test_recognition_does_not_depend_on_clips_before(speech):
    pytest.importorskip("pocketsphinx")
    first = sound.recognise(speech, 24_000)
    assert sound.word_error_rate([TEXT], [first]).value < 0.5
    assert sound.recognise(0.2 * speech[::-1].copy(), 24_000) != first
    assert sound.recognise(speech, 24_000) == first
    assert sound.recognise(np.zeros(0, np.float32), 24_000) == ""


def test_import_needs_no_recogniser_and_its_absence_is_explained(monkeypatch, speech):
    code = "import sys, tml_jax.eval.sound; assert 'pocketsphinx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=pathlib.Path(__file__).parents[2])
    real_import = builtins.__import__

    def no_extra(name, *arguments, **keywords):
        if name == "pocketsphinx":
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", no_extra)
    recognition._pocketsphinx.cache_clear()
    with pytest.raises(ImportError, match="needs pocketsphinx"):
        sound.recognise(speech, 24_000)


@pytest.mark.parametrize(
    ("clips", "message"),
    [([], "no clips"), ([(np.zeros(4800), "hello")], "silent"), ([(np.ones((2, 4800)), "hello")], r"\(2, 4800\)")],
)
def test_clips_that_cannot_be_measured_are_named(clips, message):
    with pytest.raises(ValueError, match=message):
        sound.measure_sound(clips)
