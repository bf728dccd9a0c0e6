"""What the tests of every folder share: a small model with random weights, and a place for compiled programs."""

import contextlib
import os
import pathlib
import sys

import pytest

UNOPTIMISED = "jax_disable_most_optimizations"
TESTS = pathlib.Path(__file__).resolve().parent
for name, value in {
    "JAX_PLATFORMS": "cpu",  # or an installed libtpu is asked for devices that are not there
    # What one worker, or a process that a test starts, has compiled, the others read.
    "JAX_COMPILATION_CACHE_DIR": str(TESTS.parent / ".pytest_cache" / "compiled"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
}.items():
    os.environ.setdefault(name, value)

# `small`, `trained_run`, `synthetic`, `played`, `releases`, `fdb_folders`
sys.path[:0] = [str(TESTS / folder) for folder in ("", "data", "interop", "eval/suites")]

import jax  # noqa: E402
from small import SMALL, random_variables, small_config  # noqa: E402

from tml_jax.model.interaction import InteractionModel  # noqa: E402

# With `--dist loadfile` the file that is given out last should be short, or one worker waits for the other.
LONGEST = (
    "train/test_mesh_steps.py",
    "train/test_loop.py",
    "train/test_hosts.py",
    "train/test_step.py",
    "scale/test_programs.py",
    "parallel/test_transport.py",
    "interop/test_stablehlo.py",
    "serve/test_session.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Compiles quickly where proofs are left out, and has xdist keep the order of files, not the most tests first."""
    # Compiling is most of what the default tests cost, and their programs run for a moment.
    quickly = os.environ.setdefault(UNOPTIMISED.upper(), str(int("not slow" in config.option.markexpr)))
    jax.config.update(UNOPTIMISED, quickly != "0")  # the variable is for processes that tests start
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first."""
    place = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


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


@contextlib.contextmanager
def compiling_as_for_a_user():
    """What compiles meanwhile is optimised."""
    before = jax.config.read(UNOPTIMISED)
    jax.config.update(UNOPTIMISED, False)
    try:
        yield
    finally:
        jax.config.update(UNOPTIMISED, before)


@pytest.fixture
def optimised():
    """For a test of what the compiler's optimisations could change."""
    with compiling_as_for_a_user():
        yield


@pytest.fixture(scope="session")
def warm_engine(small_variables):
    """An engine of three slots, which keeps time and is compared to the bit: so it is compiled as for a user."""
    from synthetic import tokenizer

    from tml_jax.serve.engine import Engine
    from tml_jax.serve.program import LoadedModel

    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), 3)
    with compiling_as_for_a_user():
        engine.warm_up()
    return engine
