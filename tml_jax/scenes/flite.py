"""Voices of another engine, four people's that no training hears: what a model makes of strangers.

flite (BSD-style licence) is no dependency: where its library is installed, as `apt install flite` does, it is called.
It tells the times of the words it says exactly.
"""

import ctypes

import numpy as np
import soxr

from tml_jax.scenes.voices import FLITE, RATE, Speech, Voice, trimmed

OTHER_VOICES = tuple(Voice(f"flite-{name}", engine=FLITE) for name in ("awb", "kal16", "rms", "slt"))
_LIBRARIES = "libflite.so.1", "libflite_usenglish.so.1", "libflite_cmulex.so.1"
_RATE = 16_000  # Hz, of all four
_SPELLED = {"mm": "um", "hm": "hum"}  # what has no vowel it says letter by letter
_STARTS = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"  # from a word to its first sound, and the one before it
_ENDS = b"R:SylStructure.daughtern.daughtern.R:Segment.end"


class _Voice(ctypes.Structure):
    """The head of a `cst_voice`."""

    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


class _Wave(ctypes.Structure):
    """A `cst_wave`."""

    _fields_ = [
        ("type", ctypes.c_char_p),
        ("sample_rate", ctypes.c_int),
        ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_short)),
    ]


class Flite:
    """The library with the voices that were asked for.

    Raises:
      ImportError: it is not installed.
    """

    def __init__(self) -> None:
        try:
            self._flite, *_ = (ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL) for name in _LIBRARIES)
        except OSError as error:
            raise ImportError(f"{error}: the voices of other people need flite's library: apt install flite") from error
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("flite_synth_text", pointer, (text, pointer)),
            ("utt_relation", pointer, (pointer, text)),
            ("relation_head", pointer, (pointer,)),
            ("item_next", pointer, (pointer,)),
            ("item_feat_string", text, (pointer, text)),
            ("ffeature_float", ctypes.c_float, (pointer, text)),
            ("utt_wave", pointer, (pointer,)),
            ("delete_utterance", None, (pointer,)),
            ("feat_set_float", None, (pointer, text, ctypes.c_float)),
        ):
            function = getattr(self._flite, name)
            function.restype, function.argtypes = result, list(arguments)
        self._flite.flite_init()
        self._c = ctypes.CDLL(None)
        self._voices: dict[str, int] = {}

    def say(self, text: str, voice: Voice, speed: float, seed: int) -> Speech:
        """Speaks one sentence; arguments and errors as of `Synthesizer.say`."""
        self._c.srand(seed % 2**31)  # its breath is made of the C library's numbers
        place = self._voice(voice)
        features = ctypes.cast(place, ctypes.POINTER(_Voice)).contents.features
        self._flite.feat_set_float(features, b"duration_stretch", 1.0 / speed)
        spelled = " ".join(_SPELLED.get(word, word) for word in text.split())
        utterance = self._flite.flite_synth_text(spelled.encode("ascii"), place)
        try:
            wave = ctypes.cast(self._flite.utt_wave(utterance), ctypes.POINTER(_Wave)).contents
            if wave.sample_rate != _RATE or wave.num_channels != 1:
                raise ValueError(f"{voice.name} speaks at {wave.sample_rate} Hz, expected {_RATE}")
            samples = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).astype(np.float32) / 32768
            times = self._word_times(utterance, text)
        finally:
            self._flite.delete_utterance(utterance)
        return trimmed(soxr.resample(samples, _RATE, RATE), text.split(), times)

    def _voice(self, voice: Voice) -> int:
        """Its place in memory; loaded when first asked for."""
        if voice.name not in self._voices:
            name = f"cmu_us_{voice.name.removeprefix('flite-')}"
            try:
                register = getattr(ctypes.CDLL(f"libflite_{name}.so.1", mode=ctypes.RTLD_GLOBAL), f"register_{name}")
            except (OSError, AttributeError) as error:
                raise ImportError(f"{error}: this flite lacks the voice {voice.name}") from error
            register.restype, register.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
            self._voices[voice.name] = register(None)
        return self._voices[voice.name]

    def _word_times(self, utterance: int, text: str) -> list[tuple[float, float]]:
        """(start, end) seconds of each word of the text; flite tells "i'd" as two."""
        times: list[tuple[float, float]] = []
        item = self._flite.relation_head(self._flite.utt_relation(utterance, b"Word"))
        while item:
            start, end = (self._flite.ffeature_float(item, path) for path in (_STARTS, _ENDS))
            if times and self._flite.item_feat_string(item, b"name").startswith(b"'"):
                start = times.pop()[0]
            times.append((float(start), float(end)))
            item = self._flite.item_next(item)
        if len(times) != len(text.split()):
            raise ValueError(f"{text!r} is {len(times)} words to flite")
        return times
