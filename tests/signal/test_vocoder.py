import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soxr

from tml_jax.eval.sound import edge_energies
from tml_jax.signal import mel, vocoder

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "mel_golden.npz"


@pytest.fixture(scope="module")
def speech():
    with np.load(GOLDEN) as file:
        samples = soxr.resample(file["speech"].astype(np.float32) / 32768, 16_000, 24_000).astype(np.float32)
    return samples[: samples.size // 240 * 240]


@pytest.fixture(scope="module")
def log_mel(speech):
    return mel.own_mel(speech)


@pytest.fixture(scope="module")
def samples(log_mel):
    return np.asarray(vocoder.vocode(vocoder.init_vocoder(), log_mel)[1])


def decibels(error, signal):
    return 10 * np.log10(np.sum(np.square(error)) / np.sum(np.square(signal)) + 1e-20)


def test_resynthesised_speech_has_the_mel_spectrum_of_the_original(speech, log_mel, samples):
    assert samples.shape == speech.shape and samples.dtype == np.float32
    distance = np.abs(mel.own_mel(samples) - log_mel)[log_mel > -4].mean()
    assert distance < 0.08  # 1.6 dB
    assert abs(decibels(samples, speech)) < 1  # as loud as the original


def test_a_tone_keeps_its_frequency_and_amplitude():
    tone = (0.3 * np.sin(2 * np.pi * 330 / 24_000 * np.arange(24_000))).astype(np.float32)
    _, made = vocoder.vocode(vocoder.init_vocoder(), mel.own_mel(tone))
    steady = np.asarray(made)[4800:19_200]
    spectrum = np.abs(np.fft.rfft(steady * np.hanning(steady.size)))
    assert abs(spectrum.argmax() * 24_000 / steady.size - 330) < 5
    np.testing.assert_allclose(np.sqrt(2 * np.mean(np.square(steady))), 0.3, rtol=0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_chunking_gives_the_same_samples(log_mel, samples, seed):
    sizes = np.random.default_rng(seed).choice([1, 3, 5, 20], size=100)
    state, chunks, start = vocoder.init_vocoder(), [], 0
    for size in sizes:
        state, chunk = vocoder.vocode(state, log_mel[start : start + size])
        chunks.append(np.asarray(chunk))
        start += size
        if start >= len(log_mel):
            break
    assert decibels(np.concatenate(chunks) - samples, samples) < -60


def test_hops_join_without_clicks(speech, samples):
    edge, elsewhere = edge_energies(samples, every=240)
    original, _ = edge_energies(speech, every=240)
    assert 10 * np.log10(edge.mean() / elsewhere.mean()) < 2
    assert edge.max() < 2 * original.max()


def test_samples_do_not_depend_on_later_frames(log_mel, samples):
    changed = log_mel.copy()
    changed[101:] = mel.OWN_MEL_MIN
    _, other = vocoder.vocode(vocoder.init_vocoder(), changed)
    np.testing.assert_allclose(np.asarray(other)[: 101 * 240], samples[: 101 * 240], atol=1e-6)


def test_silent_frames_give_silence_and_the_sound_before_fades_without_a_click(log_mel):
    silence = np.full((20, 80), mel.SILENT_OWN_MEL, np.float32)
    loud = int(log_mel.mean(axis=1).argmax())
    cut = np.concatenate([silence, log_mel[: loud + 1], silence])
    _, made = vocoder.vocode(vocoder.init_vocoder(), cut)
    made = np.asarray(made).reshape(-1, 240)
    assert np.all(made[:20] == 0)
    end = 20 + loud + 1
    assert np.abs(made[loud + 10 : end]).max() > 0.05
    assert np.all(made[end + 3 :] == 0)
    steps = np.abs(np.diff(made[20:].ravel()))
    fade = (loud + 1) * 240 - 1
    assert steps[fade:].max() < steps[:fade].max()  # no step larger than those of the speech itself
    assert np.abs(made[end + 2, -10:]).max() < 1e-3


def test_a_batch_gives_each_stream_what_it_gets_alone(log_mel):
    streams = np.stack([log_mel[:90], log_mel[100:190], log_mel[200:290]]).reshape(3, 1, 90, 80)
    state, made = vocoder.vocode(vocoder.init_vocoder((3, 1)), streams)
    assert made.shape == (3, 1, 21_600)
    jax.tree.map(lambda leaf: np.testing.assert_equal(leaf.shape[:2], (3, 1)), state)
    for stream, batched in zip(streams, np.asarray(made)):
        _, alone = vocoder.vocode(vocoder.init_vocoder(), stream[0])
        assert decibels(batched[0] - alone, alone) < -60


def test_magnitudes_have_the_mel_spectrum_asked_for(log_mel):
    made = np.asarray(vocoder.magnitudes(log_mel))
    assert made.shape == (len(log_mel), 481) and made.min() >= 0
    loud = log_mel > -3
    back = np.log10(np.maximum(made @ mel.mel_filters(mel.OWN), 1e-5))
    assert np.abs(back - log_mel)[loud].mean() < 0.02


def test_no_input_makes_the_output_undefined():
    frames = np.random.default_rng(0).uniform(-9, 4, (40, 80)).astype(np.float32)
    assert np.all(np.isfinite(vocoder.vocode(vocoder.init_vocoder(), frames)[1]))


def test_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"\(20, 79\)"):
        vocoder.vocode(vocoder.init_vocoder(), np.zeros((20, 79), np.float32))
    with pytest.raises(ValueError, match="batch"):
        vocoder.vocode(vocoder.init_vocoder((2,)), np.zeros((20, 80), np.float32))


@pytest.mark.parametrize("together", [1, 2, 6])
def test_streams_that_are_silent_are_left_out_and_nobody_hears_it(log_mel, together):
    """Six streams over nine micro-turns, in which they speak, are silent and pause: the same bits as all at once."""
    rng = np.random.default_rng(3)
    state, part = vocoder.init_vocoder((6,)), vocoder.init_vocoder((6,))
    some = jax.jit(vocoder.vocode_sounding, static_argnums=3)
    for turn in range(9):
        frames = np.stack([log_mel[20 * (turn + row) :][:20] for row in range(6)])
        frames[rng.random(6) < 0.5] = mel.OWN_MEL_MIN
        wanted = rng.random(6) < 0.8
        stepped, samples = vocoder.vocode(state, frames)
        state = jax.tree.map(lambda new, old, wanted=wanted: jnp.where(wanted[:, None, None], new, old), stepped, state)
        part, heard = some(part, frames, wanted, together)
        np.testing.assert_array_equal(heard, np.where(wanted[:, None], samples, 0))
        jax.tree.map(np.testing.assert_array_equal, part, state)
    assert np.abs(heard).max() > 0
