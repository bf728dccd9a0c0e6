"""An engine of the small model, compiled once for all tests of the server."""

import pytest
from small import small_config
from synthetic import tokenizer

from tml_jax.serve.engine import Engine
from tml_jax.serve.program import LoadedModel

SLOTS = 3


@pytest.fixture(scope="session")
def warm_engine(small_variables) -> Engine:
    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), SLOTS)
    engine.warm_up()
    return engine


@pytest.fixture
def engine(warm_engine):
    yield warm_engine
    for slot in warm_engine.taken:
        warm_engine.leave(slot)
