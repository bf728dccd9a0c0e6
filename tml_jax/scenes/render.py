"""Renders a scene: puts speech, text and pictures on one time axis and turns them into a conversation record."""

import math

import numpy as np
import soxr

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.data.record import MODEL, OTHER, USER, Conversation, Cue, Text, Word
from tml_jax.scenes.acoustics import Acoustics, at_microphone
from tml_jax.scenes.voices import LEVEL, RATE, Speech, Synthesizer, TimedWord, Voice
from tml_jax.signal.pcm import pcm16

_FADE = 0.01  # seconds: fade of a word that is cut


class Timeline:
    """A scene while it is being made. Times are seconds from its start.

    Args:
      synthesizer: speaks for both sides.
      rng: every draw of the scene.
      voice: the user's voice.
      speed: of the user's speech.
    """

    def __init__(self, synthesizer: Synthesizer, rng: np.random.Generator, voice: Voice, speed: float = 1.0):
        self.rng = rng
        self._synthesizer, self._voice, self._speed = synthesizer, voice, speed
        self._user: list[tuple[float, np.ndarray]] = []
        self._others: list[tuple[float, np.ndarray]] = []
        self._model: list[tuple[float, np.ndarray]] = []
        self._words: list[Word] = []
        self._texts: list[Text] = []
        self._cues: list[Cue] = []
        self._frames: tuple[np.ndarray, np.ndarray] | None = None

    def speak(self, text: str) -> Speech:
        """Makes the user's speech without placing it."""
        return self._synthesizer.say(text, self._voice, self._speed, int(self.rng.integers(2**31)))

    def user(self, speech: Speech | str, start: float) -> float:
        """Places the user's speech; returns the time of its end."""
        if isinstance(speech, str):
            speech = self.speak(speech)
        self._user.append((start, speech.samples))
        self._words += [Word(USER, word.text, start + word.start, start + word.end) for word in speech.words]
        return start + speech.duration

    def other(self, text: str, start: float, voice: Voice, level: float) -> float:
        """Somebody else in the room speaks, `level` dB above the user; returns the time of its end."""
        speech = self._synthesizer.say(text, voice, self._speed, int(self.rng.integers(2**31)))
        self._others.append((start, speech.samples * np.float32(10 ** (level / 20))))
        self._words += [Word(OTHER, word.text, start + word.start, start + word.end) for word in speech.words]
        return start + speech.duration

    def model(self, text: str, start: float, until: float = np.inf) -> float:
        """Places a word of the model, or a few, cut off at `until`; returns the time of its end."""
        speech = self._synthesizer.say(text)
        samples = speech.samples
        if start + speech.duration > until:
            samples = samples[: int(round((until - start) * RATE))].copy()
            fade = min(len(samples), int(_FADE * RATE))
            samples[len(samples) - fade :] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
        end = start + len(samples) / RATE
        self._model.append((start, samples))
        said = [(word.text, start + word.start, min(start + word.end, end)) for word in speech.words]
        self._words += [Word(MODEL, *word) for word in said if word[1] < end]
        return end

    def text(self, speaker: str, text: str, time: float, kind: str = "") -> None:
        """Places text that is typed, shown, handed over (`kind` TASK) or sent by the background."""
        self._texts.append(Text(speaker, text, time, kind))

    def cue(self, kind: str, start: float, end: float, text: str = "") -> None:
        """Notes what is expected of the model."""
        self._cues.append(Cue(kind, start, end, text))

    def video(self, frames: np.ndarray, times: np.ndarray) -> None:
        """Sets the pictures: (frames, 40, 40, 3) uint8 and their (frames,) times."""
        self._frames = (frames, times)

    def conversation(
        self, name: str, family: str, end: float, meta: dict, microphone: Acoustics | None, speaker: bool = True
    ) -> Conversation:
        """The finished record, ending with the first micro-turn boundary at or after `end`.

        Args:
          name: id of the record.
          family: kind of scene.
          end: seconds.
          meta: facts to note.
          microphone: how the user's side is heard, silent or not; None for no user channel at all.
          speaker: whether there is a model channel at all.
        """
        duration = scene_duration(end)
        own = _mix(self._model, duration, OUTPUT_RATE)
        user = None
        if microphone is not None:
            user = self._user_channel(microphone, own)
            meta = {**meta, **microphone.facts()}
        frames, times = self._frames if self._frames is not None else (None, None)
        if times is not None:
            frames, times = frames[times < duration], times[times < duration]
        return Conversation(
            id=name,
            duration=duration,
            user_audio=user,
            model_audio=pcm16(own) if speaker else None,
            frames=frames,
            frame_times=times,
            words=tuple(sorted(self._words, key=lambda word: (word.start, word.speaker))),
            texts=tuple(sorted(self._texts, key=lambda text: text.time)),
            cues=tuple(sorted(self._cues, key=lambda cue: cue.start)),
            family=family,
            meta=meta,
        )

    def _user_channel(self, microphone: Acoustics, own: np.ndarray) -> np.ndarray:
        """What is heard while the model's sound is `own`, (m,) float32 at 24 kHz: (samples,) int16 at 16 kHz."""

        def resampled(pieces: list[tuple[float, np.ndarray]]) -> list[tuple[float, np.ndarray]]:
            return [(start, soxr.resample(samples, RATE, INPUT_RATE)) for start, samples in pieces]

        seconds = len(own) / OUTPUT_RATE
        user = resampled(self._user)
        talkers = [
            (0.0, self._synthesizer.say(text, voice, seed=microphone.seed).samples)
            for voice, text in microphone.talkers
        ]
        spoken = np.concatenate([piece for _, piece in user]) if user else np.full(1, LEVEL, np.float32)
        heard = at_microphone(
            microphone,
            _mix(user, seconds, INPUT_RATE),
            _mix(resampled(self._others), seconds, INPUT_RATE),
            _mix([(0.0, soxr.resample(own, OUTPUT_RATE, INPUT_RATE))], seconds, INPUT_RATE),
            [samples for _, samples in resampled(talkers)],
            float(np.sqrt(np.mean(np.square(spoken)))),
        )
        return pcm16(heard)


def scene_duration(end: float) -> float:
    """The first micro-turn boundary at or after `end` seconds."""
    return round(math.ceil(round(float(end) / MICRO_TURN_SECONDS, 6)) * MICRO_TURN_SECONDS, 6)


def _mix(pieces: list[tuple[float, np.ndarray]], duration: float, rate: int) -> np.ndarray:
    """Adds up pieces of sound, each at its start: (duration·rate,) float32."""
    samples = np.zeros(int(round(duration * rate)), np.float32)
    for start, piece in pieces:
        first = int(round(start * rate))
        piece = piece[: max(0, len(samples) - first)]
        samples[first : first + len(piece)] += piece
    return samples


def lengthen_pause(speech: Speech, word: int, pause: float) -> Speech:
    """Makes the silence before word number `word` last `pause` seconds.

    The sentence keeps the melody of one that goes on, as when a speaker searches for a word.
    """
    before, after = speech.words[word - 1], speech.words[word]
    middle = (before.end + after.start) / 2
    cut = int(round(middle * RATE))
    extra = max(0, int(round((pause - (after.start - before.end)) * RATE)))
    samples = np.concatenate([speech.samples[:cut], np.zeros(extra, np.float32), speech.samples[cut:]])
    shift = extra / RATE
    later = tuple(TimedWord(w.text, w.start + shift, w.end + shift) for w in speech.words[word:])
    return Speech(samples, speech.words[:word] + later)
