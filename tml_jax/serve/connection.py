"""One WebSocket: frames in, events out, and a client that does not read never holds up anything else."""

import asyncio
import json
import logging
import secrets
from collections.abc import Callable

from aiohttp import WSCloseCode, WSMsgType, web

from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.protocol import ProtocolError, parse_event
from tml_jax.serve.realtime_objects import Object
from tml_jax.serve.scheduler import Ended
from tml_jax.serve.words import MicroTurn

_CLOSING_SECONDS = 2.0
_OVER = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


def frame_of(event: Object) -> str:
    """An event as a text frame, with an id of its own."""
    return json.dumps({"event_id": f"event_{secrets.token_hex(10)}", **event})


class Connection:
    """The two ways of one WebSocket. Output waits in a queue of at most `outbox` events."""

    def __init__(self, socket: web.WebSocketResponse, metrics: ServerMetrics, outbox: int, idle: float) -> None:
        """Around an open socket.

        Args:
          socket: prepared.
          metrics: of the server.
          outbox: events that may wait for the client to read.
          idle: seconds without any event from the client that end the connection.
        """
        self._socket, self._metrics, self._idle = socket, metrics, idle
        self._queue: asyncio.Queue[str] = asyncio.Queue(outbox)
        self._closing: tuple[int, str] | None = None
        self._over = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.dialogue: Dialogue | None = None

    def deliver(self, turn: MicroTurn | Ended) -> None:
        """Takes a micro-turn from the thread of the ticks."""
        try:
            self._loop.call_soon_threadsafe(self._put_out, turn)
        except RuntimeError:  # the loop is closed, and with it the connection
            pass

    def _put_out(self, turn: MicroTurn | Ended) -> None:
        if isinstance(turn, Ended):
            self.close(WSCloseCode.INTERNAL_ERROR, turn.reason)
            return
        if self._closing:
            return
        try:
            for event in self.dialogue.micro_turn(turn):
                self._queue.put_nowait(frame_of(event))
        except asyncio.QueueFull:
            self._metrics.slow_readers.inc()
            self.close(WSCloseCode.POLICY_VIOLATION, "slow reader")

    def close(self, code: int, reason: str) -> None:
        """Ends the connection, whatever it is doing."""
        if self._closing is None:
            self._closing = code, reason
            self._over.set()

    async def run(self, clock: Callable[[], float]) -> None:
        """Speaks the protocol until one side ends it.

        Args:
          clock: of the scheduler.
        """
        await self._send(self.dialogue.opening())
        tasks = [asyncio.create_task(part) for part in (self._read(clock), self._write(), self._over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception) and not isinstance(error, ConnectionError):
                logging.error("a connection failed", exc_info=error)
                self.close(WSCloseCode.INTERNAL_ERROR, "internal_error")
        code, reason = self._closing or (WSCloseCode.OK, "")
        if code == WSCloseCode.INTERNAL_ERROR:
            error = {"type": "server_error", "code": reason, "message": f"the session is over: {reason}"}
            last = frame_of({"type": "error", "error": {**error, "param": None, "event_id": None}})
            try:
                await asyncio.wait_for(self._socket.send_str(last), _CLOSING_SECONDS)
            except (TimeoutError, ConnectionError):
                pass
        await end_socket(self._socket, code, reason)

    async def _read(self, clock: Callable[[], float]) -> None:
        while True:
            try:
                message = await self._socket.receive(self._idle)
            except TimeoutError:
                self.close(WSCloseCode.POLICY_VIOLATION, "session_idle")
                return
            if message.type in _OVER:  # also after what was too large or no frame: the socket has closed itself
                return
            if message.type is not WSMsgType.TEXT:
                await self._refuse(ProtocolError("invalid_frame", "a binary frame: expected text frames of JSON"))
                continue
            try:
                event = parse_event(message.data, self.dialogue.known)
                await self._send(self.dialogue.client(event, clock()))
            except ProtocolError as error:
                await self._refuse(error)

    async def _refuse(self, error: ProtocolError) -> None:
        self._metrics.errors.labels(error.code).inc()
        await self._send([error.event()])

    async def _send(self, events: list[Object]) -> None:
        for event in events:
            await self._queue.put(frame_of(event))

    async def _write(self) -> None:
        while True:
            await self._socket.send_str(await self._queue.get())


async def end_socket(socket: web.WebSocketResponse, code: int, reason: str) -> None:
    """Closes a socket; one whose client does not answer is cut off."""
    try:
        await asyncio.wait_for(socket.close(code=code, message=reason.encode()), _CLOSING_SECONDS)
    except (TimeoutError, ConnectionError):
        pass
