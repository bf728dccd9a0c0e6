"""Flags by which the processes of a run find each other: what is wrong with them, or with the others, is one line."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from configs import tiny
from launch import distributed, train
from tml_jax.config import ConfigError, from_mapping

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def parsed_flags():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"coordinator": "localhost:80", "num_processes": 2}, "needs --process_id as well"),
        ({"process_id": 0}, "--process_id=0: needs --coordinator as well"),
        ({"coordinator": "localhost", "num_processes": 2, "process_id": 0}, "must be HOST:PORT"),
        ({"coordinator": "localhost:80", "num_processes": 2, "process_id": 2}, r"must lie in 0 … 1"),
    ],
)
def test_flags_that_do_not_fit_together_are_refused(given, message):
    with flagsaver.flagsaver(**given), pytest.raises(ConfigError, match=message):
        distributed.join()


def test_without_flags_there_is_one_process():
    assert distributed.join() is None


@pytest.mark.parametrize("given", ["10", "0:3", "3:3", "5:4", "1:42", "a:b", ":3"])
def test_steps_to_profile_must_be_steps_of_the_run(given):
    with flagsaver.flagsaver(profile_steps=given), pytest.raises(ConfigError, match="must be FIRST:END"):
        train.profiled_steps(from_mapping(tiny.get_config()))


def test_steps_to_profile_are_counted_as_in_the_lines_of_progress():
    with flagsaver.flagsaver(profile_steps="10:13"):
        assert list(train.profiled_steps(from_mapping(tiny.get_config()))) == [10, 11, 12]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return taken.getsockname()[1]


def test_processes_that_do_not_find_each_other_end_with_one_line(tmp_path):
    command = [sys.executable, "-m", "launch.train", "--config=configs/tiny.py", f"--run_dir={tmp_path}"]
    alone = [
        subprocess.Popen(
            [*command, f"--coordinator=localhost:{free_port()}", "--num_processes=2", f"--process_id={process}",
             "--join_timeout=2"],
            cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)), text=True, stderr=subprocess.PIPE,
        )
        for process in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=100)[1].strip() for process in alone]
    assert [process.returncode for process in alone] == [distributed.START_AGAIN] * 2, said
    assert all("\n" not in line and "within --join_timeout=2 s: start all processes" in line for line in said), said
    assert "the other processes did not all come at --coordinator=localhost" in said[0]
    assert "process 0 was not reached at --coordinator=localhost" in said[1]
