"""Checkpoints: what is saved comes back bit for bit, and damage is never trained on."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import textwrap

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import tiny
from tml_jax.config import from_mapping
from tml_jax.train import checkpoint, init_from

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = from_mapping(tiny.get_config())


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    balance: dict
    opt_state: object


def make_state(step=0, width=300, seed=0):
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {
        "layer": {"kernel": jax.random.normal(keys[0], (width, 200)), "scale": jnp.ones(3, jnp.bfloat16)},
        "head": jax.random.normal(keys[1], (50, 4)),
    }
    balance = {"layer": jnp.full(4, 0.25)}
    return State(jnp.int32(step), params, balance, optax.adamw(1e-3, mu_dtype=jnp.bfloat16).init(params))


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture
def run(tmp_path):
    """A run directory with intact checkpoints of steps 10 and 20."""
    checkpoint.write_config(tmp_path, CONFIG)
    (tmp_path / checkpoint.TOKENIZER).write_text("{}")
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (10, 20):
            checkpoints.save(make_state(step, seed=step), {"next_step": step})
    return tmp_path


def latest(run_dir, state):
    with checkpoint.Checkpoints(run_dir, keep=2) as checkpoints:
        return checkpoints.restore_latest(abstract(state))


def bulk(run_dir, step):
    """The file that holds the weights of a checkpoint."""
    files = [path for path in (run_dir / "checkpoints" / str(step) / "model").rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_state_and_place_in_the_data_come_back_bit_for_bit(run):
    state, data = latest(run, make_state())
    assert_same(state, make_state(20, seed=20))
    assert data == {"next_step": 20}


def test_empty_run_has_no_checkpoint(tmp_path):
    assert latest(tmp_path, make_state()) is None


def test_state_may_be_donated_while_it_is_written(tmp_path):
    update = jax.jit(
        lambda s: s.replace(step=s.step + 1, params=jax.tree.map(lambda x: x * 1.5, s.params)), donate_argnums=0
    )
    state = make_state()
    with checkpoint.Checkpoints(tmp_path, keep=8) as checkpoints:
        expected = {}
        for _ in range(4):
            state = update(state)
            expected[int(state.step)] = np.array(state.params["layer"]["kernel"])
            checkpoints.save(state, {})
            state = update(state)
        for step in checkpoints.steps:
            _, _, variables = checkpoint_variables(tmp_path, step)
            np.testing.assert_array_equal(variables["params"]["layer"]["kernel"], expected[step])


def checkpoint_variables(run_dir, step=None):
    checkpoint.write_config(run_dir, CONFIG)
    (run_dir / checkpoint.TOKENIZER).write_text("{}")
    return checkpoint.restore_params_for_inference(run_dir, step)


def test_last_n_checkpoints_are_kept(tmp_path):
    with checkpoint.Checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(make_state(step), {})
        assert checkpoints.steps == [3, 4]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "4"]


def test_saving_a_step_again_does_nothing(run):
    with checkpoint.Checkpoints(run, keep=2) as checkpoints:
        checkpoints.save(make_state(20, seed=99), {"next_step": 99})
    state, data = latest(run, make_state())
    assert_same(state, make_state(20, seed=20))
    assert data == {"next_step": 20}


@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "missing"])
def test_damaged_latest_is_named_with_the_intact_step_before(run, damage):
    path = bulk(run, 20)
    if damage == "flipped bit":
        flip_bit(path)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        path.unlink()
    with pytest.raises(checkpoint.CheckpointError) as error:
        latest(run, make_state())
    assert str(run / "checkpoints" / "20") in str(error.value)
    assert "step 10 is intact" in str(error.value)
    with pytest.raises(checkpoint.CheckpointError, match="damaged"):
        checkpoint.restore_params_for_inference(run)


def test_a_damaged_earlier_step_is_not_called_intact(run):
    flip_bit(bulk(run, 10))
    flip_bit(bulk(run, 20))
    with pytest.raises(checkpoint.CheckpointError, match="no earlier checkpoint is intact"):
        latest(run, make_state())


def test_deleting_the_damaged_folder_resumes_from_the_step_before(run):
    import shutil

    shutil.rmtree(run / "checkpoints" / "20")
    state, data = latest(run, make_state())
    assert int(state.step) == 10 and data == {"next_step": 10}


def test_half_deleted_old_step_does_not_stop_a_resume(run):
    for path in (run / "checkpoints" / "10").iterdir():
        if path.is_file():
            path.unlink()
    state, _ = latest(run, make_state())
    assert int(state.step) == 20


def test_checkpoint_of_another_model_is_refused_with_both_shapes(run):
    with pytest.raises(checkpoint.CheckpointError, match=r"another model.*\(300, 200\).*\(301, 200\)"):
        latest(run, make_state(width=301))


def test_inference_reads_model_and_config_without_the_optimizer(run):
    flip_bit(max((run / "checkpoints/20/optimizer").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0))
    for directory in (run, run / "checkpoints", run / "checkpoints" / "20"):
        config, tokenizer, variables = checkpoint.restore_params_for_inference(directory)
        assert config == CONFIG
        assert tokenizer == run / "tokenizer.json"
        expected = make_state(20, seed=20)
        assert_same(variables, {"params": expected.params, "balance": expected.balance})
    _, _, variables = checkpoint.restore_params_for_inference(run, step=10)
    assert_same(variables["params"], make_state(10, seed=10).params)


def test_unknown_step_lists_the_steps_there_are(run):
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint of step 15.*there are 10, 20"):
        checkpoint.restore_params_for_inference(run, step=15)


def test_directory_without_checkpoints_is_refused(tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in"):
        checkpoint.restore_params_for_inference(tmp_path)


def test_init_from_loads_what_matches_and_reports_the_rest(run):
    fresh = make_state(seed=7)
    fresh.params["head"] = jnp.zeros((60, 4))
    fresh.params["added"] = jnp.full(2, 5.0)
    fresh = fresh.replace(balance={})
    state, report = init_from.init_from(run, fresh)
    assert set(report.loaded) == {"params/layer/kernel", "params/layer/scale"}
    assert dict(report.not_loaded) == {
        "params/head": "shape (50, 4) in the checkpoint, (60, 4) in the model",
        "params/added": "missing in the checkpoint",
    }
    assert report.unused == ("balance/layer",)
    assert_same(state.params["layer"], make_state(20, seed=20).params["layer"])
    assert_same(state.params["added"], fresh.params["added"])
    assert int(state.step) == 0
    assert_same(state.opt_state, fresh.opt_state)
    for name in ("params/head", "params/added", "balance/layer"):
        assert name in str(report)


def test_init_from_casts_to_the_new_runs_dtype(run):
    fresh = make_state(seed=7)
    fresh.params["head"] = fresh.params["head"].astype(jnp.bfloat16)
    state, _ = init_from.init_from(run, fresh)
    assert_same(state.params["head"], make_state(20, seed=20).params["head"].astype(jnp.bfloat16))


def test_init_from_another_kind_of_model_is_refused(run):
    fresh = make_state().replace(params={"other": jnp.zeros(2)}, balance={})
    with pytest.raises(checkpoint.CheckpointError, match="no array"):
        init_from.init_from(run, fresh)


def test_config_round_trips_through_the_run_directory(tmp_path):
    checkpoint.write_config(tmp_path, CONFIG)
    assert checkpoint.read_config(tmp_path) == CONFIG
    changed = ConfigDict(tiny.get_config())
    changed.train.steps = CONFIG.train.steps + 1
    assert checkpoint.read_config(tmp_path) != from_mapping(changed)


def test_restores_onto_another_mesh(run):
    """Saved on one device; 8 simulated devices restore it sharded, save it, and restore it on another mesh."""
    code = """
        import sys, jax, numpy as np
        from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P
        sys.path.insert(0, "tests/train")
        import test_checkpoint as t
        from tml_jax.train import checkpoint

        def on(mesh):
            def sharded(x):
                split = x.ndim == 2 and x.shape[0] % mesh.shape["fsdp"] == 0
                spec = P("fsdp") if split else P()
                return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
            return jax.tree.map(sharded, t.make_state())

        for shape, kind in (((2, 4), AxisType.Auto), ((4, 2), AxisType.Explicit)):
            mesh = jax.make_mesh(shape, ("data", "fsdp"), axis_types=(kind,) * 2)
            with checkpoint.Checkpoints(sys.argv[1], keep=3) as checkpoints:
                state, data = checkpoints.restore_latest(on(mesh))
                kernel = state.params["layer"]["kernel"]
                assert kernel.sharding.mesh.shape["fsdp"] == shape[1]
                assert kernel.addressable_shards[0].data.shape == (300 // shape[1], 200)
                local = jax.tree.map(np.asarray, state)
                expected = jax.tree.map(np.asarray, t.make_state(int(state.step), seed=20))
                jax.tree.map(np.testing.assert_array_equal, local, expected)
                checkpoints.save(state.replace(step=state.step + 1), data)
        print("steps", checkpoints.steps)
    """
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, "-c", textwrap.dedent(code), str(run)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "steps [20, 21, 22]" in done.stdout
    state, _ = latest(run, make_state())
    assert_same(dataclasses.replace(state, step=jnp.int32(20)), make_state(20, seed=20))
