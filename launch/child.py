"""`launch.compile` in a process of its own, so that an abort of the compiler is one figure that failed.

What the compiler leaves behind (its text of programs, tens of MB) is removed, however the process ended.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any


def compile_apart(arguments: Sequence[str], output: pathlib.Path) -> dict[str, Any] | str:
    """Runs `launch.compile`, which ends when this process does.

    Args:
      arguments: for it, without `--output`.
      output: the JSON file that it writes.

    Returns:
      What it wrote, or the line that says why it did not.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = [sys.executable, "-m", "launch.compile", *arguments, f"--output={output}"]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"TMPDIR": folder}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, errors="replace", env=environment) as child:
            try:
                told = child.communicate()[1]
            except BaseException:
                child.kill()
                raise
    return why(child.returncode, told) if child.returncode else read(output)


def read(path: pathlib.Path) -> dict[str, Any] | str:
    """The figures in a file, or a line that says what is wrong with it."""
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        return f"{path} cannot be read as JSON ({error}): delete it and start again"
    if not isinstance(report, dict) or "collective_seconds" not in report or "memory_seconds" not in report:
        return f"{path} is of an earlier version of launch.compile: delete it and start again"
    return report


def why(code: int, told: str) -> str:
    """Why a command failed, in one line: by its exit code and what it wrote to stderr."""
    said = told.strip().splitlines()
    if code >= 0:
        return said[-1] if said else f"ended with code {code} and without a word"
    failed = next((line for line in said if "Check failed" in line), "nothing is known but that")
    # Without the date, process and line that stand before it.
    return f"the compiler was ended by {signal.Signals(-code).name}: {re.sub(r'^.*?(?=Check failed)', '', failed)}"
