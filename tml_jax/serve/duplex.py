"""This project's own events (`?duplex=1`): sound with its place in time, and every micro-turn as it is.

The client sends `duplex.input` with `offset` (number of the first sample since it began) and `audio` (base64, PCM16 at
16 kHz), in any order and as soon as it can, and `conversation.item.create` with text and pictures. From the first input
on the server sends a `duplex.micro_turn` every 200 ms, silent ones too: its `audio` (base64, PCM16 at 24 kHz, 4,800
samples) is heard in the window after. `index` counts windows; in an overload the server passes over some. Sound that
has not arrived in time is marked for the model as lost. Its `tasks` are what has happened to the model's tasks for the
background (`background.tasks.TaskEvent`) since the micro-turn before, `results` the pieces of results that it begins to
read in this one (`background.grammar`), `notices` what the server says of itself (`notices`).
"""

import base64
import dataclasses

from tml_jax.config import PATCH, Config
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.protocol import DUPLEX
from tml_jax.serve.realtime_objects import Object
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.sound_formats import SoundError, from_pcm16, sound_bytes, to_pcm16
from tml_jax.serve.words import MicroTurn


class DuplexDialogue(Dialogue):
    """The state of one connection that speaks in micro-turns."""

    known = DUPLEX

    def __init__(self, live: LiveSession, model: str, config: Config) -> None:
        """See `Dialogue`."""
        super().__init__(live, model, config)
        rows, columns = (cells * size for cells, size in zip(config.data.video_grid, PATCH[1:3]))
        rates = {"input_rate": 16_000, "output_rate": 24_000, "micro_turn_ms": 200}
        self.session["duplex"] = {**rates, "video": {"width": columns, "height": rows}}

    def micro_turn(self, turn: MicroTurn) -> list[Object]:
        """The one event of what the model put out."""
        sound = base64.b64encode(to_pcm16(turn.samples)).decode()
        said = {name: getattr(turn, name) for name in ("index", "start", "gate", "text", "display", "compute_seconds")}
        tasks = [dataclasses.asdict(event) for event in turn.tasks]
        counts = dataclasses.asdict(self._live.counts)
        heard = {"audio": sound, "input": counts}
        return [{"type": "duplex.micro_turn", **said, **heard, "tasks": tasks, "results": turn.given}]

    def _duplex_input(self, fields: Object, now: float) -> list[Object]:
        self._live.hear(from_pcm16(sound_bytes(fields["audio"])), now, fields["offset"])
        return []

    def _show(self, content: list[Object], now: float) -> None:
        if any(part["type"] == "input_audio" for part in content):
            raise SoundError("input_audio without a place in time: send it as duplex.input")
        super()._show(content, now)
