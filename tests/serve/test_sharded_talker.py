"""A model that is laid over many devices says what it says on one."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
from small import small_config
from trained_run import make_run

from tml_jax.config import MeshConfig
from tml_jax.serve.session import Talker

TALK = """
import sys
import jax, numpy as np
from tml_jax.serve.session import Talker
talker = Talker(sys.argv[1])
assert len(jax.devices()) == 8
experts = talker.variables["params"]["backbone"]["layer_7"]["moe"]["expert_gate"]
assert experts.addressable_shards[0].data.size * 8 == experts.size, experts.sharding
turns = list(talker.talk(np.load(sys.argv[2])))
np.savez(sys.argv[3], samples=[turn.samples for turn in turns], said=[turn.gate + turn.text for turn in turns])
"""


@pytest.mark.slow  # `test_sharded_engine` is the small case of it
def test_eight_devices_say_what_one_says(tmp_path, small_variables):
    config = small_config()
    audio = np.random.default_rng(0).standard_normal(6 * 3200).astype(np.float32) * 0.1
    np.save(tmp_path / "audio.npy", audio)
    alone = list(Talker(make_run(tmp_path / "one", config, small_variables)).talk(audio))
    serve = dataclasses.replace(config.serve, mesh=MeshConfig(expert=4, tensor=2))
    run = make_run(tmp_path / "eight", dataclasses.replace(config, serve=serve), small_variables)
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    arguments = [sys.executable, "-c", TALK, str(run), str(tmp_path / "audio.npy"), str(tmp_path / "said.npz")]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(tmp_path / "said.npz") as found:
        assert list(found["said"]) == [turn.gate + turn.text for turn in alone]
        assert any(turn.gate == "SPEAK" for turn in alone)
