"""The example of the README, to the letter: an offline voice asks, and the shipped replica hands a task over."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def command_of(readme: str, pattern: str) -> str:
    found = re.search(rf"^python ({pattern}.*)$", readme, re.MULTILINE)
    assert found, f"the README has no line like {pattern!r}"
    return found[1]


@pytest.mark.slow
def test_the_question_of_the_readme_is_handed_over_and_its_result_read(tmp_path):
    pytest.importorskip("hibari", reason="needs the replica extra")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for pattern in (r"-c .*question\.wav", r"-m launch\.talk .*--audio=question\.wav"):
        command = f"{sys.executable} {command_of(readme, pattern)}"
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    assert "[task: " in done.stdout and "[result: #1. " in done.stdout
    assert (tmp_path / "answer" / "conversation.wav").stat().st_size > 0
