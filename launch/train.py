"""Trains a model: makes what data are missing, trains or goes on training, evaluates, says where the model is.

  python -m launch.train --config=configs/replica.py
  python -m launch.train --config=configs/replica.py --config.train.steps=2000 --run_dir=runs/longer

The same command goes on where a run was stopped. SIGTERM or Ctrl-C in training saves a checkpoint first. On a pod,
start it with --distributed on every host (see `launch.distributed`), with data and run directory where all of them can
read and write.
"""

import contextlib
import pathlib
from collections.abc import Sequence

import jax
from absl import flags, logging
from jax.experimental import multihost_utils

from launch import config_flag, distributed, huge_pages
from tml_jax.config import Config, ConfigError
from tml_jax.data.shards import DataError
from tml_jax.folder_lock import FolderBusyError, alone
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train import checkpoint, curves, goodput, init_from, loop, metrics, prepare

_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder of the run; default: runs/ and the name of the configuration.")
_PROFILE = flags.DEFINE_string("profile_steps", None, "Steps to trace for xprof, such as 10:13 for 10, 11 and 12.")

_EXPECTED = (checkpoint.CheckpointError, metrics.MetricsError, loop.NonFiniteError, DataError, ImportError, OSError)


def run(config: Config, run_dir: pathlib.Path, profile: range = range(0), started: float | None = None) -> bool:
    """The whole way from a configuration to a model, in `run_dir`; the others as `loop.train` takes them.

    Returns:
      Whether it came to its end; False where a signal stopped it.
    """
    first = jax.process_index() == 0
    make_mesh(config.mesh)  # before minutes go into data: a mesh that does not fit the devices
    if first:
        resumes = checkpoint.saved_steps(run_dir)
        if resumes:
            loop.check_same_run(config, checkpoint.read_config(run_dir), run_dir)
        if config.train.init_from and not resumes:  # else it resumes, from its own
            if line := init_from.adopt_files(config.train.init_from, run_dir, config.model):
                print(line, flush=True)
        logging.set_verbosity(logging.INFO)  # the generator tells its progress there
        prepare.ensure_data(config)
        logging.set_verbosity(logging.WARNING)
        prepare.ensure_tokenizer(config, run_dir / checkpoint.TOKENIZER)
    if jax.process_count() > 1:
        if first:  # once, not on each host
            prepare.ensure_lengths(config, run_dir / checkpoint.TOKENIZER)
        multihost_utils.sync_global_devices("data are ready")
        if not (run_dir / checkpoint.TOKENIZER).exists():
            raise ConfigError(
                f"{run_dir / checkpoint.TOKENIZER} is missing for process {jax.process_index()}: --run_dir must name "
                "storage that all hosts share"
            )
    report = loop.train(config, run_dir, log=lambda line: print(line, flush=True), profile=profile, started=started)
    if report.interrupted or not first:
        return not report.interrupted
    if jax.process_count() == 1:
        from tml_jax.eval import replica

        print(replica.evaluate(run_dir, config))
    if picture := curves.draw_curves(run_dir):
        print(f"curves: {picture}")
    print(f"model: {run_dir} (step {report.step})")
    background = " --background=local" if "scenes" in config.data.generate else ""  # they teach it to hand over sums
    print(f"talk:  python -m launch.talk --checkpoint={run_dir}{background} --audio=question.wav --output=answer")
    return True


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag, such as --config.train.steps=100")
        config = config_flag.get()
        logging.set_verbosity(logging.WARNING)  # JAX and Orbax say much at INFO, each process all of it
        distributed.join()
        run_dir = _RUN_DIR.value or f"runs/{config.name}"
        if "://" in run_dir:
            raise ConfigError(f"--run_dir={run_dir}: must be a folder; mount the bucket (README, On a pod)")
        if jax.process_index() == 0:
            prepare.check_generated(config, log=lambda line: None)  # before there is a folder
        with alone(run_dir) if jax.process_index() == 0 else contextlib.nullcontext():
            done = run(config, pathlib.Path(run_dir), profiled_steps(config), goodput.process_start())
        if not done and jax.process_count() > 1:  # or the manager of the job would take it for done
            raise SystemExit(distributed.START_AGAIN)
    except ConfigError as error:
        distributed.end(error, 2)
    except FolderBusyError as error:
        distributed.end(error, distributed.START_AGAIN)
    except KeyboardInterrupt:  # in the steps a signal is waited for; this is before or after them
        config_flag.interrupted("train", "what was made and saved is kept, and the same command goes on")
    except _EXPECTED as error:
        distributed.end(error, 1)
    except Exception as error:
        distributed.end_lost(error)


def profiled_steps(config: Config) -> range:
    """The steps that --profile_steps names.

    Raises:
      ConfigError: they are no steps of the run.
    """
    if not _PROFILE.value:
        return range(0)
    first, colon, stop = _PROFILE.value.partition(":")
    if not (first.isdigit() and colon and stop.isdigit() and 1 <= int(first) < int(stop) <= config.train.steps + 1):
        raise ConfigError(
            f"--profile_steps={_PROFILE.value}: must be FIRST:END, such as 10:13 for steps 10, 11 and 12, "
            f"with steps in 1 … config.train.steps = {config.train.steps}"
        )
    return range(int(first), int(stop))


if __name__ == "__main__":
    huge_pages.restart()
    config_flag.run(main, flags_parser=config_flag.parse)
