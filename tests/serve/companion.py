"""A stand-in for the model in calls of real clients: it answers, hands a sum over to whoever does tasks and says what
comes back, counts, and falls silent when it is spoken over."""

import numpy as np
from scripted import SAMPLES, Line
from synthetic import tokenizer

from tml_jax.serve.windows import Arrived

COUNTING = [f" {word}" for word in "one two three four five six seven eight nine ten eleven twelve".split() * 4]
SORRY = [" I", " am", " silent"]
ASKS = "what is "  # of typed text that is handed over without these words
LOUD = 0.02  # root mean square of a window
VOICE = 0.2 * np.sin(2 * np.pi * 440 * np.arange(SAMPLES) / 24_000).astype(np.float32)


class Companion:
    """A script of `ScriptedEngine` for one caller, a word in each micro-turn.

    Typed text is answered with "you wrote" and the text; a task in it is handed over, and its result said once it has
    been read. The first speech by counting, what is said after that with
    `SORRY`; each begins in the first window in which the caller is silent again.
    """

    def __init__(self) -> None:
        self._words: list[str] = []
        self._answers = [COUNTING, SORRY]
        self._spoken_to = False
        self._read: list[int] = []

    def __call__(self, index: int, arrived: Arrived) -> Line:
        asked = [text.text.removeprefix(ASKS) for text in arrived.texts if text.text.startswith(ASKS)]
        if asked:
            return Line(tasks=tuple(asked))
        if self._read and not arrived.results:
            text = tokenizer().decode([token for token in self._read if token < tokenizer().size])
            self._words, self._read = [" I", " read", f" {text.strip()}"], []
        self._read += arrived.results
        if arrived.texts:
            self._words = [" you", " wrote"] + [f" {text.text}" for text in arrived.texts]
        if arrived.audio is not None and np.sqrt(np.mean(np.square(arrived.audio))) > LOUD:
            self._words, self._spoken_to = [], True
        elif self._spoken_to:
            self._spoken_to = False
            self._words = list(self._answers.pop(0)) if self._answers else []
        return Line(VOICE, self._words.pop(0)) if self._words else Line()
