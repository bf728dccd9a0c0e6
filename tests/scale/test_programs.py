"""What is read from compiled programs, and how the cost of all layers follows from that of few."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from small import small_config

from tml_jax.config import Config, ConfigError
from tml_jax.scale.chips import chip_of
from tml_jax.scale.collectives import bytes_sent, collective_bytes
from tml_jax.scale.programs import Cost, DoesNotFit, Figures, Memory, layer_costs, sizes_in
from tml_jax.scale.report import advice

HLO = """
  %gathered = bf16[64,128]{1,0} all-gather(bf16[8,128]{1,0} %x), channel_id=1, replica_groups=[8,8]<=[64]
  %started = (f32[16]{0}, f32[128]{0}) all-gather-start(f32[16]{0} %y), channel_id=2
  %done = f32[128]{0} all-gather-done((f32[16]{0}, f32[128]{0}) %started)
  %summed = (f32[10]{0}, f32[6]{0}) all-reduce(f32[10]{0} %a, f32[6]{0} %b), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %moved = s8[2,3]{1,0} all-to-all(s8[2,3]{1,0} %z), replica_groups={{0,4}}, dimensions={0}
  %more = (f32[2]{0}, f32[3]{0}, f32[4]{0}, f32[5]{0}, f32[6]{0}, /*index=5*/f32[7]{0}) all-reduce(%a, %b, %c, %d, %e, /*index=5*/%f), replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, to_apply=%add
  %both = ((f32[4]{0}, f32[2]{0}), (f32[16]{0}, f32[8]{0})) all-gather-start(%g, %h), replica_groups=mesh['a'=2,'b'=2] {'a','b'}
  %other = f32[999]{0} fusion(f32[999]{0} %w), calls=%all-gather.clone

%all-reduce-scatter.3 (input.1: f32[64,8]) -> f32[8,8] {
  %input.1 = f32[64,8]{1,0} parameter(0)
  %all-reduce.9 = f32[64,8]{1,0} all-reduce(f32[64,8]{1,0} %input.1), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %kept = f32[8,8]{1,0} dynamic-slice(f32[64,8]{1,0} %all-reduce.9, s32[] %i), dynamic_slice_sizes={8,8}
}

