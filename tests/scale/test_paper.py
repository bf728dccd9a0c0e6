"""Arithmetic on sizes that can be checked in the head."""

import dataclasses
import subprocess
import sys

import pytest
from small import SMALL, small_config

from configs import tml_interaction_small
from tml_jax.config import from_mapping
from tml_jax.scale import paper

FLAGSHIP = from_mapping(tml_interaction_small.get_config())
RATES = paper.Rates(speaking=0.5, words=2.0, tokens_per_word=1.25)


def test_keys_and_values_of_the_flagship():
    growing, windows = paper.kv_bytes(FLAGSHIP.model)
    assert growing == 7 * 2 * 8 * 128 * 2  # seven global layers, keys and values, eight heads of 128 in two bytes
    assert windows == 37 * 2 * 8 * 128 * 2 * 512


def test_elements_of_a_second():
    # five times a second: time and four of audio, the gate, and half of the time four of sound and half a token
    assert paper.elements_per_second(FLAGSHIP, RATES, frames=False) == pytest.approx(5 * (5 + 1 + 0.5 * 4.5))
    extra = paper.elements_per_second(FLAGSHIP, RATES, True) - paper.elements_per_second(FLAGSHIP, RATES, False)
    assert extra == pytest.approx(5 * 12)


def test_a_session_grows_until_its_context_is_full():
    growing, windows = paper.kv_bytes(SMALL)
    config = small_config(context=400)
    rate = paper.elements_per_second(config, RATES, frames=False)
    assert paper.session_bytes(config, RATES, 0.1, False) == pytest.approx(growing * 6 * rate + windows)
    assert paper.session_bytes(config, RATES, 600, False) == growing * 400 + windows


def test_checkpoints_and_data():
    assert paper.state_bytes(FLAGSHIP.model) == pytest.approx(2.77e12, rel=0.01)
    assert paper.checkpoint_seconds(FLAGSHIP.model, 512, paper.Rates(host_write=1e9)) == pytest.approx(21.6, rel=0.01)
    one_row = dataclasses.replace(FLAGSHIP, data=dataclasses.replace(FLAGSHIP.data, batch_size=1))
    day = paper.data_bytes_per_day(one_row, RATES, step_seconds=86_400)
    assert day["hours"] == pytest.approx(5120 / 4 * 0.2 / 3600)
    assert day["sound_bytes"] == pytest.approx(2 * (16_000 * 256 + 24_000 * 102.4))
    assert day["video_bytes"] == pytest.approx(1024 / 12 * 2 * 20e3)


def test_replicas_are_whole():
    assert paper.chips_for_sessions(1000, 300, 16) == 4 * 16
    assert paper.chips_for_sessions(900, 300, 16) == 3 * 16


def test_the_command_prints_them():
    arguments = ["--config=configs/tml_interaction_small.py", "--step_seconds=10", "--sessions_per_replica=300"]
    done = subprocess.run([sys.executable, "-m", "launch.scale", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "checkpoint: 2.77 TB" in done.stdout and "1000 concurrent sessions: 64 chips" in done.stdout
