"""Scale on paper: bytes of data, checkpoints and sessions, and chips for many sessions.

  python -m launch.scale --config=configs/tml_interaction_small.py --step_seconds=10 --chips=512
  python -m launch.scale --config=configs/tml_interaction_small.py --sessions_per_replica=400 --chips_per_replica=16

The two times and counts that arithmetic cannot know come from `launch.compile`.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported: this is arithmetic, and leaves a TPU to others

import math
from collections.abc import Sequence

from absl import app, flags

from launch import config_flag
from tml_jax.config import ConfigError
from tml_jax.scale import paper

_STEP_SECONDS = flags.DEFINE_float("step_seconds", None, "Time of a train step.")
_CHIPS = flags.DEFINE_integer("chips", 512, "Chips that train.", lower_bound=1)
_PER_REPLICA = flags.DEFINE_integer("sessions_per_replica", None, "Sessions that one replica serves.", lower_bound=1)
_CHIPS_PER_REPLICA = flags.DEFINE_integer("chips_per_replica", 16, "Chips of one replica.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Prints the arithmetic, a line for each figure."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        if _STEP_SECONDS.value is not None and not 0 < _STEP_SECONDS.value < math.inf:
            raise ConfigError(f"--step_seconds={_STEP_SECONDS.value}: must be above 0, and a number")
        config = config_flag.get()
    except ConfigError as error:
        config_flag.refuse("scale", error)
    rates = paper.Rates()
    print(f"assumed: {rates}")
    growing, windows = paper.kv_bytes(config.model)
    print(f"keys and values: {growing / 1e3:.1f} kB an element in global layers, {windows / 1e6:.1f} MB in windows")
    for name, frames in (("audio", False), ("audio and video", True)):
        rate = paper.elements_per_second(config, rates, frames)
        minute = 60 * rate * growing
        full = paper.session_bytes(config, rates, float("inf"), frames)
        minutes = config.serve.context / rate / 60
        print(
            f"a session of {name}: {rate:.1f} elements/s, {minute / 1e6:.1f} MB a minute, at most {full / 1e6:.0f} MB "
            f"(context full after {minutes:.1f} min)"
        )
    state = paper.state_bytes(config.model)
    seconds = paper.checkpoint_seconds(config.model, _CHIPS.value, rates)
    print(f"checkpoint: {state / 1e12:.2f} TB, {seconds:.0f} s from {_CHIPS.value} chips")
    if _STEP_SECONDS.value:
        day = paper.data_bytes_per_day(config, rates, _STEP_SECONDS.value)
        print(
            f"data of a day: {day['hours'] / 1e3:.1f} thousand hours of audio, {day['sound_bytes'] / 1e12:.2f} TB of "
            f"sound, {day['video_bytes'] / 1e12:.2f} TB of video"
        )
    if _PER_REPLICA.value:
        for sessions in (1000, 100_000):
            chips = paper.chips_for_sessions(sessions, _PER_REPLICA.value, _CHIPS_PER_REPLICA.value)
            print(f"{sessions} concurrent sessions: {chips} chips")


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
