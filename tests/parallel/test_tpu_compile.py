"""Compiling ahead of time for real TPUs, none of which is here: what XLA refuses or what runs out of memory shows."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HBM = {"TPU v5 lite": 16 * 2**30}  # bytes of memory of a chip

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu (in the test extra)"
)


def compile_for(topology: str, what: str, config: str, axes: dict[str, int], **model) -> dict:
    environment = dict(
        os.environ, JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )  # fmt: skip
    command = [
        sys.executable,
        str(HERE / "compile_for_tpu.py"),
        what,
        config,
        topology,
        json.dumps(axes),
        json.dumps(model),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_micro_turn_compiles_for_a_tpu():
    found = compile_for("v5e:2x2", "micro_turn", "configs/tiny.py", {"data": -1})
    assert found["kind"] == "TPU v5 lite" and found["devices"] == 4
    assert 0 < found["argument_bytes"] + found["temporary_bytes"] < HBM[found["kind"]]


def check_step(**model) -> None:
    found = compile_for("v5e:2x4", "step", "configs/tiny.py", {"fsdp": 2, "expert": 2, "tensor": 2}, **model)
    assert found["kind"] == "TPU v5 lite" and found["devices"] == 8
    assert {"all-reduce", "all-gather"} <= set(found["collectives"])
    assert 0 < found["argument_bytes"] + found["temporary_bytes"] < HBM[found["kind"]]


def test_the_train_step_compiles_for_tpus_and_talks_between_them():
    check_step(num_layers=2)  # a dense sliding and a sparse global one


@pytest.mark.slow
def test_the_train_step_with_every_kind_of_layer_compiles_for_tpus():
    check_step(num_layers=8)  # scanned, too


@pytest.mark.slow
@pytest.mark.parametrize("what", ["step", "micro_turn"])
def test_the_replica_compiles_for_tpus(what):
    found = compile_for("v5e:2x4", what, "configs/replica.py", {"data": 2, "fsdp": 2, "expert": 2})
    assert found["argument_bytes"] + found["temporary_bytes"] < HBM[found["kind"]]
