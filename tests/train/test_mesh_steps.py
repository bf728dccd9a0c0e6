"""The train step: the same on every mesh."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = pathlib.Path(__file__).with_name("mesh_steps.py")


def on_meshes(*meshes: dict[str, int]) -> list[dict]:
    """What each mesh gave, one device first; see mesh_steps.py."""
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    command = [sys.executable, str(PROGRAM), json.dumps([{}, *meshes])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def check_equal_on(*meshes: dict[str, int]) -> None:
    one, *others = on_meshes(*meshes)
    assert [figures["finite"] for figures in one["figures"]] == [1, 1, 1]
    for run in others:
        for found, wanted in zip(run["figures"], one["figures"], strict=True):
            for name in wanted:
                assert found[name] == pytest.approx(wanted[name], rel=1e-5), (run["axes"], name)
        assert run["balance"] == one["balance"]
        assert run["gradient_error"] < 2e-5, run["axes"]
        split = np.prod([run["axes"].get(axis, 1) for axis in ("fsdp", "expert", "sequence", "tensor")])
        assert run["share_of_experts_on_a_device"] == 1 / split
        assert run["cut"] >= 4 * (run["axes"].get("sequence", 1) - 1)


@pytest.mark.parametrize("axis", ["tensor", pytest.param("sequence", marks=pytest.mark.slow)])
def test_the_steps_of_a_run_are_the_same_on_one_device_and_on_eight(axis):
    check_equal_on({"fsdp": 2, "expert": 2, axis: 2})


@pytest.mark.slow
def test_the_steps_of_a_run_are_the_same_however_its_rows_are_cut():
    """A window of 32 elements reaches into a neighbour (stripes of 72 and 36) or past it (18)."""
    meshes = [{"sequence": 8}, {"sequence": 2, "data": 2, "tensor": 2}]
    meshes += [{"sequence": 4, "expert": 2, "transport": transport} for transport in ("ragged", "ring")]
    meshes += [{"sequence": 4, "expert": 2, "transport": "capacity", "capacity": 4.0}]
    check_equal_on(*meshes)


@pytest.mark.slow
def test_the_steps_of_a_run_are_the_same_on_every_mesh():
    meshes = {"data": 8}, {"fsdp": 8}, {"data": 2, "expert": 4}, {"data": 4, "tensor": 2}, {"fsdp": 4, "tensor": 2}
    check_equal_on(*meshes)
