"""A listening socket on which nobody stays who asks for nothing, or does not take what it asked for.

aiohttp waits for a first request, for the rest of one, and for its answer to be read, for as long as its client likes.
What is no HTTP it logs with the bytes that came, keys among them, and a traceback; here it is one line without either.
"""

import asyncio
import dataclasses
import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tml_jax.serve.log import log_event

KEPT_SECONDS = 75.0  # that a connection may wait with its next request, or with the rest of its head
UNREAD_SECONDS = 30.0  # that it may read nothing of what is sent to it; sessions are cut off before (`call`)
_TOO_LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class RequestTimer:
    """Closes connections whose first request, or the body of a later one, is not whole in time."""

    def __init__(self, seconds: float) -> None:
        """Of a server; 0 closes none."""
        self._seconds = seconds
        self._timers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def opened(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        if self._seconds:
            loop = asyncio.get_running_loop()
            self._timers[transport] = loop.call_later(self._seconds, self._close, transport)

    def over(self, transport: asyncio.BaseTransport | None) -> None:
        """The client has asked, or has gone."""
        timer = self._timers.pop(transport, None)
        if timer is not None:
            timer.cancel()

    def _close(self, transport: asyncio.Transport) -> None:
        self._timers.pop(transport, None)
        transport.write(_TOO_LATE)
        transport.close()

    @web.middleware
    async def middleware(self, request: web.Request, handler: web.RequestHandler) -> web.StreamResponse:
        """Tells when a request is whole, its body included."""
        transport = request.transport
        if transport not in self._timers and not request.content.is_eof():  # a later one, whose body is to come
            self.opened(transport)
        request.content.on_eof(lambda: self.over(transport))
        try:
            return await handler(request)
        except ConnectionError:  # the client has left before its request was whole: no fault to be logged
            if request.transport is not None:
                raise
            return web.Response(status=400)


class _Timed(asyncio.Protocol):
    """A protocol of aiohttp, a timer from the beginning of its connection, and one while its client reads nothing."""

    def __init__(self, inner: asyncio.Protocol, timer: RequestTimer) -> None:
        self._inner, self._timer, self._transport = inner, timer, None
        self._unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._timer.opened(transport)
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.over(self._transport)
        self._read()
        self._inner.connection_lost(error)

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._unread = asyncio.get_running_loop().call_later(UNREAD_SECONDS, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._read()
        self._inner.resume_writing()

    def _read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


@dataclasses.dataclass(frozen=True)
class Listening:
    """A socket that listens: `host`, `port`, and what answers there."""

    host: str
    port: int
    runner: web.AppRunner
    sockets: asyncio.Server

    async def close(self) -> None:
        """Lets nobody in, and ends the connections there are."""
        self.sockets.close()
        await self.runner.cleanup()


class _RequestLog(logging.LoggerAdapter):
    """What aiohttp logs of requests: faults of the server as they are, those of clients by their kind alone."""

    def exception(self, message: object, *args: Any, exc_info: Any = True, **more: Any) -> None:
        """See `logging.Logger`."""
        if isinstance(exc_info, (HttpProcessingError, web.RequestPayloadError)):
            log_event("bad_request", reason=type(exc_info).__name__)
        else:
            super().exception(message, *args, exc_info=exc_info, **more)


async def listen(app: web.Application, timer: RequestTimer, host: str, port: int) -> Listening:
    """Begins to listen.

    Args:
      app: answers; has the timer's middleware.
      timer: of first requests.
      host: address to listen at.
      port: to listen at; 0 takes a free one.

    Returns:
      What listens.

    Raises:
      OSError: the address cannot be used.
    """
    log = _RequestLog(logging.getLogger("aiohttp.server"), {})
    runner = web.AppRunner(app, access_log=None, logger=log, keepalive_timeout=KEPT_SECONDS)
    await runner.setup()
    try:
        loop = asyncio.get_running_loop()
        sockets = await loop.create_server(lambda: _Timed(runner.server(), timer), host, port)
    except BaseException:
        await runner.cleanup()
        raise
    return Listening(*sockets.sockets[0].getsockname()[:2], runner, sockets)