%all-reduce-scatter.4 (a: f32[64], b: f32[32]) -> (f32[32], f32[16]) {
  %all-reduce.10 = (f32[64]{0}, f32[32]{0}) all-reduce(%a, %b), replica_groups={{0,2},{1,3}}, to_apply=%add
}
"""  # noqa: E501 - as XLA writes them


def test_collectives_are_counted_once_by_kind():
    assert collective_bytes(HLO) == {
        "all-gather": 64 * 128 * 2 + 128 * 4 + 24 * 4,
        "all-reduce": 64 + 27 * 4,
        "all-to-all": 6,
        "reduce-scatter": 8 * 8 * 4 + 48 * 4,
    }


def test_what_a_ring_sends_follows_from_the_kind_and_the_group():
    started = 128 * 4  # its group stands nowhere: the most that a ring can send
    gathered, summed, moved, scattered = 64 * 128 * 2 * 7 / 8, 2 * 64 * 3 / 4, 6 / 2, 8 * 8 * 4 * 7
    of_tuples = 2 * 27 * 4 * 3 / 4 + 24 * 4 * 3 / 4 + 48 * 4 * 1
    assert bytes_sent(HLO) == pytest.approx(started + gathered + summed + moved + scattered + of_tuples)
    with pytest.raises(ValueError, match="unknown form"):
        bytes_sent("%a = f32[8]{0} all-reduce(%b), replica_groups=<<0>>, to_apply=%add")
    with pytest.raises(ValueError, match="unknown axis"):
        bytes_sent("%a = f32[8]{0} all-reduce(%b), replica_groups=mesh['x'=2] {'y'}, to_apply=%add")


def test_the_cost_of_all_layers_follows_from_three_programs():
    config = small_config()  # layers 1, 3, 5 and 7 attend globally; layer 0 is dense
    seen = []

    def cost_at(shallow: Config) -> Cost:
        model = shallow.model
        kinds = [model.is_global(layer) for layer in range(model.num_layers)]
        seen.append(kinds)
        sliding, all_ = float(kinds.count(False)), float(kinds.count(True))
        return Cost(5 + 2 * sliding, 1 + all_, 3 * sliding + all_, all_, {"all-gather": 7 * sliding}, sliding)

    layers = layer_costs(config, cost_at)
    assert seen == [[False], [False, False], [False, True]]
    assert {kind: count for kind, (count, _) in layers.items()} == {"rest": 1, "sliding": 3, "global": 4}
    cost = Figures(Memory(1, 1, 1, 1), layers, 1.0).cost
    assert cost == Cost(5 + 2 * 4, 1 + 4, 3 * 4 + 4, 4, {"all-gather": 7 * 4}, 4)


def compile_command(*arguments: str) -> subprocess.CompletedProcess:
    environment = dict(os.environ, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    command = [sys.executable, "-m", "launch.compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)


def test_wrong_topologies_flags_and_what_does_not_divide_are_named():
    done = compile_command("--config=configs/tiny.py", "--topology=v9:2x2")
    assert done.returncode == 2 and "known are v5e, v5p, v6e, tpu7x" in done.stderr
    for shape in ("8x8", "8x8x0", "1000x1000x1000"):
        with pytest.raises(ConfigError, match="a shape of v5p is 3 numbers from 1 on, such as v5p:4x4x4, with at most"):
            chip_of(f"v5p:{shape}")
    done = compile_command("--config=configs/tiny.py", "--topology=v5e:2x2")
    assert done.returncode == 2 and "needs 1 devices, there are 4" in done.stderr
    done = compile_command("--config=configs/tiny.py", "--topology=v5e:2x2", "--step=serve", "--search")
    assert done.returncode == 2 and "--search is for --step=train" in done.stderr


def compiled(step: str, output: pathlib.Path, *changes: str, config: str = "tiny", devices: int = 4) -> dict:
    arguments = ["--config.mesh.fsdp=2", "--config.mesh.expert=2", "--config.serve.mesh.expert=2",
                 "--config.serve.mesh.tensor=2", "--config.data.batch_size=4", *changes]  # fmt: skip
    done = compile_command(
        f"--config=configs/{config}.py", "--topology=v5e:2x2", f"--step={step}", f"--output={output}", *arguments
    )
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(output.read_text())
    assert 0 < report["hbm_bytes_per_device"] < report["hbm_bytes_available"]
    assert 0 < report["optimal_seconds"] < 1 and report["flops"] > 0 and report["devices"] == devices
    return report


def test_a_micro_turn_compiles_for_tpus(tmp_path):
    report = compiled("serve", tmp_path / "report.json", "--config.model.num_layers=2")
    assert report["collective_bytes"]["all-reduce"] > 0
    assert set(report["optimal_seconds_by_part"]) == {"input", "text", "audio"}
    assert report["flops"] == pytest.approx(report["analytic_flops"], rel=0.1)


def test_a_train_step_compiles_for_tpus(tmp_path):
    report = compiled("train", tmp_path / "report.json", "--config.model.num_layers=2")
    assert report["mesh"] == {"data": 1, "fsdp": 2, "expert": 2, "sequence": 1, "tensor": 1}
    assert report["flops"] == pytest.approx(report["analytic_flops"], rel=0.1) and report["mfu"] is not None
    assert 0 < report["sent_bytes"] < 4 * sum(report["collective_bytes"].values())


@pytest.mark.slow
def test_a_train_step_on_long_rows_compiles_for_tpus(tmp_path):
    changes = "--config.model.num_layers=2", "--config.mesh.fsdp=1", "--config.mesh.sequence=2"
    report = compiled("train", tmp_path / "report.json", *changes)
    assert report["mesh"]["sequence"] == 2 and report["collective_bytes"]["collective-permute"] > 0


@pytest.mark.slow
def test_slices_lie_along_the_data_axis(tmp_path):
    many = "--slices=2", "--config.model.num_layers=1", "--config.mesh.data=2", "--config.data.batch_size=8"
    report = compiled("train", tmp_path / "report.json", *many, devices=8)
    assert report["mesh"]["data"] == 2 and report["slices"] == 2
    wrong = "--config.mesh.fsdp=8", "--config.data.batch_size=8"
    done = compile_command("--config=configs/tiny.py", "--topology=v5e:2x2", "--slices=2", *wrong)
    assert done.returncode == 2 and "there are 2 slices, and they must divide it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["ring", "ragged", "capacity"])
def test_a_train_step_with_every_kind_of_layer_compiles_with_every_transport(transport, tmp_path):
    changes = f"--config.mesh.transport={transport}", "--config.mesh.capacity=2.0"
    compiled("train", tmp_path / "report.json", "--config.model.num_layers=8", *changes)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["train", "serve"])
def test_the_replica_compiles_for_tpus(step, tmp_path):
    compiled(step, tmp_path / "report.json", config="replica")


@pytest.mark.parametrize(
    "message,needed,available",
    [
        ("Ran out of memory in memory space hbm. Used 103.50G of 95.74G hbm. Exceeded by 7.76G.", 103.5, 95.74),
        ("RESOURCE_EXHAUSTED: required for HLO temporaries (122.62G) exceeds available HBM (95.73G)", 122.62, 95.73),
        ("RESOURCE_EXHAUSTED: something new", None, None),
    ],
)
def test_what_does_not_fit_is_read_from_the_words_of_the_compiler(message, needed, available):
    found = sizes_in(message)
    assert found == (needed and int(needed * 2**30), available and int(available * 2**30))
    told = advice(DoesNotFit(message, *found), small_config(), "serve")
    assert "config.serve.weights=int8" in told and ("GiB" in told) == (needed is not None)
