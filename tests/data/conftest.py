"""What tests of the data share."""

import pytest
from played import EACH, Played, play

from tml_jax.data import scene_scripts as scripts
from tml_jax.data.scene_families import FAMILIES
from tml_jax.data.voices import Synthesizer


@pytest.fixture(scope="session")
def synthesizer() -> Synthesizer:
    return Synthesizer()


@pytest.fixture(scope="session")
def records(synthesizer: Synthesizer) -> Played:
    """A few scenes of each family, of training and held out."""
    return play(synthesizer, FAMILIES, (scripts.TRAIN, scripts.HELD_OUT), EACH, 7)
