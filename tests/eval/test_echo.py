"""The echo of a model that is streamed: of its own sound, where and as loud as the scene has it."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import resample_poly

from tml_jax.config import INPUT_RATE
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.record import Conversation
from tml_jax.eval.abilities.ablations import mute
from tml_jax.eval.echo import Echo
from tml_jax.eval.streaming import user_side
from tml_jax.scenes import scripts
from tml_jax.scenes.acoustics import ECHO_TO_COME
from tml_jax.scenes.families import make_scene
from tml_jax.scenes.voices import Synthesizer
from tml_jax.serve.words import MicroTurn
from tml_jax.signal.pcm import float_audio

COUNT = 12


def conversation(**meta) -> Conversation:
    noise = np.random.default_rng(1).integers(-300, 300, COUNT * INPUT_SAMPLES).astype(np.int16)
    return Conversation("a", COUNT * 0.2, noise, gaps=((0.85, 0.9),), meta=meta)


def said(index: int, samples: np.ndarray) -> MicroTurn:
    return MicroTurn(index, 0.2 * index, "SPEAK", "", "", np.zeros((20, 80), np.float32), samples, 0.0)


def streamed(record: Conversation, sound: np.ndarray) -> np.ndarray:
    """What the model hears while it puts out `sound`, one row a micro-turn."""
    echo, heard = Echo(record), []
    for index, arrived in enumerate(echo.heard(user_side(record, COUNT))):
        heard.append(arrived.audio)
        echo.put_out(said(index, sound[index]))
    return np.concatenate(heard)


def test_the_echo_is_of_what_the_model_says_late_and_softer():
    rng = np.random.default_rng(0)
    sound = np.cumsum(rng.uniform(-0.1, 0.1, COUNT * 4800)).astype(np.float32)
    sound = (sound - np.convolve(sound, np.ones(480) / 480, "same")).astype(np.float32).reshape(COUNT, 4800)
    level, delay = -22.5, 0.07
    dry, heard = (streamed(conversation(**meta), sound) for meta in ({}, {ECHO_TO_COME: [level, delay]}))
    np.testing.assert_array_equal(dry, np.concatenate([w.audio for w in user_side(conversation(), COUNT)]))
    # The sound of a micro-turn is heard in the window after it.
    own = np.concatenate([np.zeros(INPUT_SAMPLES), resample_poly(sound.ravel(), 2, 3)])
    shift = round(delay * INPUT_RATE)
    expected = 10 ** (level / 20) * np.concatenate([np.zeros(shift), own])[: COUNT * INPUT_SAMPLES]
    expected[4 * INPUT_SAMPLES : 5 * INPUT_SAMPLES] = 0.0  # that window was lost in part
    echo = heard - dry
    assert np.abs(echo).max() > 0.01
    assert np.sqrt(np.mean((echo - expected) ** 2)) < 0.03 * np.sqrt(np.mean(expected**2))
    muted = mute(conversation(**{ECHO_TO_COME: [level, delay]}))
    assert not streamed(muted, sound).any()


@pytest.mark.parametrize("split", [scripts.HELD_OUT, scripts.EXTRAPOLATION])
def test_nothing_of_the_recorded_reply_is_in_what_tests_a_model(split):
    """The same scene with another sound of the model has the same microphone."""
    synthesizer, found = Synthesizer(), 0
    for seed in range(12):
        record = make_scene(synthesizer, "x", np.random.default_rng([seed]), split, "answer")
        assert "echo_db" not in record.meta
        if ECHO_TO_COME not in record.meta or record.user_audio is None:
            continue
        found += 1
        own = resample_poly(float_audio(record.model_audio), 2, 3)
        user = float_audio(record.user_audio)
        delay = round(record.meta[ECHO_TO_COME][1] * INPUT_RATE)
        late = own[: len(user) - delay]
        gain = np.sum(user[delay:] * late) / np.sum(late**2)
        assert abs(gain) < 0.2 * 10 ** (record.meta[ECHO_TO_COME][0] / 20), seed
    assert found >= 2


def test_an_echo_needs_no_microphone():
    record = dataclasses.replace(conversation(**{ECHO_TO_COME: [-20.0, 0.05]}), user_audio=None, gaps=())
    assert all(arrived.audio is None for arrived in Echo(record).heard(user_side(record, 3)))
