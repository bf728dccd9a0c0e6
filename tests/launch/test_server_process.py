"""A server beside a command: it is there while it is needed, is gone afterwards, and its failure is told."""

import os
import sys

import pytest

from launch.server_process import serving

LISTENS = """
echo compiling
echo "$@" > "$0.arguments"; echo $$ > "$0.pid"
echo "listening at ws://127.0.0.1:1234/v1/realtime for 3 sessions"
exec sleep 60
"""
FAILS = """
echo "a warning" >&2
echo "launch.serve: no such folder" >&2
exit 1
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a shell script in Python's place."""

    def put(script: str):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh{script}")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return path

    return put


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for the server")
def test_it_listens_while_it_is_needed_and_is_gone_afterwards(program):
    path, lines = program(LISTENS), []
    with (
        pytest.raises(RuntimeError, match="of the caller"),
        serving("runs/some", 3, lines.append, "--background=local") as url,
    ):
        pid = int(path.with_name("program.pid").read_text())
        os.kill(pid, 0)
        assert url == "ws://127.0.0.1:1234/v1/realtime"
        raise RuntimeError("of the caller")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert lines[0] == "server: compiling"
    arguments = path.with_name("program.arguments").read_text()
    assert "-m launch.serve --checkpoint=runs/some --sessions=3" in arguments and "--background=local" in arguments


@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for the server")
def test_one_that_does_not_come_up_is_told_with_its_last_words(program):
    program(FAILS)
    with pytest.raises(OSError, match="ended with 1 before it listened: launch.serve: no such folder"):
        with serving("runs/none", 1, lambda line: None):
            pass
