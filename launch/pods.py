"""Makes the README's tables of pods: every published figure by `launch.compile`, one after the other.

  python -m launch.pods --output=runs/pods

Each figure is a file in the folder; those that are there are not made again, so the command goes on where it was
interrupted. All of them take some hours on two CPU cores, and 12 GB of memory.
"""

import pathlib
import sys
import time
from collections.abc import Sequence

from absl import app, flags

from launch import config_flag
from launch.child import compile_apart, read
from tml_jax.config import ConfigError
from tml_jax.scale.figures import FIGURES, Figure, tables

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the figures.")
_ONLY = flags.DEFINE_string("only", "", "Only figures with this in their name.")


def _asked(argv: Sequence[str]) -> tuple[pathlib.Path, list[Figure]]:
    """The folder, which then is there, and the figures."""
    if len(argv) > 1 or not _OUTPUT.value:
        raise ConfigError("give --output=FOLDER, and nothing but flags")
    folder = pathlib.Path(_OUTPUT.value)
    wanted = [figure for figure in FIGURES if _ONLY.value in figure.name]
    if not wanted:
        raise ConfigError(f"--only={_ONLY.value}: none of {', '.join(f.name for f in FIGURES)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output={folder}: {error.strerror}; give a folder that can be written") from error
    return folder, wanted


def main(argv: Sequence[str]) -> None:
    """Makes the figures and prints their tables; ends with 1 where one failed, with 2 where it is asked wrongly."""
    try:
        folder, wanted = _asked(argv)
    except ConfigError as error:
        config_flag.refuse("pods", error)
    reports, began = {}, time.monotonic()
    for number, figure in enumerate(wanted, 1):
        path = folder / f"{figure.name}.json"
        if path.exists():
            reports[figure.name] = read(path)
            continue
        print(f"{number} of {len(wanted)}: {figure.name}", flush=True)
        reports[figure.name] = found = compile_apart(figure.arguments(), path)
        print(found if isinstance(found, str) else f"after {(time.monotonic() - began) / 60:.0f} min", flush=True)
    print(tables(reports))
    if any(isinstance(report, str) for report in reports.values()):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
