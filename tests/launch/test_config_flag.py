"""The --config flag: every field has its override, and what is wrong is one line that names it."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOW = """
from absl import app
from launch import config_flag
def main(argv):
    config = config_flag.get()
    print(config.train.steps, config.train.keep, config.data.video_grid, config.model.log_scaling_floor,
          config.data.generate["scenes"], config.train.init_from)
app.run(main, flags_parser=config_flag.parse)
"""


def show(*arguments):
    return subprocess.run([sys.executable, "-c", SHOW, *arguments], cwd=ROOT, capture_output=True, text=True)


def test_fields_that_the_file_does_not_mention_can_be_changed_too():
    done = show(
        "--config=configs/tiny.py", "--config.train.steps=7", "--config.train.keep=3", "--config.data.video_grid=2,3",
        "--config.model.log_scaling_floor=50", "--config.data.generate.scenes=5", "--config.train.init_from=runs/a",
    )  # fmt: skip
    assert done.stdout.split("\n")[0] == "7 3 (2, 3) 50 5 runs/a", done.stderr


def test_without_overrides_the_file_holds():
    assert show("--config", "configs/tiny.py").stdout.startswith("40 2 (1, 1) None 28")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--config=configs/none.py"], "--config=configs/none.py: no such file"),
        (["--config=configs/__init__.py"], "has no function get_config"),
        (["--config=configs/tiny.py", "--config.train.stepz=3"], "--config.train.stepz: no such field; there are"),
        (["--config=configs/tiny.py", "--config.train.steps=many"], "config.train.steps=many: expected a whole number"),
        (["--config=configs/tiny.py", "--config.train.learning_rate=high"], "expected a number, not 'high'"),
        (["--config=configs/tiny.py", "--stepz=3"], "stepz"),
        (["--config"], "--config needs a file"),
    ],
)
def test_wrong_flag_is_one_line_and_exit_code_2(arguments, message):
    done = show(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().split("\n")) == 1


INTERRUPTED = """
import atexit, os, signal, sys
from launch import config_flag
atexit.register(print, "taken down")
def main(argv):
    print("working")
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        config_flag.interrupted("test", "nothing is kept")
    finally:
        print("tidied up")
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where a shell runs this behind its back
config_flag.run(main)
"""


def test_after_ctrl_c_a_command_says_all_it_has_to_say_and_takes_nothing_down_that_compiles():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "working\ntidied up\n", done.stderr
    assert done.stderr == "launch.test: stopped by Ctrl-C; nothing is kept\n"
    assert done.returncode == 130
