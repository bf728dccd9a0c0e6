"""Compiles the real step at full size for TPUs that are not here, and says what it takes.

  python -m launch.compile --config=configs/tml_v5p_512.py --topology=v5p:8x8x8 --step=train --output=train.json
  python -m launch.compile --config=configs/tml_serve_tpu7x_16.py --topology=tpu7x:2x2x4 --step=serve
  python -m launch.compile --config=configs/tml_v5p_512.py --topology=v5p:8x8x8 --step=train --search
  python -m launch.compile --config=configs/tml_v5p_512.py --topology=v5p:8x8x8 --slices=2 \\
      --config.mesh.data=2 --config.data.batch_size=1024

Nothing is allocated but the program. It takes some minutes and several GB on a CPU; libtpu is needed (extra `compile`).
"""

import os

# Before JAX is imported: no device of this machine takes part, and no TPU machine is asked what it is.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TPU_SKIP_MDS_QUERY"] = "1"
os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"
os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # what comes from there has no text to be read

import importlib.util
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import app, flags
from jax.experimental import topologies

from launch import config_flag
from launch.child import compile_apart
from tml_jax.config import Config, ConfigError
from tml_jax.files import write_whole
from tml_jax.scale.chips import Chip, chip_of
from tml_jax.scale.programs import DoesNotFit
from tml_jax.scale.report import advice, lines, search
from tml_jax.scale.serve import serve_report
from tml_jax.scale.train import train_report

_TOPOLOGY = flags.DEFINE_string("topology", None, "Chips and their shape, such as v5p:8x8x8.")
_SLICES = flags.DEFINE_integer("slices", 1, "Slices of that shape, between which there is only DCN.", lower_bound=1)
_STEP = flags.DEFINE_enum("step", "train", ["train", "serve"], "Which step.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")
_SEARCH = flags.DEFINE_bool("search", False, "For train: find the fastest batch and remat policy that fit.")
_SESSIONS = flags.DEFINE_integer("sessions", 1, "For serve: sessions in one call.", lower_bound=1)
_FRAMES = flags.DEFINE_bool("frames", False, "For serve: a video frame arrives in every micro-turn.")


def _devices(topology: str, chip: Chip) -> list[Any]:
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology, num_slices=_SLICES.value)
        return list(found.devices)
    except (ValueError, RuntimeError, jax.errors.JaxRuntimeError) as error:
        why = " ".join(str(error).split())[:200]
        raise ConfigError(f"--topology={topology}: no such shape of {chip.name} ({why})") from error


def _search(config: Config, devices: int, log: Callable[[str], None]) -> dict[str, Any]:
    """`search`, each setting in a process of its own."""

    def attempt(changed: Config) -> dict[str, Any] | str:
        setting = [
            f"--config.data.batch_size={changed.data.batch_size}",
            f"--config.train.remat={changed.train.remat}",
            f"--config.train.accumulate={changed.train.accumulate}",
        ]
        with tempfile.TemporaryDirectory() as folder:
            return compile_apart([*sys.argv[1:], "--nosearch", *setting], pathlib.Path(folder) / "report.json")

    return search(config, devices, attempt, log)


def run(config: Config) -> dict[str, Any]:
    """The figures that were asked for."""
    if not _TOPOLOGY.value:
        raise ConfigError("--topology is missing: give chips and their shape, such as v5p:8x8x8")
    if _SEARCH.value and _STEP.value == "serve":
        raise ConfigError("--search is for --step=train; for serve give --sessions, and see what launch.pods says")
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("the compiler, libtpu, is not installed: python -m pip install -e '.[compile]'")
    chip = chip_of(_TOPOLOGY.value)
    devices = _devices(_TOPOLOGY.value, chip)
    say = lambda line: print(line, flush=True)  # noqa: E731
    say("compiling, which takes minutes")
    if _STEP.value == "serve":
        report = serve_report(config, devices, chip, _SESSIONS.value, _FRAMES.value, say)
    elif _SEARCH.value:
        report = _search(config, len(devices), say)
    else:
        report = train_report(config, devices, chip, say)
    return {"topology": _TOPOLOGY.value, "slices": _SLICES.value, "jax": jax.__version__, **report}


def _check(output: pathlib.Path) -> None:
    """Raises ConfigError where no file can be written, now and not after an hour."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output.parent).close()
    except OSError as error:
        raise ConfigError(
            f"--output={output}: {error.strerror}; give a file in a folder that can be written"
        ) from error
    if output.is_dir():
        raise ConfigError(f"--output={output}: is a folder; give a file")


def main(argv: Sequence[str]) -> None:
    """Runs the command. A line says what is wrong with its input (code 2), or that the step does not fit (1)."""
    output = pathlib.Path(_OUTPUT.value) if _OUTPUT.value else None
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        config = config_flag.get()
        if output:
            _check(output)
        report = run(config)
    except DoesNotFit as error:
        raise SystemExit(f"launch.compile: {advice(error, config, _STEP.value)}") from error
    except ConfigError as error:
        config_flag.refuse("compile", error)
    except ValueError as error:
        raise SystemExit(f"launch.compile: {error}") from error
    for line in lines(report):
        print(line)
    if output:
        try:
            write_whole(output, json.dumps(report, indent=2) + "\n")
        except OSError as error:
            raise SystemExit(f"launch.compile: --output={output}: {error.strerror}; the figures stand above") from error


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
