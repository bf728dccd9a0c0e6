"""Clients that talk to a server in real time over real sockets, in micro-turns (`?duplex=1`).

`turns_at_once` gives what they are told, `talk_at_once` what a measurement reads in it. Each client sends 20 ms of
sound every 20 ms, stamped, from another place of the recording. They begin at different moments within one micro-turn,
as people do.
"""

import asyncio
import base64
import dataclasses
import json
import time
from typing import Any

import aiohttp
import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.serve.sound_formats import to_pcm16

PACKET = INPUT_RATE // 50  # samples
_PATIENCE = 30.0  # seconds without any answer before a server is given up


@dataclasses.dataclass(frozen=True)
class Talk:
    """What one client saw; times in seconds since its microphone began.

    Attributes:
      index: (n,) int, the windows that were answered, in the order of the answers.
      arrived: (n,) float, when.
      speaks: (n,) bool, whether the model spoke.
      tick: (n,) float, seconds that the micro-turn took, as the server tells it.
      heard: samples that the model heard.
      lost: samples that did not arrive in time, or whose window was passed over.
      sent_late: (m,) float, by how much each packet left after its last sample was there: the client's own fault.
    """

    index: np.ndarray
    arrived: np.ndarray
    speaks: np.ndarray
    tick: np.ndarray
    heard: int
    lost: int
    sent_late: np.ndarray


@dataclasses.dataclass(frozen=True)
class Turns:
    """What one client was told; times in seconds since its microphone began.

    Attributes:
      events: when each `duplex.micro_turn` came, and the event, in order.
      sent_late: by how much each packet left after its last sample was there: the client's own fault.
    """

    events: list[tuple[float, dict[str, Any]]]
    sent_late: list[float]


def talk_at_once(url: str, clients: int, windows: int, audio: np.ndarray, api_key: str | None = None) -> list[Talk]:
    """Talks to a server: what each client saw. Arguments and errors as of `turns_at_once`."""
    return [_talk(turns) for turns in turns_at_once(url, clients, windows, audio, api_key)]


def turns_at_once(url: str, clients: int, windows: int, audio: np.ndarray, api_key: str | None = None) -> list[Turns]:
    """Talks to a server: all connect, and then all speak.

    Args:
      url: of its WebSocket.
      clients: at once.
      windows: micro-turns of each.
      audio: (n,) float32 at 16 kHz, what they say over and over.
      api_key: of the server.

    Returns:
      What each of them was told, of the windows before `windows`.

    Raises:
      OSError: the server cannot be reached.
      ValueError: it refuses a session, ends one, or says nothing for half a minute.
    """

    async def every() -> list[Turns]:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        ready = asyncio.Barrier(clients)
        async with aiohttp.ClientSession(headers=headers) as session:
            places = [np.roll(audio, -len(audio) * number // clients) for number in range(clients)]
            talks = [_converse(session, url, place, windows, ready, n / clients) for n, place in enumerate(places)]
            return await asyncio.gather(*talks)

    try:
        return asyncio.run(every())
    except aiohttp.ClientError as error:
        raise OSError(f"{url}: {error}; start it with launch.serve") from error
    except ValueError as error:
        raise ValueError(f"{url}: {error}") from error


def _talk(turns: Turns) -> Talk:
    """What a measurement reads in what a client was told."""
    read = lambda name: np.asarray([event[name] for _, event in turns.events])  # noqa: E731
    counts = turns.events[-1][1]["input"]
    return Talk(
        read("index"),
        np.asarray([arrived for arrived, _ in turns.events]),
        read("gate") == "SPEAK",
        read("compute_seconds"),
        counts["heard"],
        counts["missing"] + counts["skipped"],
        np.asarray(turns.sent_late),
    )


async def _converse(
    session: aiohttp.ClientSession,
    url: str,
    audio: np.ndarray,
    windows: int,
    ready: asyncio.Barrier,
    phase: float,
) -> Turns:
    """One client, that begins a part (`phase`) of a micro-turn after all are ready."""
    async with session.ws_connect(url, params={"duplex": "1"}, max_msg_size=0) as socket:
        opened = await socket.receive_json(timeout=_PATIENCE)
        if opened["type"] != "session.created":
            raise ValueError(opened["error"]["message"])
        await ready.wait()
        await asyncio.sleep(phase * MICRO_TURN_SECONDS)
        began, sent_late = time.monotonic(), []
        speaking = asyncio.create_task(_speak(socket, audio, began, sent_late))
        try:
            return Turns(await _listen(socket, began, windows), sent_late)
        finally:
            speaking.cancel()


async def _speak(socket: aiohttp.ClientWebSocketResponse, audio: np.ndarray, began: float, sent_late: list) -> None:
    """Sends each packet when its last sample is there, until it is cancelled."""
    start = 0
    while True:
        there = began + (start + PACKET) / INPUT_RATE
        await asyncio.sleep(max(0.0, there - time.monotonic()))
        sound = to_pcm16(np.take(audio, np.arange(start, start + PACKET), mode="wrap"))
        event = {"type": "duplex.input", "offset": start, "audio": base64.b64encode(sound).decode()}
        sent_late.append(time.monotonic() - there)
        await socket.send_json(event)
        start += PACKET


async def _listen(socket: aiohttp.ClientWebSocketResponse, began: float, windows: int) -> list[tuple[float, dict]]:
    """(seconds since `began`, micro-turn) of each answer to a window before `windows`."""
    turns: list[tuple[float, dict[str, Any]]] = []
    while True:
        try:
            message = await socket.receive(timeout=_PATIENCE)
        except TimeoutError as error:
            raise ValueError(f"no answer for {_PATIENCE:g} s, after {len(turns)} micro-turns") from error
        arrived = time.monotonic() - began
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise ValueError(f"the server ended the session after {len(turns)} micro-turns (code {socket.close_code})")
        event = json.loads(message.data)
        if event["type"] == "error":
            raise ValueError(event["error"]["message"])
        if event["type"] != "duplex.micro_turn":
            continue
        if event["index"] < windows:
            turns.append((arrived, event))
        if event["index"] >= windows - 1:
            return turns
