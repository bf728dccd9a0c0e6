"""The two ways of one connection: frames in, events out, and a client that does not read never holds up anything else.

What carries the frames is a `Transport`: a WebSocket, or the data channel of a WebRTC call.
"""

import asyncio
import logging
import typing
from collections.abc import Callable, Sequence

from aiohttp import WSCloseCode

from tml_jax.serve.call import Call, frame_of
from tml_jax.serve.limits import Limits, Rate, RateError, spend
from tml_jax.serve.log import log_event

CLOSING_SECONDS = 2.0


class Gone(Exception):
    """The other side is there no longer. `dropped`: without a word, so it may come back.

    `reason` is one of `left`, `dropped` and `bad_frame`; `code` that of the WebSocket protocol, if there was one.
    """

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.code, self.dropped = reason, code, reason == "dropped"


class Transport(typing.Protocol):
    """Carries text frames between the server and one client."""

    async def receive(self, seconds: float) -> str | bytes:
        """The next frame of the client; bytes are one that is no text.

        Raises:
          Gone: there is none any more.
          TimeoutError: none has come for so long.
        """

    async def send(self, frame: str) -> None:
        """Sends a frame; waits while the client does not read.

        Raises:
          ConnectionError: the connection is broken.
        """

    async def close(self, code: int, reason: str, last: str | None) -> None:
        """Ends the connection, with a last frame if there is one; one whose client does not answer is cut off."""


class Connection:
    """One client on one transport. Its call may outlive it."""

    def __init__(
        self, transport: Transport, call: Call, idle: float, greeting: Sequence[str] = (), limits: Limits | None = None
    ) -> None:
        """Of a transport that is open.

        Args:
          transport: carries it.
          call: what it speaks for.
          idle: seconds without any frame from the client that end the connection.
          greeting: frames to send before what the call says.
          limits: to what the client may send; None for none.
        """
        self._transport, self._call, self._idle, self._greeting = transport, call, idle, greeting
        self._limited = limits is not None
        if limits is not None and call.rate is None:
            call.rate = Rate(limits)
        self._closing: tuple[int, str] | None = None
        self._last: str | None = None
        self._gone: Gone | None = None
        self._over = asyncio.Event()
        self.dropped = False

    @property
    def ending(self) -> tuple[int | None, str]:
        """Code and reason of its end: why the server has ended it, or how the client went (see `Gone`)."""
        gone = self._gone or Gone("dropped")
        return self._closing or (gone.code, gone.reason)

    def close(self, code: int, reason: str, dropped: bool = False, message: str | None = None) -> bool:
        """Ends the connection, whatever it is doing.

        Args:
          code: of the WebSocket protocol.
          reason: short.
          dropped: whether the client may come back.
          message: tells the client why in a last `error` event, whose code is the reason; None sends none.

        Returns:
          Whether it had not been ended before.
        """
        first = self._closing is None
        if first:
            self._closing, self.dropped = (code, reason), dropped
            if message is not None:
                kind = "server_error" if code == WSCloseCode.INTERNAL_ERROR else "invalid_request_error"
                error = {"type": kind, "code": reason, "message": message, "param": None, "event_id": None}
                self._last = frame_of({"type": "error", "error": error})
            self._over.set()
        return first

    async def run(self, clock: Callable[[], float]) -> None:
        """Speaks the protocol until one side ends it.

        Args:
          clock: of the scheduler.
        """
        tasks = [asyncio.create_task(part) for part in (self._read(clock), self._write(), self._over.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            if isinstance(error, Exception):
                log_event("connection_failed", logging.ERROR, error, session=self._call.session_id)
                message = "the session is over: internal_error"
                self.close(WSCloseCode.INTERNAL_ERROR, "internal_error", message=message)
        code, reason = self._closing or (WSCloseCode.OK, "")
        await self._transport.close(code, reason, self._last)

    async def _read(self, clock: Callable[[], float]) -> None:
        while True:
            try:
                frame = await self._transport.receive(self._idle)
            except TimeoutError:
                self.close(WSCloseCode.POLICY_VIOLATION, "session_idle")
                return
            except Gone as gone:
                self._gone = gone
                self.dropped |= gone.dropped and self._closing is None
                return
            if not self.may_send(len(frame), clock()):
                return
            await self._call.room()
            if self._call.connection is not self:
                return
            await self._call.client(frame, clock(), self)
            await asyncio.sleep(0)  # what has come already is no reason for others to wait

    def may_send(self, size: int, now: float) -> bool:
        """Whether the client keeps within its rate with an event, or a packet, of so many bytes; ends the connection
        if not."""
        if self._limited:
            try:
                self._call.rate = spend(self._call.rate, size, now)
            except RateError as error:
                self.close(WSCloseCode.POLICY_VIOLATION, "rate_limit_exceeded", message=str(error))
                return False
        return True

    async def _write(self) -> None:
        try:
            for frame in self._greeting:
                await self._transport.send(frame)
            while (frame := await self._call.next(self)) is not None:
                await self._transport.send(frame)
                await asyncio.sleep(0)  # a socket that takes more at once does not give way by itself
        except ConnectionError:
            await asyncio.sleep(CLOSING_SECONDS)  # whether the client has said goodbye is for the reader to find out
            self.dropped |= self._closing is None
