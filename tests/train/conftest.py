"""A small run directory: recorded noise in place of voices, so that no test waits for a synthesiser."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
from noise_runs import ROOT, SHALLOW, conversation

from configs import tiny
from tml_jax.config import Config, from_mapping
from tml_jax.data.shards import write_shards
from tml_jax.train import checkpoint, prepare

# A training process as a person would start it, without the making of data. Arguments: run directory, changes to the
# train section as JSON.
COMMAND = """
import dataclasses, json, sys
from tml_jax.train import checkpoint, loop
config = checkpoint.read_config(sys.argv[1])
changes = json.loads(sys.argv[2])
train = dataclasses.replace(config.train, **changes)
loop.train(dataclasses.replace(config, train=train), sys.argv[1], log=lambda line: print(line, flush=True))
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("data")
    write_shards((conversation(f"scene-{i}", i) for i in range(24)), directory / "scenes")
    write_shards((conversation(f"held-{i}", 100 + i) for i in range(6)), directory / "held_out")
    return directory


@pytest.fixture
def config(data) -> Config:
    """A shallow model over the data of these tests: 12 steps, a checkpoint every 4, an evaluation every 6."""
    config = from_mapping(tiny.get_config())
    train = dataclasses.replace(
        config.train, steps=12, warmup_steps=2, checkpoint_every=4, eval_every=6, eval_batches=2, log_every=2
    )
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **SHALLOW),
        data=dataclasses.replace(config.data, directory=str(data), generate={}),
        train=train,
    )


@pytest.fixture
def new_run(tmp_path, config):
    """Makes run directories that lack nothing but training."""

    def make(name: str) -> pathlib.Path:
        run_dir = tmp_path / name
        checkpoint.write_config(run_dir, config)
        prepare.ensure_tokenizer(config, run_dir / checkpoint.TOKENIZER, log=lambda line: None)
        return run_dir

    return make


@pytest.fixture(scope="session")
def start_process():
    """Starts a training process."""

    def start(run_dir: pathlib.Path, changes: str = "{}") -> subprocess.Popen:
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        return subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(run_dir), changes],
            cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start
