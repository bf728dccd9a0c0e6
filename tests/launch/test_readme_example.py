"""The examples of the README, to the letter: an offline voice asks, and the shipped replica hands a task over."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def command_of(pattern: str) -> str:
    found = re.search(rf"^python ({pattern}.*)$", README, re.MULTILINE)
    assert found, f"the README has no line like {pattern!r}"
    return found[1]


def question(folder: pathlib.Path) -> pathlib.Path:
    """Makes the recording of the README in a folder."""
    pytest.importorskip("hibari", reason="needs the replica extra")
    run(command_of(r"-c .*question\.wav"), folder)
    return folder


def run(command: str, folder: pathlib.Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        f"{sys.executable} {command}", shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_question_of_the_readme_is_handed_over_and_its_result_read(tmp_path):
    said = run(command_of(r"-m launch\.talk .*--audio=question\.wav"), question(tmp_path))
    print(said)
    assert "[task: " in said and "[result: #1. " in said
    assert (tmp_path / "answer" / "conversation.wav").stat().st_size > 0


@pytest.mark.slow
def test_the_clients_of_the_readme_talk_with_the_shipped_replica(tmp_path):
    run(command_of(r"-c .*question24\.wav"), question(tmp_path))
    scripts = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "127.0.0.1:8000" in block]
    assert len(scripts) == 2
    flags = ["--checkpoint=shipped", "--background=local", "--port=0"]
    command = [sys.executable, "-m", "launch.serve", *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = next(line for line in server.stdout if line.startswith("listening at"))
            address = re.search(r"127\.0\.0\.1:\d+", line)[0]
            for number, script in enumerate(scripts):
                path = tmp_path / f"{number}.py"
                path.write_text(script.replace("127.0.0.1:8000", address), encoding="utf-8")
                said = run(path.name, tmp_path)
                print(said)
                assert "moment" in said and "seven" in said
        finally:
            server.kill()
