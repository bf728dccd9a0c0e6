"""A client of one dialogue, without a socket and without a model."""

import base64
import json

import numpy as np
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from small import small_config

from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.protocol import REALTIME, ProtocolError, parse_event
from tml_jax.serve.sound_formats import to_pcm16
from tml_jax.serve.windows import text_bytes
from tml_jax.serve.words import MicroTurn

SERVER_EVENT = TypeAdapter(RealtimeServerEvent)


class FakeLive:
    """Keeps what it is given."""

    def __init__(self):
        self.heard, self.texts, self.frames, self.cleared, self.begun = 0, [], [], 0, 0
        self.room = 10**9
        self.by_client, self.answers, self.unheard = False, [], []

    def hear(self, samples, now, offset=None, lost=0):
        self.heard += len(samples)
        return max(0, self.heard - self.room)

    def see(self, frame, now):
        self.frames.append(frame)

    def read(self, text, now):
        self.texts.append(text)

    def tasks_by_client(self, does):
        self.by_client = does

    def answer(self, number, revision, text, now):
        text_bytes(text)
        self.answers.append((number, revision, text))

    def played(self, index, samples):
        self.unheard.append((index, samples))

    def clear(self):
        self.cleared += 1

    def begin(self, now):
        self.begun += 1


class Client:
    """A client of one dialogue: every event it gets is checked to be one that the protocol has, and whole."""

    def __init__(self):
        self.live = FakeLive()
        self.dialogue = Dialogue(self.live, "small", small_config())
        self.events = self.checked(self.dialogue.opening())
        self.index = 0

    def checked(self, events: list) -> list:
        for event in events:
            parsed = SERVER_EVENT.validate_python({"event_id": "event_1", **event}, strict=False)
            assert parsed.type == event["type"] and not parsed.model_extra, (event["type"], parsed.model_extra)
        return events

    def send(self, kind: str, **fields) -> list:
        event = parse_event(json.dumps({"type": kind, "event_id": "mine", **fields}), REALTIME)
        return self.checked(self.dialogue.client(event, 0.0))

    def refused(self, kind: str, **fields) -> str:
        return self.error(kind, **fields).code

    def error(self, kind: str, **fields) -> ProtocolError:
        with pytest.raises(ProtocolError) as error:
            self.send(kind, **fields)
        assert error.value.event_id == "mine"
        return error.value

    def turn(self, speaks: bool, text: str = "", tasks: tuple = ()) -> list:
        samples = np.full(4800, 0.25 if speaks else 0.0, np.float32)
        made = MicroTurn(
            index=self.index,
            start=0.2 * self.index,
            gate="SPEAK" if speaks else "LISTEN",
            text=text,
            display="",
            mel=np.zeros((20, 80), np.float32),
            samples=samples,
            compute_seconds=0.01,
            elements_in=5,
            elements_out=5 if speaks else 1,
            tasks=tasks,
        )
        self.index += 1
        return self.checked(self.dialogue.micro_turn(made))


def kinds(events: list) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def loud(seconds: float) -> str:
    sound = 0.2 * np.random.default_rng(0).standard_normal(int(24_000 * seconds))
    return base64.b64encode(to_pcm16(sound)).decode()


def quiet(seconds: float) -> str:
    return base64.b64encode(bytes(2 * int(24_000 * seconds))).decode()
