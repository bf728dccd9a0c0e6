"""What tests of the data share."""

import pytest

from tml_jax.data.voices import Synthesizer


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer()
