"""A server under load: N clients that talk in real time over real sockets, and how long they wait.

Every client sends 20 ms of sound every 20 ms, stamped (`?duplex=1`), from another place of the recording. The *wait* of
a micro-turn is the time from the end of its 200 ms, when their last sample was sent, to the arrival of what the model
says to them; it holds the server's delay for late sound and the time to the next tick besides the computation.
"""

import asyncio
import base64
import dataclasses
import json
import time
from typing import Any

import aiohttp
import numpy as np

from tml_jax.bench.batches import noise
from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.serve.sound_formats import to_pcm16

_PACKET = INPUT_RATE // 50
_TICKS, _WAITS, _GAPS = "tick", "wait", "gap between micro-turns"


@dataclasses.dataclass(frozen=True)
class ServeBench:
    """What N clients saw.

    Attributes:
      sessions: N.
      seconds: that they talked.
      milliseconds: name → of every micro-turn of every client: the `tick`, as the server tells it, the `wait`, and the
        `gap` to the one before.
      speaks: share of micro-turns in which the model spoke.
      lost: share of the sound that did not arrive in time, or whose window was passed over.
    """

    sessions: int
    seconds: float
    milliseconds: dict[str, np.ndarray]
    speaks: float
    lost: float

    def __str__(self) -> str:
        head = f"| {self.sessions} sessions, {self.seconds:g} s | p50 | p95 | p99 | most |"
        rows = [
            f"| {name}, ms | " + " | ".join(f"{value:.0f}" for value in np.percentile(found, (50, 95, 99, 100))) + " |"
            for name, found in self.milliseconds.items()
        ]
        told = f"the model spoke in {self.speaks:.0%} of the micro-turns; {self.lost:.2%} of the sound was lost"
        return "\n".join([head, "| --- | ---: | ---: | ---: | ---: |", *rows, "", told])


def serve_bench(
    url: str, sessions: int, seconds: float, audio: np.ndarray | None = None, api_key: str | None = None
) -> ServeBench:
    """Talks to a server.

    Args:
      url: of its WebSocket.
      sessions: clients at once.
      seconds: that each talks.
      audio: (n,) float32 at 16 kHz, what they say over and over; None for noise.
      api_key: of the server.

    Returns:
      What they saw.

    Raises:
      OSError: the server cannot be reached.
      ValueError: it refuses a session, or ends one.
    """
    if audio is None:
        audio = noise()
    count = int(seconds / MICRO_TURN_SECONDS)

    async def every() -> list[list[tuple[float, dict[str, Any]]]]:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        async with aiohttp.ClientSession(headers=headers) as session:
            places = [np.roll(audio, -len(audio) * index // sessions) for index in range(sessions)]
            return await asyncio.gather(*[_talk(session, url, place, count) for place in places])

    try:
        seen = asyncio.run(every())
    except aiohttp.ClientError as error:
        raise OSError(f"{url}: {error}; start it with launch.serve") from error
    turns = [turn for client in seen for _, turn in client]
    arrived = np.asarray([[when for when, _ in client] for client in seen])
    ends = MICRO_TURN_SECONDS * np.arange(1, count + 1)
    last = [client[-1][1]["input"] for client in seen]
    lost = sum(counts["missing"] + counts["skipped"] for counts in last)
    return ServeBench(
        sessions,
        seconds,
        {
            _TICKS: 1000 * np.asarray([turn["compute_seconds"] for turn in turns]),
            _WAITS: 1000 * (arrived - ends).ravel(),
            _GAPS: 1000 * np.diff(arrived, axis=1).ravel(),
        },
        speaks=float(np.mean([turn["gate"] == "SPEAK" for turn in turns])),
        lost=lost / (lost + sum(counts["heard"] for counts in last)),
    )


async def _talk(session: aiohttp.ClientSession, url: str, audio: np.ndarray, count: int) -> list[tuple[float, dict]]:
    """One client. Returns (seconds since it began, micro-turn) of the first `count`."""
    async with session.ws_connect(url, params={"duplex": "1"}, max_msg_size=0) as socket:
        opened = await socket.receive_json()
        if opened["type"] != "session.created":
            raise ValueError(f"{url}: {opened['error']['message']}")
        began = time.monotonic()

        async def speak() -> None:
            packet = 0
            while True:
                await asyncio.sleep(max(0.0, began + (packet + 1) * _PACKET / INPUT_RATE - time.monotonic()))
                sound = np.take(audio, np.arange(packet * _PACKET, (packet + 1) * _PACKET), mode="wrap")
                event = {"type": "duplex.input", "offset": packet * _PACKET}
                await socket.send_json({**event, "audio": base64.b64encode(to_pcm16(sound)).decode()})
                packet += 1

        speaking, turns = asyncio.create_task(speak()), []
        try:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                event = json.loads(message.data)
                if event["type"] == "error":
                    raise ValueError(f"{url}: {event['error']['message']}")
                turns.append((time.monotonic() - began, event))
                if len(turns) == count:
                    return turns
        finally:
            speaking.cancel()
        raise ValueError(
            f"{url}: the server ended the session after {len(turns)} micro-turns (code {socket.close_code})"
        )
