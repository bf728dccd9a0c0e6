"""This project's own events (`?duplex=1`): sound with its place in time, and every micro-turn as it is.

The client sends `duplex.input` with `offset` (number of the first sample since it began) and `audio` (base64, PCM16 at
16 kHz), in any order and as soon as it can (a clock that is not the server's moves away from it: `input.late` tells
how far a client is behind, which then counts so much on), and `conversation.item.create` with text and pictures. From
the first input on the server sends a `duplex.micro_turn` every 200 ms, silent ones too: its `audio` (base64, PCM16 at
24 kHz, 4,800 samples) is heard in the window after. `index` counts windows; in an overload the server passes over
some. Sound that has not arrived in time is marked for the model as lost. Its `tasks` are what has happened to the
model's tasks for the background (`background.tasks.TaskEvent`) since the micro-turn before, `results` the pieces of
results that it begins to read in this one (`background.grammar`), `notices` what the server says of itself
(`notices`).

A client says with `duplex.played` what was heard: `index` of a micro-turn, and how many `samples` of its sound were
played, once for each that was sent with the gate `SPEAK`, when it has been played, was cut off or is left out (0). What
was not heard then is no part of the conversation that a background task is given. A micro-turn that it says nothing of
counts as heard. From the end of the window that a micro-turn answers to the first of its sound is "ear to voice"; both
ends are on the server's clock and both come over the network, so the way from the client to the server cancels out.
"""

import base64
import dataclasses
from collections.abc import Callable

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE, Config
from tml_jax.data.layout import OUTPUT_SAMPLES
from tml_jax.serve.dialogue import Dialogue, check_length
from tml_jax.serve.pictures import frame_size
from tml_jax.serve.protocol import DUPLEX, ClientEvent, ProtocolError
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.session_settings import Object
from tml_jax.serve.sound_formats import Format, SoundError, from_pcm16, sound_bytes, to_pcm16
from tml_jax.serve.words import MicroTurn

_FORMAT = Format("audio/pcm", INPUT_RATE, wide=True)
MAX_UNPLAYED = 1000  # micro-turns whose sound a client has not spoken of; older ones count as heard


class DuplexDialogue(Dialogue):
    """The state of one connection that speaks in micro-turns."""

    known = DUPLEX

    def __init__(
        self, live: LiveSession, model: str, config: Config, delayed: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """See `Dialogue`."""
        super().__init__(live, model, config, delayed)
        rows, columns = frame_size(config)
        rates = {
            "input_rate": INPUT_RATE,
            "output_rate": OUTPUT_RATE,
            "micro_turn_ms": round(1000 * MICRO_TURN_SECONDS),
        }
        self.session["duplex"] = {**rates, "video": {"width": columns, "height": rows}}
        self._unplayed: dict[int, None] = {}

    def micro_turn(self, turn: MicroTurn) -> list[Object]:
        """The one event of what the model put out."""
        if turn.gate == "SPEAK":
            self._unplayed[turn.index] = None
            while len(self._unplayed) > MAX_UNPLAYED:
                del self._unplayed[next(iter(self._unplayed))]
        sound = base64.b64encode(to_pcm16(turn.samples)).decode()
        said = {name: getattr(turn, name) for name in ("index", "start", "gate", "text", "display", "compute_seconds")}
        tasks = [dataclasses.asdict(event) for event in turn.tasks]
        counts = dataclasses.asdict(self._live.counts)
        heard = {"audio": sound, "input": counts}
        return [{"type": "duplex.micro_turn", **said, **heard, "tasks": tasks, "results": turn.given}]

    def _decoded(self, event: ClientEvent) -> Object:
        if event.type == "duplex.input":
            check_length(_FORMAT, event.fields["audio"])
            return event.fields | {"audio": from_pcm16(sound_bytes(event.fields["audio"]))}
        return super()._decoded(event)

    def _decoded_part(self, part: Object) -> Object:
        if part["type"] == "input_audio":
            raise SoundError("input_audio without a place in time: send it as duplex.input")
        return super()._decoded_part(part)

    def _duplex_input(self, fields: Object, now: float) -> list[Object]:
        self._live.hear(fields["audio"], now, fields["offset"])
        return []

    def _duplex_played(self, fields: Object, now: float) -> list[Object]:
        index, samples = fields["index"], fields["samples"]
        if not 0 <= samples <= OUTPUT_SAMPLES:
            message = f"samples = {samples}: expected 0 to {OUTPUT_SAMPLES}, those of a micro-turn"
            raise ProtocolError("invalid_value", message, "samples")
        if index in self._unplayed:  # not of a session before, nor a second time
            del self._unplayed[index]
            self._live.played(index, samples)
            if samples:
                self._delayed(now - samples / OUTPUT_RATE - self._live.heard_until(index))
        return []
