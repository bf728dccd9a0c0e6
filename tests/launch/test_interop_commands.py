"""The commands that take weights in and out, as a user gives them."""

import dataclasses
import subprocess
import sys

import pytest
from releases import make_release
from small import SMALL

from tml_jax.interop.inkling_config import PLANNED_STAGES
from tml_jax.interop.tensor_files import read_tensors

# Its four experts do not divide the mesh of the preset, which the command takes the other settings from.
MODEL = dataclasses.replace(SMALL, vision_stages=(*PLANNED_STAGES[2], (2, 40, 40, SMALL.d_model)))


def command(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", f"launch.{name}", *arguments], capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands")
    make_release(folder / "hf", MODEL)
    ended = command("convert", f"--source={folder / 'hf'}", f"--target={folder / 'run'}")
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout


def test_a_release_comes_in_without_a_configuration_and_goes_out_again(converted):
    folder, said = converted
    assert "initialised: params/flow/" in said and f"--config.train.init_from={folder / 'run'}" in said
    ended = command("export", f"--checkpoint={folder / 'run'}", "--format=transformers", f"--output={folder / 'back'}")
    assert ended.returncode == 0, ended.stderr
    for name, tensor in read_tensors(folder / "hf").items():
        assert (read_tensors(folder / "back")[name].read() == tensor.read()).all(), name


def test_what_is_wrong_ends_a_command_with_a_line_for_each_thing(converted, tmp_path):
    folder, _ = converted
    wrong = tmp_path / "hf"
    wrong.mkdir()
    (wrong / "config.json").write_text("[]")
    ended = command("convert", f"--source={wrong}", f"--target={tmp_path / 'run'}")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    assert "model_type = []: expected 'inkling_mm_model'" in ended.stderr
    ended = command(
        "export", f"--checkpoint={folder / 'run'}", "--format=onnx", f"--output={tmp_path / 'out'}", "--dtype=float16"
    )
    assert ended.returncode == 1 and "--dtype is for --format=transformers, not for onnx" in ended.stderr
    ended = command("convert", f"--source={wrong / 'config.json'}", f"--target={tmp_path / 'run'}")
    assert ended.returncode == 1 and "config.json is a file: give the folder" in ended.stderr
    ended = command("convert", f"--source={folder / 'hf'}", f"--target={wrong / 'config.json' / 'run'}")
    assert ended.returncode == 1 and "config.json is a file" in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists() and not (tmp_path / "run").exists()


# The command itself, with a Ctrl-C (SIGINT) after a few tensors.
CTRL_C = """
import os, runpy, signal, sys
from tml_jax.interop import convert
left = 5
done = convert.Journal.add
def add(self, name, sums):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGINT)
    done(self, name, sums)
convert.Journal.add = add
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell runs this behind its back
sys.argv = ["convert", *sys.argv[1:]]
runpy.run_module("launch.convert", run_name="__main__")
"""


def test_ctrl_c_ends_a_conversion_with_a_line_and_the_same_command_goes_on(converted, tmp_path):
    folder, _ = converted
    run = tmp_path / "run"
    arguments = f"--source={folder / 'hf'}", f"--target={run}"
    ended = subprocess.run([sys.executable, "-c", CTRL_C, *arguments], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr, ended.stderr
    assert "launch.convert: interrupted; the same command goes on" in ended.stderr
    assert not (run / "checkpoints").exists()
    ended = command("convert", *arguments)
    assert ended.returncode == 0 and (run / "checkpoints" / "0").is_dir(), ended.stderr


@pytest.mark.parity
def test_a_converted_release_is_the_reference(converted):
    pytest.importorskip("transformers.models.inkling")
    folder, _ = converted
    for arguments in ((), (f"--reference={folder / 'hf'}",)):
        ended = command("eval", "--suite=parity", f"--checkpoint={folder / 'run'}", *arguments)
        assert ended.returncode == 0, ended.stderr
        assert "comparisons agree" in ended.stdout
