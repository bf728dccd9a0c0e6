"""The model's own voice in the user's microphone, as long as a conversation is streamed.

What is recorded of a held-out scene holds no echo: it would be that of the recorded reply, which tells the model what
to say, and when. What the model really says is heard instead, softer and late, as `meta` of the scene has it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import soxr

from tml_jax.config import INPUT_RATE, OUTPUT_RATE
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.record import Conversation
from tml_jax.scenes.acoustics import ECHO_TO_COME
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn

_MARGIN = 160  # samples at 16 kHz that the resampler gets on both sides: 10 ms, half of the shortest delay


class Echo:
    """What comes back of a model's sound.

    Attributes:
      gain: of the sound, from 0 (no echo) on.
      delay: samples at 16 kHz, even and at least 2 · `_MARGIN`.
    """

    def __init__(self, conversation: Conversation) -> None:
        """That of a conversation whose `meta` tells of one, or of none at all."""
        level, delay = conversation.meta.get(ECHO_TO_COME, (None, 0.0))
        self.gain = 0.0 if level is None else 10 ** (level / 20)
        self.delay = max(2 * _MARGIN, 2 * round(delay * INPUT_RATE / 2))
        self._own = np.zeros(0, np.float32)  # 24 kHz, from the start of the conversation

    def put_out(self, turn: MicroTurn) -> None:
        """Takes what the model says in a micro-turn, which is heard in the window after it."""
        if self.gain:
            due = (turn.index + 1) * len(turn.samples)
            self._own = np.concatenate([self._own, np.zeros(due - len(self._own), np.float32), turn.samples])

    def heard(self, windows: Iterator[Arrived]) -> Iterator[Arrived]:
        """What arrives in each window, with the echo.

        `put_out` must be given each micro-turn before the next window is taken.
        """
        for index, arrived in enumerate(windows):
            # Where sound was lost, so was the echo.
            if not self.gain or arrived.audio is None or arrived.lost:
                yield arrived
                continue
            first = index * INPUT_SAMPLES - self.delay
            yield dataclasses.replace(arrived, audio=arrived.audio + np.float32(self.gain) * self._piece(first))

    def _piece(self, first: int) -> np.ndarray:
        """(INPUT_SAMPLES,) of the own sound at 16 kHz from sample `first` on."""
        start, end = ((first + side) * OUTPUT_RATE // INPUT_RATE for side in (-_MARGIN, INPUT_SAMPLES + _MARGIN))
        piece = np.zeros(end - start, np.float32)
        known = self._own[max(start, 0) : max(end, 0)]
        piece[max(-start, 0) : max(-start, 0) + len(known)] = known
        return soxr.resample(piece, OUTPUT_RATE, INPUT_RATE)[_MARGIN : _MARGIN + INPUT_SAMPLES]
