"""What tests of `launch.eval` share."""

import importlib
import sys

import pytest
from absl import flags

from tml_jax.eval import streaming


@pytest.fixture(scope="module")
def command():
    """`launch.eval`, while the flags of other commands that have the same names are put away."""
    away = {name: flags.FLAGS[name] for name in ("checkpoint", "output") if name in flags.FLAGS}
    for name in away:
        delattr(flags.FLAGS, name)
    yield importlib.import_module("launch.eval")
    for flag in list(flags.FLAGS.flags_by_module_dict()["launch.eval"]):
        delattr(flags.FLAGS, flag.name)
    for name, flag in away.items():
        flags.FLAGS[name] = flag
    del sys.modules["launch.eval"]


@pytest.fixture(autouse=True)
def parsed():
    """Flags at their defaults."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.fixture
def one_by_one(monkeypatch):
    """One session at a time, so that one compiled program serves all."""
    monkeypatch.setattr(streaming, "TOGETHER", 1)
