"""What is read from compiled programs, and how the cost of all layers follows from that of few."""

import dataclasses
import json
import subprocess
import sys

import pytest
from small import small_config

from tml_jax.scale.programs import Cost, collective_bytes, full_cost

HLO = """
  %gathered = bf16[64,128]{1,0} all-gather(bf16[8,128]{1,0} %x), channel_id=1, replica_groups=[8,8]<=[64]
  %started = (f32[16]{0}, f32[128]{0}) all-gather-start(f32[16]{0} %y), channel_id=2
  %done = f32[128]{0} all-gather-done((f32[16]{0}, f32[128]{0}) %started)
  %summed = (f32[10]{0}, f32[6]{0}) all-reduce(f32[10]{0} %a, f32[6]{0} %b), to_apply=%add
  ROOT %moved = s8[2,3]{1,0} all-to-all(s8[2,3]{1,0} %z), dimensions={0}
  %other = f32[999]{0} fusion(f32[999]{0} %w), calls=%all-gather.clone
"""


def test_collectives_are_counted_once_by_kind():
    assert collective_bytes(HLO) == {"all-gather": 64 * 128 * 2 + 128 * 4, "all-reduce": 64, "all-to-all": 6}


def test_the_cost_of_all_layers_follows_from_two_depths():
    config = small_config()
    deep = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=12, global_every=3))
    depths = []

    def cost_at(shallow):
        depths.append(shallow.model.num_layers)
        layers = float(shallow.model.num_layers)
        return Cost(5 + 2 * layers, 1 + layers, 3 * layers, layers, {"all-gather": 7 * layers})

    cost = full_cost(deep, cost_at)
    assert depths == [3, 6]  # the first period, which has the dense layer; and one more
    assert cost == Cost(5 + 2 * 12, 1 + 12, 3 * 12, 12, {"all-gather": 7 * 12})


def compile_command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "launch.compile", *arguments], capture_output=True, text=True, timeout=900
    )


def test_wrong_topologies_and_what_does_not_divide_are_named():
    done = compile_command("--config=configs/tiny.py", "--topology=v9:2x2")
    assert done.returncode == 1 and "known are v5e, v5p, v6e, tpu7x" in done.stderr
    done = compile_command("--config=configs/tiny.py", "--topology=v5e:2x2")
    assert done.returncode == 1 and "needs 1 devices, there are 4" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train", "serve"])
def test_a_small_model_is_compiled_and_its_operations_agree_with_the_count(step, tmp_path):
    output = tmp_path / "report.json"
    arguments = ["--config.mesh.fsdp=2", "--config.mesh.expert=2", "--config.mesh.transport=capacity",
                 "--config.mesh.capacity=1.0", "--config.serve.mesh.expert=2", "--config.serve.mesh.tensor=2",
                 "--config.data.batch_size=4"]  # fmt: skip
    done = compile_command(
        "--config=configs/tiny.py", "--topology=v5e:2x2", f"--step={step}", f"--output={output}", *arguments
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(output.read_text())
    assert 0 < report["hbm_bytes_per_device"] < report["hbm_bytes_available"]
    assert report["optimal_seconds"] > 0 and report["flops"] > 0
    if step == "train":
        assert report["collective_bytes"]["all-gather"] > 0
