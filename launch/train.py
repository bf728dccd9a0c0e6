"""Trains a model: makes what data are missing, trains or goes on training, evaluates, says where the model is.

  python -m launch.train --config=configs/replica.py
  python -m launch.train --config=configs/replica.py --config.train.steps=2000 --run_dir=runs/longer

The same command goes on where a run was stopped. SIGTERM or Ctrl-C in training saves a checkpoint first. On a pod,
start it with --distributed on every host, on data that lie where all of them can read.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import jax
from absl import app, flags, logging

from launch import config_flag, huge_pages
from tml_jax.config import Config, ConfigError
from tml_jax.data import prepare
from tml_jax.data.shards import DataError
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train import checkpoint, init_from, loop, metrics

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; default: runs/ and the name of the configuration.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts of a pod.")

_EXPECTED = (checkpoint.CheckpointError, metrics.MetricsError, loop.NonFiniteError, DataError, ImportError, OSError)


def run(config: Config, run_dir: pathlib.Path) -> None:
    """The whole way from a configuration to a model, in `run_dir`."""
    first = jax.process_index() == 0
    make_mesh(config.mesh)  # before minutes go into data: a mesh that does not fit the devices
    if first:
        if config.train.init_from and not checkpoint.saved_steps(run_dir):  # else it resumes, from its own
            if line := init_from.adopt_files(config.train.init_from, run_dir, config.model):
                print(line, flush=True)
        logging.set_verbosity(logging.INFO)  # the generator tells its progress there
        prepare.ensure_data(config)
        logging.set_verbosity(logging.WARNING)
        prepare.ensure_tokenizer(config, run_dir / checkpoint.TOKENIZER)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("data are ready")
    report = loop.train(config, run_dir, log=lambda line: print(line, flush=True))
    if report.interrupted or not first:
        return
    if jax.process_count() == 1:
        from tml_jax.eval import replica

        print(replica.evaluate(run_dir, config))
    print(f"model: {run_dir} (step {report.step})")
    print(f"talk:  python -m launch.talk --checkpoint={run_dir} --audio=question.wav --output=answer")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag, such as --config.train.steps=100")
        config = config_flag.get()
        if _DISTRIBUTED.value:
            _join()
        run(config, pathlib.Path(_RUN_DIR.value or f"runs/{config.name}"))
    except ConfigError as error:
        _end(error, 2)
    except _EXPECTED as error:
        _end(error, 1)


def _join() -> None:
    try:
        jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"--distributed: found no other hosts ({error}); it is for the hosts of a pod") from error


def _end(error: Exception, code: int) -> NoReturn:
    print(f"launch.train: {error}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main, flags_parser=config_flag.parse)
