"""Rooms, noise and echo: measured on what comes out, not on what was drawn."""

import dataclasses

import numpy as np
import pytest
import soxr

from tml_jax.config import INPUT_RATE, OUTPUT_RATE
from tml_jax.data.record import MODEL, USER
from tml_jax.scenes import scripts
from tml_jax.scenes.acoustics import (
    NOISES,
    USER_LEVEL,
    Acoustics,
    at_microphone,
    draw_acoustics,
    make_noise,
    room_response,
)
from tml_jax.scenes.families import make_scene
from tml_jax.scenes.voices import HELD_OUT_VOICES, TRAIN_VOICES, Synthesizer
from tml_jax.signal.pcm import float_audio

COUNT = 3 * INPUT_RATE
PLAIN = Acoustics(False, 0.0, "white", 40.0)
BABBLE = [np.random.default_rng(seed).standard_normal(9000).astype(np.float32) for seed in range(3)]


def decibels(power):
    return 10 * np.log10(power + 1e-20)


def burst(start, seconds=0.4, rms=0.07):
    """Noise that stands for speech."""
    sound = np.zeros(COUNT, np.float32)
    first, length = int(start * INPUT_RATE), int(seconds * INPUT_RATE)
    sound[first : first + length] = rms * np.random.default_rng(1).standard_normal(length)
    return sound


def silence():
    return np.zeros(COUNT, np.float32)


