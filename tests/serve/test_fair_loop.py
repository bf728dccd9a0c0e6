"""A client whose frames have all come already, or whose socket takes all at once, does not keep others waiting."""

import asyncio
import base64

import pytest
from dialogue_client import Client

from tml_jax.serve.connection import Connection, Gone
from tml_jax.serve.dialogue import MAX_EDGES, MAX_SECONDS
from tml_jax.serve.speech import Edge, Endpointing, without_pauses

FRAMES = 50


class Eager:
    """Both a transport and a call that never wait."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.connection, self.incoming, self.outgoing, self.done = None, incoming, outgoing, 0

    async def receive(self, seconds):
        if not self.incoming:
            if self.outgoing:
                await asyncio.Event().wait()
            raise Gone("left")
        self.incoming -= 1
        return "frame"

    async def send(self, frame):
        self.done += 1

    async def close(self, code, reason, last=None):
        pass

    async def room(self):
        pass

    async def client(self, frame, now, connection):
        self.done += 1

    async def next(self, connection):
        if not self.outgoing:
            if self.incoming:
                await asyncio.Event().wait()
            return None
        self.outgoing -= 1
        return "frame"


@pytest.mark.parametrize(("incoming", "outgoing"), [(FRAMES, 0), (0, FRAMES)], ids=["read", "write"])
def test_others_have_their_turn_after_each_frame(incoming, outgoing):
    eager = Eager(incoming, outgoing)

    async def both():
        eager.connection = connection = Connection(eager, eager, idle=60.0)
        running, seen = asyncio.create_task(connection.run(lambda: 0.0)), []
        while not running.done():
            seen.append(eager.done)
            await asyncio.sleep(0)
        return seen

    seen = asyncio.run(both())
    assert eager.done == FRAMES
    assert max(after - before for before, after in zip(seen, seen[1:])) == 1


def sound(seconds: float) -> str:
    """60 ms loud and 40 ms quiet by turns, G.711 µ-law."""
    return base64.b64encode((b"\x00" * 480 + b"\xff" * 320) * int(seconds / 0.1)).decode()


def test_one_event_of_sound_has_a_bounded_number_of_answers():
    client = Client()
    vad = {"type": "server_vad", "silence_duration_ms": 0}
    hears = {"format": {"type": "audio/pcmu"}, "turn_detection": vad}
    client.send("session.update", session={"audio": {"input": hears}})
    many = client.send("input_audio_buffer.append", audio=sound(59.0))
    assert 1 <= len(many) <= 10
    few = client.send("input_audio_buffer.append", audio=sound(1.0))
    assert 35 <= len(few) <= 3 * MAX_EDGES  # of these none is left out
    assert client.refused("input_audio_buffer.append", audio=sound(MAX_SECONDS + 1.0)) == "event_too_large"
    parts = [{"type": "input_audio", "audio": sound(MAX_SECONDS / 2 + 1.0)} for _ in range(2)]
    item = {"type": "message", "role": "user", "content": parts}
    assert client.refused("conversation.item.create", item=item) == "event_too_large"


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_speech_without_its_pauses_begins_and_ends_as_with_them(first, count):
    edges = [Edge(first ^ bool(n % 2), 20 * n) for n in range(count)]
    left = without_pauses(Endpointing(speaking=not first), edges)
    assert len(left) <= 2 and (not left or left[0].speaking == first)
    assert (left[-1].speaking if left else not first) == edges[-1].speaking
    if first:
        assert left[0] == edges[0]
    if not edges[-1].speaking:
        assert left[-1] == edges[-1]
