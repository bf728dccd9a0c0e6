"""Frames over a WebSocket."""

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp.http_websocket import WebSocketError

from tml_jax.serve.connection import CLOSING_SECONDS, Gone

# Browsers say the second when a page is left; 0 is a goodbye without a code. Any other code comes from what stands
# between, such as a proxy that begins anew.
_GOODBYES = (WSCloseCode.OK, WSCloseCode.GOING_AWAY, 0, None)


class WebSocketTransport:
    """A `connection.Transport` over a socket that is prepared."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        """Around an open socket."""
        self._socket = socket

    async def receive(self, seconds: float) -> str | bytes:
        """See `Transport`. A message that is too large or no frame ends the connection for good."""
        message = await self._socket.receive(seconds)
        if message.type is WSMsgType.CLOSE:
            raise Gone("left" if message.data in _GOODBYES else "dropped", message.data)
        if message.type is WSMsgType.ERROR and isinstance(message.data, WebSocketError):
            raise Gone("bad_frame", message.data.code)
        if message.type in (WSMsgType.ERROR, WSMsgType.CLOSED, WSMsgType.CLOSING):
            raise Gone("dropped")
        return message.data

    async def send(self, frame: str) -> None:
        """See `Transport`."""
        await self._socket.send_str(frame)

    async def close(self, code: int, reason: str, last: str | None = None) -> None:
        """See `Transport`."""
        try:
            if last is not None:
                await asyncio.wait_for(self._socket.send_str(last), CLOSING_SECONDS)
            await asyncio.wait_for(self._socket.close(code=code, message=reason.encode()), CLOSING_SECONDS)
        except (TimeoutError, ConnectionError):
            pass
