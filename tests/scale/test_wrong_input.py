"""Commands about pods that are asked wrongly: one line that says how, exit code 2, and nothing is left behind."""

import subprocess
import sys

import pytest

TINY = "--config=configs/tiny.py"


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("pods", ["--nosuch=1"], "Unknown command line flag 'nosuch'"),
        ("pods", ["--output={folder}/new", "--only=zzz"], "--only=zzz: none of tml_v5p_512_train"),
        ("pods", [], "give --output=FOLDER"),
        ("params", [TINY, "more"], "argument 'more': every option is a --flag"),
        ("params", [TINY, "--config.model.num_layers=-1"], "num_layers"),
        ("scale", [TINY, "--step_seconds=-1"], "--step_seconds=-1.0: must be above 0"),
        ("scale", [TINY, "--step_seconds=soon"], "expected a number, not 'soon'"),
        ("compile", [TINY, "--topology=v5e:2x2", "--output={folder}"], "is a folder; give a file"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, command, arguments, said):
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    done = subprocess.run([sys.executable, "-m", f"launch.{command}", *arguments], capture_output=True, text=True)
    own = [line for line in done.stderr.splitlines() if line.startswith(f"launch.{command}: ")]
    assert done.returncode == 2 and len(own) == 1 and said in own[0], done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.iterdir())
