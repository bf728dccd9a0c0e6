"""What tests of the scenes share."""

import pytest
from played import EACH, Played, play

from tml_jax.scenes import scripts
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.voices import Synthesizer


@pytest.fixture(scope="session")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture(scope="session")
def records(synthesizer: Synthesizer) -> Played:
    """A few scenes of each family, of training and held out."""
    return play(synthesizer, FAMILIES, (scripts.TRAIN, scripts.HELD_OUT), EACH, 7)
