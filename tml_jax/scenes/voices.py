"""Offline speech with word times and many speakers, from the voice inside the hibari-tts package.

The network gives the duration of every phoneme, from which the times of the words follow, and a spectrum that is turned
into sound afterwards. Between the two, f0 is scaled and the spectrum stretched along frequency (a longer or shorter
vocal tract): this makes other speakers out of one.
"""

import collections
import dataclasses

import numpy as np

from tml_jax.signal.runs import true_runs

RATE = 24_000  # Hz
_PHONEME_FRAME = 0.025  # seconds: unit of the network's durations
_SPECTRUM_FRAME = 0.0125  # seconds: hop of its spectra
_DURATIONS = "/Clip_output_0"  # name of the durations inside the network's graph
LEVEL = 0.07  # rms of the unmodified voice on running speech, see `Synthesizer.say`

# What lies between the durations and what is heard, measured on 74 word boundaries at three speeds against forced
# alignment (median; half of the boundaries lie within 12 ms of it) and, after commas, against energy.
_END_OFFSET = -0.037
_START_OFFSET = -0.085
_START_OFFSET_AFTER_PAUSE = -0.040

_HOP = 120  # samples: 5 ms resolution of the energy that bounds speech
_SILENCE_DB = -36.0  # silence is this far below the loudest 5 ms
PAUSES = ",;:.!?…—"  # after a word: a pause
FLITE = "flite"  # another engine, see `scenes/flite.py`


@dataclasses.dataclass(frozen=True)
class Voice:
    """A speaker: the embedded voice with f0 times `f0_scale` and its spectrum stretched by `warp` along frequency.

    Or, with `engine` FLITE, one of another engine, which is as it is.
    """

    name: str
    f0_scale: float = 1.0
    warp: float = 1.0
    engine: str = ""

    def __post_init__(self) -> None:
        if not (0.3 <= self.f0_scale <= 3.0 and 0.6 <= self.warp <= 1.6):
            raise ValueError(f"voice {self.name!r}: f0_scale in 0.3 … 3 and warp in 0.6 … 1.6 expected, got {self}")


# The model's own voice is the unmodified one, so no user can be taken for the model.
MODEL_VOICE = Voice("own", 1.0, 1.0)
HELD_OUT_VOICES = (
    Voice("unheard-low", 0.70, 0.87),
    Voice("unheard-middle", 1.04, 0.91),
    Voice("unheard-high", 1.08, 1.13),
)
_F0_SCALES = (0.52, 0.60, 0.69, 0.79, 0.91, 1.05, 1.20, 1.38)
_WARPS = (0.84, 0.90, 0.96, 1.02, 1.08, 1.14)
_APART = 0.12  # least distance of a voice of training from the model's own and from those held out


def distance(one: Voice, other: Voice) -> float:
    """How far two speakers are from each other: in log f0, and in log vocal tract length, which counts twice."""
    return float(np.hypot(np.log(one.f0_scale / other.f0_scale), 2 * np.log(one.warp / other.warp)))


# Every combination but for those near a voice that training must not hear. A few voices teach the voices themselves:
# with six of them, words were understood far less well in voices never heard.
TRAIN_VOICES = tuple(
    voice
    for voice in (Voice(f"{f0:.2f}-{warp:.2f}", f0, warp) for f0 in _F0_SCALES for warp in _WARPS)
    if min(distance(voice, apart) for apart in (MODEL_VOICE, *HELD_OUT_VOICES)) > _APART
)


def vary(voice: Voice, rng: np.random.Generator) -> Voice:
    """A speaker near `voice`: pitch within 4%, spectrum within 2.5%, for those that lie between."""
    pitch, warp = 1 + 0.04 * rng.uniform(-1, 1), 1 + 0.025 * rng.uniform(-1, 1)
    return voice if voice.engine else Voice(voice.name, voice.f0_scale * pitch, voice.warp * warp)


@dataclasses.dataclass(frozen=True)
class TimedWord:
    """A word with its start and end in seconds from the first sample of its speech."""

    text: str
    start: float
    end: float


@dataclasses.dataclass(frozen=True)
class Speech:
    """A spoken sentence.

    Attributes:
      samples: (n,) float32 at 24 kHz, in [-1, 1], without silence around it.
      words: in order, without punctuation, times relative to `samples`.
    """

    samples: np.ndarray
    words: tuple[TimedWord, ...]

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.samples) / RATE


