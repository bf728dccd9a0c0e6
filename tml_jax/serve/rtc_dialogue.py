"""The OpenAI Realtime protocol where sound does not travel in events: over WebRTC it has a way of its own.

`response.output_audio.delta` does not come then. In its place `output_audio_buffer.started`, `stopped` and `cleared`
say when a response can be heard, and `output_audio_buffer.clear` makes it fall silent.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from tml_jax.config import Config
from tml_jax.data.layout import OUTPUT_SAMPLES
from tml_jax.serve import voice as voices
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.pictures import frame_of
from tml_jax.serve.protocol import REALTIME
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.session_settings import Object
from tml_jax.serve.voice import KEPT_AT_YIELD, Piece, Voice
from tml_jax.serve.words import MicroTurn


class RtcDialogue(Dialogue):
    """The state of the protocol on one call."""

    known = {kind: fields for kind, fields in REALTIME.items() if kind != "input_audio_buffer.append"}
    known["output_audio_buffer.clear"] = {}

    def __init__(
        self, live: LiveSession, model: str, config: Config, delayed: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """See `Dialogue`."""
        super().__init__(live, model, config, delayed)
        self._voice = Voice()
        self._sounding: str | None = None

    def micro_turn(self, turn: MicroTurn) -> list[Object]:
        """Events of what the model put out; its sound waits for `play`."""
        events = []
        if turn.gate != "SPEAK":
            self._leave_out(voices.cut(self._voice, KEPT_AT_YIELD))
        for event in super().micro_turn(turn):
            if event["type"] == "response.output_audio.delta":
                self._leave_out(voices.say(self._voice, Piece(turn.samples, event["response_id"], turn.index)))
            else:
                events.append(event)
        return events

    def hear(self, samples: np.ndarray, lost: int, now: float) -> list[Object]:
        """Takes in sound.

        Args:
          samples: (n,) float32 at 16 kHz.
          lost: how many of its first samples were lost on the way, and are silence here.
          now: seconds, of the scheduler's clock.

        Returns:
          Events to tell the client.
        """
        return self._hear(samples, now, lost)

    def frame_of(self, picture: Image.Image) -> np.ndarray:
        """A frame of the user's video as `see` takes it. May run beside the loop."""
        return frame_of(picture, self._config)

    def see(self, frame: np.ndarray, now: float) -> None:
        """Takes in a frame, (rows, columns, 3) uint8, at a time of the scheduler's clock."""
        self._live.see(frame, now)

    def play(self, count: int) -> tuple[np.ndarray, list[Object]]:
        """What the user is to hear next.

        Args:
          count: samples at 24 kHz.

        Returns:
          (count,) float32, and events to tell the client.
        """
        self._voice, samples, reply = voices.play(self._voice, count)
        events = []
        if reply is not None and reply != self._sounding:
            events += self._silent("stopped")
            self._sounding = reply
            events.append({"type": "output_audio_buffer.started", "response_id": reply})
        if self._sounding is not None and not self._voice.pieces:
            if self._sounding == self._replies.active:  # it goes on, and its next piece should be here
                self._voice = voices.late(self._voice) if reply is not None else self._voice
            else:
                events += self._silent("stopped")
        return samples, events

    def _leave_out(self, voice: Voice) -> None:
        """Goes on with less to be played, or more: the server is the player here, and knows what is not heard."""
        for index, samples in voices.left_out(self._voice, voice).items():
            self._live.played(index, OUTPUT_SAMPLES - samples)
        self._voice = voice

    def _silent(self, how: str) -> list[Object]:
        reply, self._sounding = self._sounding, None
        return [] if reply is None else [{"type": f"output_audio_buffer.{how}", "response_id": reply}]

    def _output_audio_buffer_clear(self, fields: Object, now: float) -> list[Object]:
        self._leave_out(dataclasses.replace(self._voice, pieces=(), wait=0))
        return self._silent("cleared")
