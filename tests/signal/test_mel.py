import pathlib

import numpy as np
import pytest

from tml_jax.signal import mel

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "mel_golden.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def speech(golden):
    return golden["speech"].astype(np.float32) / 32768


def test_levels_equal_the_reference_on_real_speech(golden, speech):
    log_mel = mel.log_mel(speech)
    np.testing.assert_allclose(log_mel, golden["log_mel"], atol=1e-3)
    levels = mel.dmel(speech)
    assert levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, golden["levels"])
    assert len(np.unique(levels)) > 8  # the clip exercises the scale


@pytest.mark.parametrize("chunk", [800, 3200])
def test_chunks_with_history_give_the_bits_of_the_whole(speech, chunk):
    whole = speech[: speech.size // 3200 * 3200]
    history, frames = None, []
    for start in range(0, whole.size, chunk):
        frames.append(mel.log_mel(whole[start : start + chunk], history))
        history = whole[start + chunk - 800 : start + chunk]
    np.testing.assert_array_equal(np.concatenate(frames), mel.log_mel(whole))


def test_heard_frames_do_not_depend_on_later_samples(speech):
    changed = speech.copy()
    changed[8000:] = np.random.default_rng(0).normal(size=changed.size - 8000)
    before, after = mel.log_mel(speech), mel.log_mel(changed)
    np.testing.assert_array_equal(before[:10], after[:10])
    assert not np.allclose(before[10], after[10])


def test_own_frame_covers_its_hop_and_the_three_after(speech):
    samples = speech[: 240 * 150]
    base = mel.own_mel(samples)
    for sample in (240 * 60, 240 * 61 - 1):  # first and last sample of hop 60: seen by frames 57 … 60
        changed = samples.copy()
        changed[sample] += 0.5
        touched = np.flatnonzero(np.any(mel.own_mel(changed) != base, axis=1))
        # The window is 0 at its first sample, so that frame 60 misses sample 0 of its hop.
        assert set(touched) == ({57, 58, 59} if sample == 240 * 60 else {57, 58, 59, 60})


def test_short_input_is_padded_right_with_silence(speech):
    padded = np.concatenate([speech[:1000], np.zeros(600, np.float32)])
    np.testing.assert_array_equal(mel.log_mel(speech[:1000]), mel.log_mel(padded))
    assert mel.log_mel(speech[:0]).shape == mel.own_mel(speech[:0]).shape == (0, 80)


def test_level_is_the_nearest_centre_and_the_lower_on_a_tie():
    centres = np.linspace(-7, 2, 16).astype(np.float32)
    np.testing.assert_array_equal(mel.dmel_levels(centres), np.arange(16))
    np.testing.assert_array_equal(mel.dmel_levels(np.array([-100, 100, -7.0, -0.1, 0.1])), [0, 15, 0, 11, 12])
    tied = 0
    for low in range(15):
        middle = np.float32((np.float64(centres[low]) + centres[low + 1]) / 2)
        for value in (np.nextafter(middle, np.float32(-9)), middle, np.nextafter(middle, np.float32(9))):
            if abs(value - centres[low]) == abs(value - centres[low + 1]):
                tied += 1
                assert mel.dmel_levels(value) == low
    assert tied > 0


@pytest.mark.parametrize("spectrum", [mel.HEARD, mel.OWN])
def test_filters_are_slaney_triangles_of_area_one(spectrum):
    filters = mel.mel_filters(spectrum).astype(np.float64)
    width = spectrum.rate / spectrum.window
    centres = filters.argmax(axis=0) * width
    linear, logarithmic = centres[centres < 950], centres[centres > 1200]
    np.testing.assert_allclose(np.diff(linear), np.diff(linear).mean(), atol=width)
    ratios = logarithmic[1:] / logarithmic[:-1]
    np.testing.assert_allclose(ratios.mean(), ratios[-5:].mean(), rtol=2e-3)
    np.testing.assert_allclose(filters[:, 40:].sum(axis=0) * width, 1, rtol=0.02)  # wide enough for the sum to be exact
    assert np.all((filters > 0).sum(axis=0) >= 2)  # no empty filter


def test_silence_lies_at_the_floor_and_loud_sound_within_range():
    assert np.all(mel.own_mel(np.zeros(2400, np.float32)) == mel.SILENT_OWN_MEL)
    tone = np.sin(2 * np.pi * 440 / 24_000 * np.arange(24_000)).astype(np.float32)
    loudest = mel.own_mel(tone).max()
    assert 0.5 < loudest <= mel.OWN_MEL_MAX


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mel.log_mel(np.zeros((2, 800), np.float32)), "one channel"),
        (lambda: mel.log_mel(np.zeros(800, np.int16)), "float32"),
        (lambda: mel.log_mel(np.zeros(800, np.float32), np.zeros(799, np.float32)), "799"),
        (lambda: mel.own_mel(np.zeros(241, np.float32)), "multiple of 240"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
