"""What lies between the people and the microphone: a room, noise, gain, and the model's own voice from a loudspeaker.

About half of the training scenes stay near clean, so that a small model can learn the words first. Everything is drawn
by seed, and noted.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tml_jax.config import INPUT_RATE
from tml_jax.scenes import scripts
from tml_jax.scenes.grids import GRIDS
from tml_jax.scenes.patterns import patterns
from tml_jax.scenes.phrases import draw_phrase
from tml_jax.scenes.voices import HELD_OUT_VOICES, TRAIN_VOICES, Voice, vary

_TRAIN_NOISES = ("white", "pink", "hum", "babble", "clicks")
NOISES = (*_TRAIN_NOISES, "wind", "beeps")  # the last two are never in training
USER_LEVEL = 0.5  # of the synthesizer's level, so that +6 dB does not clip
_CLEAN_NOISES = ("white", "pink")
_CLEAN_SHARE, _ROOM_SHARE, _ECHO_SHARE = 0.5, 0.6, 0.4  # of all scenes; of those that are not near clean
_TALKERS = 4  # of babble
_NEAR, _FAR = (4.0, 12.0), (0.0, 4.0)  # dB of direct over reflected sound, by distance
_REFLECTIONS = 6  # that stand out of the reverberation
_PEAK = 0.98  # of full scale
ECHO_TO_COME = "echo_to_come"  # in a record's meta: [dB, seconds] of an echo that is not in the record


@dataclasses.dataclass(frozen=True)
class Acoustics:
    """One microphone in one place.

    Attributes:
      near_clean: little noise and nothing else.
      gain_db: of all speech in the room.
      noise: one of `NOISES`.
      noise_below_db: how far its rms lies below that of the user's direct speech.
      rt60: seconds in which sound in the room falls by 60 dB; 0 for no room.
      echo_db: level of the model's own voice in the microphone relative to its own; None where it is not heard.
      echo_delay: seconds after which it is heard there.
      talkers: (voice, text) of each of those who make up babble.
      seed: of reflections and noise.
    """

    near_clean: bool
    gain_db: float
    noise: str
    noise_below_db: float
    rt60: float = 0.0
    echo_db: float | None = None
    echo_delay: float = 0.0
    talkers: tuple[tuple[Voice, str], ...] = ()
    seed: int = 0

    def facts(self) -> dict[str, object]:
        """What is noted in a record's meta."""
        facts = {
            "near_clean": self.near_clean,
            "gain_db": self.gain_db,
            "noise": self.noise,
            "noise_below_speech_db": self.noise_below_db,
        }
        if self.rt60:
            facts["rt60"] = self.rt60
        if self.echo_db is not None:
            facts.update(echo_db=self.echo_db, echo_delay=self.echo_delay)
        return facts


def without_echo(acoustics: Acoustics) -> tuple[Acoustics, dict]:
    """A place in which the model's own voice is not heard, and the fact that it is to come while the model speaks.

    What tests a model must not hold the sound of the reply that is due; `eval/echo.py` adds that of its own.
    """
    if acoustics.echo_db is None:
        return acoustics, {}
    facts = {ECHO_TO_COME: [acoustics.echo_db, acoustics.echo_delay]}
    return dataclasses.replace(acoustics, echo_db=None, echo_delay=0.0), facts


def draw_acoustics(rng: np.random.Generator, split: str) -> Acoustics:
    """Draws the acoustics of a scene from the grids of its split; extrapolation has no scenes that are near clean."""

    def draw(values: Sequence) -> object:
        return values[int(rng.integers(len(values)))]

    grids, part = GRIDS[split], scripts.part_of(split)
    gain, seed = draw(grids.gain), int(rng.integers(2**31))
    if split != scripts.EXTRAPOLATION and rng.random() < _CLEAN_SHARE:
        return Acoustics(True, gain, draw(_CLEAN_NOISES), draw(grids.faint_noise), seed=seed)
    noise = draw(_TRAIN_NOISES if part == scripts.TRAIN else NOISES)
    talkers = ()
    if noise == "babble":
        wordings = scripts.wordings_of(split)
        texts = patterns(wordings, "television") + patterns(wordings, "filler")
        talkers = tuple(
            (vary(draw(TRAIN_VOICES if part == scripts.TRAIN else HELD_OUT_VOICES), rng), draw_phrase(draw(texts), rng))
            for _ in range(_TALKERS)
        )
    rt60 = draw(grids.rt60) if rng.random() < _ROOM_SHARE else 0.0
    echo = (draw(grids.echo), draw(grids.echo_delay)) if rng.random() < _ECHO_SHARE else (None, 0.0)
    return Acoustics(False, gain, noise, draw(grids.noise), rt60, *echo, talkers, seed)


def at_microphone(
    acoustics: Acoustics,
    user: np.ndarray,
    others: np.ndarray,
    own: np.ndarray,
    babble: Sequence[np.ndarray],
    speech_rms: float,
) -> np.ndarray:
    """What the microphone picks up.

    The direct sound comes without delay, so that the times of words stay true.

    Args:
      acoustics: the place.
      user: (n,) float32 at 16 kHz, the user's speech at the synthesizer's level.
      others: (n,) float32, that of everybody else who has something to say.
      own: (n,) float32, the model's voice as it leaves.
      babble: sound of each of `acoustics.talkers`, (any,) float32.
      speech_rms: of the user's speech, to which noise is set.

    Returns:
      (n,) float32 within full scale.
    """
    rng, count = np.random.default_rng(acoustics.seed), len(user)
    level = USER_LEVEL * 10 ** (acoustics.gain_db / 20)
    sound = np.float32(level) * (
        _in_room(rng, user, acoustics.rt60, _NEAR) + _in_room(rng, others, acoustics.rt60, _FAR)
    )
    if acoustics.echo_db is not None:
        delay = int(round(acoustics.echo_delay * INPUT_RATE))
        late = np.concatenate([np.zeros(delay, np.float32), own])[:count]
        sound += np.float32(10 ** (acoustics.echo_db / 20)) * _in_room(rng, late, acoustics.rt60, _FAR)
    below = speech_rms * level * 10 ** (-acoustics.noise_below_db / 20)
    sound += np.float32(below) * make_noise(rng, count, acoustics.noise, babble)
    loudest = float(np.abs(sound).max(initial=0.0))
    return sound * np.float32(_PEAK / loudest) if loudest > _PEAK else sound