class Synthesizer:
    """Speaks sentences. Holds the network, so make one for each process and pass it on.

    Args:
      remembered: most recent sentences kept, for those that are said again and again.

    Raises:
      ImportError: the `replica` extra is not installed.
    """

    def __init__(self, remembered: int = 64):
        try:
            import hibari
            import onnx
            import onnxruntime
            from hibari.voices import DEFAULT, voice_path
        except ImportError as error:
            raise ImportError(f"{error}: speech needs the replica extra, pip install -e '.[replica]'") from error
        graph = onnx.load(voice_path(DEFAULT, download_missing=False))
        if not any(_DURATIONS in node.output for node in graph.graph.node):
            raise ImportError(f"this hibari-tts has no graph node {_DURATIONS}: install the version named in setup.cfg")
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(_DURATIONS))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._hibari = hibari.Hibari(threads=1)
        self._synth = hibari.dsp.synth
        self._flite = None
        self._remembered: collections.OrderedDict[tuple, Speech] = collections.OrderedDict()
        self._capacity = remembered

    def say(self, text: str, voice: Voice = MODEL_VOICE, speed: float = 1.0, seed: int = 0) -> Speech:
        """Speaks one sentence.

        Word times hold to about 25 ms inside fluent speech and to about 10 ms where there is silence (see
        `tests/scenes/test_voices.py`).

        Args:
          text: words separated by blanks, punctuation attached to them; numbers written out.
          voice: the speaker.
          speed: 1 is the voice's own pace, 2 twice as fast.
          seed: of the noise in breath and consonants.

        Returns:
          The speech. Its level does not depend on the voice.

        Raises:
          ValueError: the text is empty, too long for one sentence, or a word has no pronunciation of its own.
          ImportError: the voice is of an engine that is not installed.
        """
        if not 0.4 <= speed <= 2.5:
            raise ValueError(f"speed {speed}: expected 0.4 … 2.5")
        key = (text, voice, speed, seed)
        if key in self._remembered:
            self._remembered.move_to_end(key)
            return self._remembered[key]
        make = self._stranger if voice.engine else self._synthesise
        speech = make(text, voice, speed, seed)
        self._remembered[key] = speech
        if len(self._remembered) > self._capacity:
            self._remembered.popitem(last=False)
        return speech

    def _stranger(self, text: str, voice: Voice, speed: float, seed: int) -> Speech:
        if self._flite is None:
            from tml_jax.scenes.flite import Flite

            self._flite = Flite()
        return self._flite.say(text, voice, speed, seed)

    def _synthesise(self, text: str, voice: Voice, speed: float, seed: int) -> Speech:
        spoken = text.split()
        sentences = self._hibari.phonemize(text)
        if len(sentences) != 1 or not spoken:
            raise ValueError(f"{text!r} is {len(sentences)} sentences, expected one")
        phonemes = sentences[0]
        if len(phonemes.split(" ")) != len(spoken):
            raise ValueError(f"{text!r} is pronounced {phonemes!r}: not one group of phonemes for each word")
        ids = self._hibari.ids(phonemes)
        if len(ids) != len(phonemes) + 2:
            raise ValueError(f"{text!r} is pronounced {phonemes!r}, which holds phonemes this voice lacks")
        feeds = {"ids": np.asarray([ids], np.int64), "speed": np.asarray([speed], np.float32)}
        *spectra, durations = self._session.run(None, feeds)
        edges = np.concatenate([[0.0], np.cumsum(durations.reshape(-1))]) * _PHONEME_FRAME
        # The silence before the first phoneme costs as much to make as speech. Some of it stays as a margin.
        skipped = max(0, int((edges[1] - 0.15) / _SPECTRUM_FRAME))
        samples = self._render([item[0][..., skipped:] for item in spectra], voice, seed)
        times = word_times(phonemes, edges - skipped * _SPECTRUM_FRAME)
        return trimmed(samples, spoken, times)

    def _render(self, spectra: list[np.ndarray], voice: Voice, seed: int) -> np.ndarray:
        """Sound (n,) of the network's spectra: three of magnitude and two of phase, each (601, frames), and f0."""
        harmonic, harmonic_phase, noise, free, free_phase, f0 = spectra
        if voice.warp != 1.0:
            # The phases stay: they hold the time structure from frame to frame, which a stretch would tear.
            harmonic, noise, free = (_stretch(spectrum, voice.warp) for spectrum in (harmonic, noise, free))
        rng = np.random.default_rng(seed)
        return self._synth(harmonic, harmonic_phase, noise, free, free_phase, f0 * voice.f0_scale, rng)


