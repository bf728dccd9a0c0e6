"""HTTP answers in bounded memory: a client reads no line of a stream, and no body that is not one, without end.

The SDKs of chat endpoints keep a line, and the lines of an event, until they are whole. Here bytes are counted on their
way to them, by a hook of the HTTP client (extra `background`).
"""

import re
from collections.abc import AsyncIterator

import httpx2

MOST_BYTES = 2**20  # of one event, its lines together; far more than all calls of functions in one answer
_BLANK = re.compile(rb"(?:\n|\r(?!\n))[\r\n]")  # the end of a line and the next: what ends an event
PLAIN = {"Accept-Encoding": "identity"}  # headers of requests: packed bytes would say nothing of how many come out


class TooLongError(ValueError):
    """An event, or a body, is longer than `MOST_BYTES`, or packed."""


async def bound(response: httpx2.Response) -> None:
    """A hook for responses: what is read of them raises a `TooLongError` where an event, or the body of what has no
    events, is too long."""
    packed = response.headers.get("Content-Encoding", "identity")
    if packed.lower() != "identity":
        raise TooLongError(f"its answer is packed ({packed[:20]})")
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """The bytes of another stream."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held, last = 0, b""  # bytes since the last blank line, and the last of them
        async for chunk in self._stream:
            end = max((match.end() for match in _BLANK.finditer(last + chunk)), default=None)
            held = held + len(chunk) if end is None else len(last) + len(chunk) - end
            if held > MOST_BYTES:
                raise TooLongError(f"more than {MOST_BYTES} bytes without the end of an event")
            yield chunk
            last = chunk[-1:] or last

    async def aclose(self) -> None:
        await self._stream.aclose()
