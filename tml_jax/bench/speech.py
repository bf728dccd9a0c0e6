"""What users say in measurements of serving, and in examples, where no recording is given."""

from collections.abc import Sequence

import numpy as np

from tml_jax.config import INPUT_RATE
from tml_jax.scenes.voices import HELD_OUT_VOICES, RATE, Synthesizer
from tml_jax.signal.media import resample

REQUESTS = ("please say the word garden", "count up to eight for me", "what is three plus four")
PAUSE = 3.0  # seconds after each, in which the model can answer


def requests(texts: Sequence[str] = REQUESTS) -> np.ndarray:
    """Requests in a voice that the replica does not know, a pause after each: (n,) float32 at 16 kHz.

    Args:
      texts: what is said; the usual ones are of the replica's little world.

    Raises:
      ImportError: the `replica` extra is not installed.
    """
    synthesizer, pause = Synthesizer(), np.zeros(round(PAUSE * INPUT_RATE), np.float32)
    spoken = [synthesizer.say(text, HELD_OUT_VOICES[0]).samples for text in texts]
    return np.concatenate([part for said in spoken for part in (resample(said[None], RATE, INPUT_RATE)[0], pause)])
