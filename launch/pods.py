"""Makes the README's tables of pods: every published figure by `launch.compile`, one after the other.

  python -m launch.pods --output=runs/pods

Each figure is a file in the folder; those that are there are not made again, so the command goes on where it was
interrupted. All of them take some hours on two CPU cores, and 12 GB of memory.
"""

import json
import pathlib
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
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [figure for figure in FIGURES if _ONLY.value in figure.name]
    if not wanted:
        raise SystemExit(f"launch.pods: --only={_ONLY.value}: none of {', '.join(f.name for f in FIGURES)}")
    reports, began = {}, time.monotonic()
    for number, figure in enumerate(wanted, 1):
        path = folder / f"{figure.name}.json"
        if not path.exists():
            print(f"{number} of {len(wanted)}: {figure.name}", flush=True)
            command = [sys.executable, "-m", "launch.compile", *figure.arguments(), f"--output={path}"]
            done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                reports[figure.name] = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
                print(reports[figure.name], flush=True)
                continue
            print(f"after {(time.monotonic() - began) / 60:.0f} min", flush=True)
        reports[figure.name] = json.loads(path.read_text())
    print(tables(reports))


if __name__ == "__main__":
    app.run(main)