def room_response(rng: np.random.Generator, rt60: float, direct_db: float) -> np.ndarray:
    """How a room answers a click: the direct sound, some reflections, and noise that decays.

    The decaying noise is J.-D. Polack's statistical model of reverberation ("La transmission de l'énergie sonore dans
    les salles", 1988).

    Args:
      rng: every draw.
      rt60: seconds in which the level falls by 60 dB.
      direct_db: energy of the direct sound over that of all that follows.

    Returns:
      (rt60 · 16,000,) float32; the first sample is the direct sound, 1.
    """
    count = max(2, int(round(rt60 * INPUT_RATE)))
    response = rng.standard_normal(count)
    first = rng.uniform(0.002, 0.006)  # seconds until the first reflection
    response[: int(first * INPUT_RATE)] = 0.0
    arrivals = np.minimum((rng.uniform(first, 0.04, _REFLECTIONS) * INPUT_RATE).astype(int), count - 1)
    response[arrivals] += rng.choice([-1.0, 1.0], _REFLECTIONS) * rng.uniform(3.0, 8.0, _REFLECTIONS)
    response *= 10 ** (-3 * np.arange(count) / INPUT_RATE / rt60)
    response *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(np.square(response)) + 1e-12)
    response[0] = 1.0
    return response.astype(np.float32)


def make_noise(rng: np.random.Generator, count: int, kind: str, babble: Sequence[np.ndarray] = ()) -> np.ndarray:
    """(count,) float32 of noise of rms 1.

    Args:
      rng: every draw.
      count: samples at 16 kHz.
      kind: `white`, `pink` (1/f), `hum` (mains with overtones), `clicks`, `babble`, `wind` (1/f² that swells and
        falls), or `beeps` (tones of a tenth of a second, about two a second).
      babble: for `babble`, sound of each voice, (any,) float32, which is repeated.

    Raises:
      ValueError: another kind, or babble of no voices.
    """
    if kind == "white":
        noise = rng.standard_normal(count, dtype=np.float32)
    elif kind == "pink":
        spectrum = np.fft.rfft(rng.standard_normal(count, dtype=np.float32))
        noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1.0)), count)
    elif kind == "hum":
        mains, phases = rng.choice([50.0, 60.0]), rng.uniform(0, 2 * np.pi, 8)
        turns = 2 * np.pi * mains * np.arange(count) / INPUT_RATE
        noise = sum(np.sin((number + 1) * turns + phase) / (number + 1) for number, phase in enumerate(phases))
    elif kind == "clicks":
        impulses = np.zeros(count)
        impulses[rng.integers(count, size=1 + rng.poisson(4 * count / INPUT_RATE))] = 1.0
        decay = np.exp(-np.arange(160) / 32) * rng.standard_normal(160)  # 10 ms
        noise = _convolve(impulses, decay)
    elif kind == "wind":
        spectrum = np.fft.rfft(rng.standard_normal(count, dtype=np.float32))
        lowest = max(1.0, 40.0 * count / INPUT_RATE)  # 40 Hz, or nothing but the lowest would be left
        noise = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), lowest), count)
        swell = 2 * np.pi * rng.uniform(0.2, 0.5) * np.arange(count) / INPUT_RATE + rng.uniform(0, 2 * np.pi)
        noise *= 1.0 + 0.8 * np.sin(swell)
    elif kind == "beeps":
        noise, length = np.zeros(count), INPUT_RATE // 10
        turns = 2 * np.pi * np.arange(length) / INPUT_RATE
        for start in rng.integers(max(1, count - length), size=1 + rng.poisson(2 * count / INPUT_RATE)):
            tone = np.sin(turns * rng.uniform(500.0, 2500.0)) * np.hanning(length)
            noise[start : start + length] += tone[: count - start]
    elif kind == "babble" and babble:
        noise = sum(np.roll(np.resize(voice, count), int(rng.integers(count))) for voice in babble)
    else:
        raise ValueError(
            f"noise {kind!r} with {len(babble)} voices: expected one of {', '.join(NOISES)}, babble of some"
        )
    return (noise / np.sqrt(np.mean(np.square(noise)))).astype(np.float32)


def _in_room(rng: np.random.Generator, sound: np.ndarray, rt60: float, direct: tuple[float, float]) -> np.ndarray:
    """Sound (n,) as it arrives from one place of a room, at a distance that gives `direct` (low, high) dB."""
    if not rt60 or not sound.any():
        return sound
    return _convolve(sound, room_response(rng, rt60, rng.uniform(*direct))).astype(np.float32)


def _convolve(sound: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Causal convolution, cut to the length of `sound`: (n,), (m,) -> (n,)."""
    size = 1 << (len(sound) + len(response) - 1).bit_length()
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[: len(sound)]