@pytest.mark.parametrize("rt60", [0.1, 0.3, 0.5])
def test_a_room_decays_by_60_db_in_its_time_and_begins_with_the_direct_sound(rt60):
    slopes = []
    for seed in range(6):
        response = room_response(np.random.default_rng(seed), rt60, 6.0)
        assert response[0] == 1.0 == np.abs(response).max() and not response[1:30].any()
        assert decibels(1.0 / np.sum(response[1:] ** 2)) == pytest.approx(6.0, abs=0.01)
        left = decibels(np.cumsum(response[::-1].astype(float) ** 2)[::-1])  # M. R. Schroeder, 1965
        half = len(left) // 2  # the end of the record bends the curve
        slopes.append((left[half] - left[len(left) // 8]) / ((half - len(left) // 8) / INPUT_RATE))
    assert -60 / np.median(slopes) == pytest.approx(rt60, rel=0.2)


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("below", [15.0, 35.0])
def test_noise_is_as_far_below_speech_as_asked(kind, below):
    place = dataclasses.replace(PLAIN, noise=kind, noise_below_db=below, gain_db=-3.0)
    heard = at_microphone(place, silence(), silence(), silence(), BABBLE, 0.07)
    speech = (0.07 * USER_LEVEL * 10 ** (-3 / 20)) ** 2
    assert decibels(speech) - decibels(np.mean(heard**2)) == pytest.approx(below, abs=0.05)


def test_kinds_of_noise_differ_as_their_names_say():
    spectra = {
        kind: np.abs(np.fft.rfft(make_noise(np.random.default_rng(2), COUNT, kind, BABBLE))) ** 2 for kind in NOISES
    }
    low, high = slice(300, 1500), slice(12_000, 24_000)  # 100 to 500 Hz, 4 to 8 kHz
    slope = {kind: decibels(found[low].mean() / found[high].mean()) for kind, found in spectra.items()}
    assert abs(slope["white"]) < 2 and 8 < slope["pink"] < 20 < slope["wind"] < slope["hum"] and slope["hum"] > 60
    quarters = {}  # of a second, how loud each is
    for kind in ("white", "wind", "beeps"):
        noise = make_noise(np.random.default_rng(4), COUNT, kind)
        quarters[kind] = np.sqrt(np.mean(np.square(noise[: COUNT // 4000 * 4000].reshape(-1, 4000)), axis=1))
    assert np.ptp(quarters["white"]) < 0.1 and np.ptp(quarters["wind"]) > 0.7
    assert quarters["beeps"].min() < 0.05 and quarters["beeps"].max() > 1.2
    peaks = [np.abs(make_noise(np.random.default_rng(3), COUNT, kind, BABBLE)).max() for kind in ("white", "clicks")]
    assert peaks[0] < 6 < 10 < peaks[1]


def test_a_room_moves_no_onset_and_fills_the_silence_after_speech():
    user = burst(1.0)
    place = dataclasses.replace(PLAIN, noise_below_db=90.0)
    rooms = [
        at_microphone(dataclasses.replace(place, rt60=rt60), user, silence(), silence(), (), 0.07) for rt60 in (0, 0.4)
    ]
    for heard in rooms:
        onset = np.flatnonzero(np.abs(heard) > 10 * np.abs(heard[: INPUT_RATE // 2]).max())[0]
        assert abs(onset - INPUT_RATE) <= 16  # 1 ms
    after = slice(int(1.42 * INPUT_RATE), int(1.5 * INPUT_RATE))
    dry, wet = (decibels(np.mean(heard[after] ** 2)) for heard in rooms)
    assert wet > dry + 25


def test_the_models_own_voice_comes_back_as_late_and_as_soft_as_asked():
    own = burst(0.5, 1.0)
    place = dataclasses.replace(PLAIN, noise_below_db=70.0, echo_db=-25.0, echo_delay=0.08)
    heard = at_microphone(place, silence(), silence(), own, (), 0.07)
    products = np.fft.irfft(np.fft.rfft(heard, 2 * COUNT) * np.conj(np.fft.rfft(own, 2 * COUNT)))
    delay = int(np.argmax(products))
    assert delay == round(0.08 * INPUT_RATE)
    assert 20 * np.log10(products[delay] / np.sum(own**2)) == pytest.approx(-25.0, abs=0.3)
    quiet = at_microphone(dataclasses.replace(place, echo_db=None), silence(), silence(), own, (), 0.07)
    assert np.mean(quiet**2) < np.mean(heard**2) / 100


def test_nothing_is_cut_off_at_full_scale():
    heard = at_microphone(dataclasses.replace(PLAIN, gain_db=6.0), burst(1.0, rms=0.6), silence(), silence(), (), 0.6)
    assert np.abs(heard).max() == pytest.approx(0.98, abs=1e-3)


def test_babble_of_no_voices_and_unknown_noise_are_errors():
    for kind in ("babble", "brown"):
        with pytest.raises(ValueError, match=f"noise '{kind}' with 0 voices: expected one of white"):
            make_noise(np.random.default_rng(0), 10, kind)


def test_about_half_of_the_scenes_are_near_clean_and_the_splits_share_no_level():
    drawn = {
        split: [draw_acoustics(np.random.default_rng([seed, 5]), split) for seed in range(400)]
        for split in scripts.SPLITS
    }
    for split in (scripts.TRAIN, scripts.DEVELOPMENT, scripts.HELD_OUT):
        clean = [place for place in drawn[split] if place.near_clean]
        assert 0.42 < len(clean) / 400 < 0.58
        assert all(place.noise_below_db >= 35 and not place.rt60 and place.echo_db is None for place in clean)
        rest = [place for place in drawn[split] if not place.near_clean]
        never_trained = set() if split == scripts.HELD_OUT else {"wind", "beeps"}
        assert {place.noise for place in rest} == set(NOISES) - never_trained
        assert all(15 <= place.noise_below_db <= 51 and (not place.rt60 or 0.1 <= place.rt60 <= 0.5) for place in rest)
        echoes = [place.echo_db for place in rest if place.echo_db is not None]
        assert 0.3 < len(echoes) / len(rest) < 0.5 and -35 <= min(echoes) <= max(echoes) <= -19.5
    beyond = drawn[scripts.EXTRAPOLATION]
    assert not any(place.near_clean for place in beyond) and max(place.noise_below_db for place in beyond) <= 12
    parts = (scripts.TRAIN, scripts.HELD_OUT, scripts.EXTRAPOLATION)
    for field in ("gain_db", "noise_below_db", "rt60", "echo_db", "echo_delay"):
        values = [{getattr(place, field) for place in drawn[split]} - {None, 0.0} for split in parts]
        assert not (values[0] & values[1] or values[0] & values[2] or values[1] & values[2]), field
    for split, places in drawn.items():
        voices = {voice.name for place in places for voice, _ in place.talkers}
        known = TRAIN_VOICES if split in (scripts.TRAIN, scripts.DEVELOPMENT) else HELD_OUT_VOICES
        assert voices == {voice.name for voice in known}


def test_the_microphone_of_a_scene_hears_the_model_as_its_record_says():
    synthesizer, found = Synthesizer(), 0
    for seed in range(48):
        record = make_scene(synthesizer, "x", np.random.default_rng([seed]), scripts.TRAIN, "timed")
        if "echo_db" not in record.meta or "rt60" in record.meta:
            continue
        found += 1
        (word,) = [word for word in record.words if word.speaker == MODEL]
        assert word.start > max(word.end for word in record.words if word.speaker == USER)
        own = soxr.resample(float_audio(record.model_audio), OUTPUT_RATE, INPUT_RATE)
        delay = round(record.meta["echo_delay"] * INPUT_RATE)
        heard = float_audio(record.user_audio)[delay:]
        gain = np.sum(heard * own[: len(heard)]) / np.sum(own**2)
        assert 20 * np.log10(gain) == pytest.approx(record.meta["echo_db"], abs=1.5), seed
    assert found >= 2
