"""Makes the README's tables of pods: every published figure by `launch.compile`, one after the other.

  python -m launch.pods --output=runs/pods

Each figure is a file in the folder; those that are there are not made again, so the command goes on where it was
interrupted. All of them take some hours on two CPU cores, and 12 GB of memory.
"""

import json
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from absl import app, flags

from tml_jax.scale.figures import FIGURES, tables

_OUTPUT = flags.DEFINE_string("output", None, "Folder for the figures.")
_ONLY = flags.DEFINE_string("only", "", "Only figures with this in their name.")


def main(argv: Sequence[str]) -> None:
    """Makes the figures and prints their tables."""
    if len(argv) > 1 or not _OUTPUT.value:
        raise SystemExit("launch.pods: give --output=FOLDER, and nothing but flags")
    folder = pathlib.Path(_OUTPUT.value)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"launch.pods: --output={folder}: {error.strerror}; give a folder that can be written"
        ) from error
    wanted = [figure for figure in FIGURES if _ONLY.value in figure.name]
    if not wanted:
        raise SystemExit(f"launch.pods: --only={_ONLY.value}: none of {', '.join(f.name for f in FIGURES)}")
    reports, began = {}, time.monotonic()
    for number, figure in enumerate(wanted, 1):
        path = folder / f"{figure.name}.json"
        if not path.exists():
            print(f"{number} of {len(wanted)}: {figure.name}", flush=True)
            command = [sys.executable, "-m", "launch.compile", *figure.arguments(), f"--output={path}"]
            code, told = _run(command)
            if code:
                reports[figure.name] = (told.strip().splitlines() or ["ended without a word"])[-1]
                print(reports[figure.name], flush=True)
                continue
            print(f"after {(time.monotonic() - began) / 60:.0f} min", flush=True)
        try:
            reports[figure.name] = json.loads(path.read_text())
        except ValueError as error:
            reports[figure.name] = f"{path} is not JSON ({error}): delete it and start again"
    print(tables(reports))


def _run(command: list[str]) -> tuple[int, str]:
    """Exit code and stderr of a command, which ends when this process does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        try:
            told = child.communicate()[1]
        except BaseException:
            child.kill()
            raise
    return child.returncode, told


if __name__ == "__main__":
    app.run(main)