def _stretch(spectrum: np.ndarray, warp: float) -> np.ndarray:
    """Moves what lies at frequency f to warp·f. (bins, frames) float32 -> the same shape; edges are repeated."""
    source = np.minimum(np.arange(len(spectrum)) / warp, len(spectrum) - 1)
    low = np.minimum(source.astype(np.int64), len(spectrum) - 2)
    share = (source - low).astype(np.float32)[:, None]
    return spectrum[low] * (1 - share) + spectrum[low + 1] * share


def word_times(phonemes: str, edges: np.ndarray) -> list[tuple[float, float]]:
    """Start and end of each word.

    Args:
      phonemes: one character a phoneme, words separated by blanks.
      edges: (len(phonemes) + 3,) seconds: ends of the durations, with a pad on either side of the phonemes.

    Returns:
      (start, end) seconds of each word, corrected by the measured constant offsets.
    """
    times, position, paused = [], 1, True
    for group in phonemes.split(" "):
        sounds = group.rstrip(PAUSES)
        start = edges[position] + (_START_OFFSET_AFTER_PAUSE if paused else _START_OFFSET)
        end = edges[position + len(sounds)] + _END_OFFSET
        times.append((float(start), float(max(end, start + 0.01))))
        paused = len(sounds) < len(group)
        position += len(group) + 1
    return times


def levels(samples: np.ndarray, hop: int = _HOP) -> np.ndarray:
    """Level of each `hop` samples (n,) in dB re full scale: (n // hop,)."""
    blocks = samples[: len(samples) // hop * hop].reshape(-1, hop)
    return 10.0 * np.log10(np.mean(np.square(blocks, dtype=np.float64), axis=1) + 1e-12)


def trimmed(samples: np.ndarray, spoken: list[str], times: list[tuple[float, float]]) -> Speech:
    """Cuts silence off both ends, evens the level, and settles word times by energy where there is silence.

    Args:
      samples: (n,) float32 at 24 kHz.
      spoken: the words, punctuation attached.
      times: (start, end) seconds of each.
    """
    level = levels(samples)
    sounding = level > level.max() + _SILENCE_DB
    first, last = np.flatnonzero(sounding)[[0, -1]]
    begin, end = first * _HOP, (last + 1) * _HOP
    starts, ends = (list(column) for column in zip(*times))
    pauses = [word[-1] in PAUSES for word in spoken]
    for gap in range(len(times) - 1):
        if pauses[gap]:
            ends[gap], starts[gap + 1] = _settle(sounding, ends[gap], starts[gap + 1])
        elif ends[gap] > starts[gap + 1]:
            ends[gap] = starts[gap + 1] = (ends[gap] + starts[gap + 1]) / 2
    starts[0], ends[-1] = begin / RATE, end / RATE
    offset, length = begin / RATE, (end - begin) / RATE
    words = []
    for text, start, stop in zip((word.strip(PAUSES) for word in spoken), starts, ends):
        start, stop = (min(max(value - offset, 0.0), length) for value in (start, stop))
        words.append(TimedWord(text, float(start), float(max(start, stop))))
    samples = samples[begin:end]
    loud = samples[np.repeat(sounding[first : last + 1], _HOP)]
    gain = min(LEVEL / np.sqrt(np.mean(np.square(loud))), 0.9 / np.abs(samples).max())
    samples = samples * np.float32(gain)
    fade = np.linspace(0.0, 1.0, _HOP, dtype=np.float32)
    samples[:_HOP] *= fade
    samples[-_HOP:] *= fade[::-1]
    return Speech(samples, tuple(words))


def _settle(sounding: np.ndarray, end: float, start: float) -> tuple[float, float]:
    """Moves the end of a word and the start of the next to the edges of the longest silence around them, if any."""
    low, high = (int(round(value * RATE / _HOP)) for value in (end - 0.08, start + 0.08))
    low, high = max(low, 0), min(high, len(sounding))
    runs = true_runs(~sounding[low:high])
    if len(runs) == 0:
        return end, start
    longest = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    if longest[1] - longest[0] < 4:  # 20 ms: shorter dips are plosives
        return end, start
    return tuple(float((low + edge) * _HOP / RATE) for edge in longest)
