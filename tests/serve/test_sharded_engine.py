"""An engine over many devices: sessions come and go, nothing compiles, and they are what they are on one device."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from small import small_config
from trained_run import make_run

from tml_jax.config import MeshConfig
from tml_jax.serve.engine import Engine
from tml_jax.serve.program import load_model
from tml_jax.serve.windows import Arrived

TURNS = 6


def talk(engine: Engine, audio: np.ndarray) -> list:
    """The micro-turns of one session, while another comes and goes."""
    slot, turns = engine.join(3), []
    for index, part in enumerate(audio.reshape(-1, 3200)):
        if index == 2:
            other = engine.join(4)
        inputs = {slot: Arrived(part)} | ({other: Arrived(part)} if 2 <= index < 4 else {})
        if index == 4:
            engine.leave(other)
        turns.append(engine.tick(inputs).turns[slot])
    engine.leave(slot)
    return turns


def main(run: str, audio: str, out: str) -> None:
    engine = Engine(load_model(run), 2)
    engine.warm_up()
    turns, again = talk(engine, np.load(audio)), talk(engine, np.load(audio))
    for one, other in zip(turns, again, strict=True):
        assert (one.gate, one.text) == (other.gate, other.text)
        np.testing.assert_array_equal(one.samples, other.samples)
    assert engine.recompilations == 0, engine.recompilations
    np.savez(out, mel=turns[0].mel, gate=turns[0].gate, text=turns[0].text)


@pytest.mark.slow
def test_eight_devices_say_what_one_says_with_sessions_that_come_and_go(tmp_path, small_variables):
    config = small_config()
    audio = np.random.default_rng(0).standard_normal(TURNS * 3200).astype(np.float32) * 0.1
    np.save(tmp_path / "audio.npy", audio)
    alone = Engine(load_model(make_run(tmp_path / "one", config, small_variables)), 2)
    serve = dataclasses.replace(config.serve, mesh=MeshConfig(expert=4, tensor=2))
    run = make_run(tmp_path / "eight", dataclasses.replace(config, serve=serve), small_variables)
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    code = "import sys; from test_sharded_engine import main; main(*sys.argv[1:])"
    environment["PYTHONPATH"] = os.pathsep.join([*filter(None, sys.path), os.environ.get("PYTHONPATH", "")])
    arguments = [sys.executable, "-c", code, str(run), str(tmp_path / "audio.npy"), str(tmp_path / "said.npz")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    first = talk(alone, audio)[0]
    with np.load(tmp_path / "said.npz") as found:
        # The first alone: own sound goes back in by levels, and one that lies between two may fall to the other.
        assert (str(found["gate"]), str(found["text"])) == (first.gate, first.text) and first.gate == "SPEAK"
        np.testing.assert_allclose(found["mel"], first.mel, atol=1e-4)
