"""What the tests of every folder share: a small model with random weights, and a place for compiled programs."""

import os
import pathlib
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # or an installed libtpu is asked for devices that are not there

import jax
import pytest

TESTS = pathlib.Path(__file__).resolve().parent
# `small`, `trained_run`, `synthetic`, `played`, `releases`, `fdb_folders`
sys.path[:0] = [str(TESTS / folder) for folder in ("", "data", "interop", "eval/suites")]

from small import SMALL, random_variables, small_config  # noqa: E402

from tml_jax.model.interaction import InteractionModel  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def compilation_cache() -> pathlib.Path:
    """Compiled programs, kept from one test run to the next."""
    cache = TESTS.parent / ".pytest_cache" / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(cache))
    return cache


@pytest.fixture(scope="session")
def small_model() -> InteractionModel:
    return InteractionModel(SMALL)


@pytest.fixture(scope="session")
def small_variables():
    return random_variables(SMALL)


@pytest.fixture(scope="session")
def small_talker(small_variables):
    """A talker of the small model, with the tokenizer of the synthetic conversations."""
    from synthetic import tokenizer  # here, because few tests need it and all that comes with it

    from tml_jax.serve.session import Talker

    return Talker.of(small_config(), tokenizer(), small_variables, seed=3)
