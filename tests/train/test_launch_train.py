"""launch.train: the whole way in one command."""

import os
import subprocess
import sys

import pytest
from noise_runs import ROOT

from tml_jax.train import checkpoint

# In place of the evaluation (test_main_path.py runs it), a line that shows that it got the run that was just trained.
COMMAND = """
import sys, types
from absl import app
from launch import config_flag, train
from tml_jax import eval
from tml_jax.train import checkpoint
def evaluate(run_dir, config):
    checkpoint.restore_params_for_inference(run_dir)
    return f"| table of {config.name} |"
eval.replica = sys.modules["tml_jax.eval.replica"] = types.SimpleNamespace(evaluate=evaluate)
app.run(train.main, flags_parser=config_flag.parse)
"""


def launch(*arguments):
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", COMMAND, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_one_command_trains_evaluates_and_says_where_the_model_is(data, config, tmp_path):
    flags = ["--config=configs/tiny.py", f"--config.data.directory={data}", f"--run_dir={tmp_path}"]
    for name in ("steps", "warmup_steps", "checkpoint_every", "eval_every", "eval_batches", "log_every"):
        flags.append(f"--config.train.{name}={getattr(config.train, name)}")
    done = launch(*flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().split("\n")
    assert lines[-3:-1] == ["| table of tiny |", f"model: {tmp_path} (step 12)"]
    assert lines[-1].startswith(f"talk:  python -m launch.talk --checkpoint={tmp_path}")
    assert sum(line.startswith("step ") for line in lines) == 7  # the first, and every second

    damaged = max((tmp_path / "checkpoints" / "12" / "model").rglob("*"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(b"")
    again = launch(*flags)
    assert again.returncode == 1
    assert "step 8 is intact" in again.stderr and "Traceback" not in again.stderr
    assert (tmp_path / checkpoint.TOKENIZER).exists()


def test_wrong_configuration_is_one_line_and_exit_code_2(tmp_path):
    done = launch("--config=configs/tiny.py", "--config.train.keep=0", f"--run_dir={tmp_path / 'run'}")
    assert done.returncode == 2
    assert done.stderr.strip() == "launch.train: config.train.keep = 0: must be greater than 0, and finite"
    assert not (tmp_path / "run").exists()
