"""Calls over WebRTC, from the offer of a client to the end. Without aiortc there are none, and a client is told so."""

import asyncio
import functools
import secrets
import typing
from collections.abc import Awaitable, Callable

import numpy as np
from aiohttp import WSCloseCode, web

from tml_jax.serve.access import http_error
from tml_jax.serve.admission import RefusedError
from tml_jax.serve.call import Call
from tml_jax.serve.calls import HUNG_UP, Calls
from tml_jax.serve.connection import Connection
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.limits import Limits
from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.rtc_offer import read_offer
from tml_jax.serve.session_settings import Object

if typing.TYPE_CHECKING:
    from av import VideoFrame

try:
    from tml_jax.serve.rtc import OfferError, RtcTransport, check_offer
    from tml_jax.serve.rtc_dialogue import RtcDialogue
    from tml_jax.serve.rtc_media import share
except ModuleNotFoundError as error:
    RtcTransport, _missing = None, str(error)

NewCall = Callable[[web.Request, type[Dialogue], Object], Call]
Run = Callable[[Call, Connection], Awaitable[None]]


class RtcCalls:
    """The calls of one server, by name. To be used in its loop alone."""

    def __init__(
        self, calls: Calls, new_call: NewCall, run: Run, clock: Callable[[], float], idle: float, limits: Limits
    ) -> None:
        """With none yet.

        Args:
          calls: all of the server.
          new_call: makes a call for a request, with a dialogue of some kind and changes to its session.
          run: speaks for a call on a connection until it ends.
          clock: of the scheduler.
          idle: seconds without anything from a client that end its call.
          limits: to what a client may send.
        """
        self._calls, self._new_call, self._run, self._clock = calls, new_call, run, clock
        self._idle, self._limits = idle, limits
        self._running: dict[str, tuple[Connection, asyncio.Task]] = {}

    async def create(self, request: web.Request) -> web.Response:
        """Answers an offer: 201, the SDP in the body, and in `Location` where the call is."""
        if RtcTransport is None:
            message = f"{_missing}: WebRTC needs the webrtc extra on the server, pip install -e '.[webrtc]'"
            return http_error(501, "webrtc_not_installed", message)
        try:
            offer, changes = await read_offer(request)
            check_offer(offer)
            # No await from here to attach: two clients must not be let in to one place.
            call = self._new_call(request, RtcDialogue, changes)
        except ProtocolError as error:
            return http_error(400, error.code, error.message, error.param)
        except OfferError as error:
            return _no_offer(error)
        except RefusedError as refused:
            status = 503 if refused.may_wait else 429
            return web.json_response(refused.event, status=status, headers={"Retry-After": "5"})
        ways = (functools.partial(way, call) for way in (self._hear, _play, self._see, self._came))
        transport = RtcTransport(*ways, lambda: share(len(self._running)))
        connection = Connection(transport, call, self._idle, limits=self._limits)
        self._calls.attach(call, connection)
        try:
            answer = await transport.answer(offer)
        except BaseException as error:
            self._calls.release(call, connection)
            await transport.close(WSCloseCode.OK, "")
            if isinstance(error, OfferError):
                return _no_offer(error)
            raise
        name = f"rtc_{secrets.token_hex(16)}"
        task = asyncio.create_task(self._run(call, connection))
        self._running[name] = connection, task
        task.add_done_callback(lambda task: self._running.pop(name))
        headers = {"Location": f"/v1/realtime/calls/{name}"}
        return web.Response(status=201, text=answer, content_type="application/sdp", headers=headers)

    async def hang_up(self, request: web.Request) -> web.Response:
        """Ends a call."""
        running = self._running.get(request.match_info["call"])
        if running is None:
            return http_error(404, "call_not_found", "no such call: it may have ended")
        running[0].close(WSCloseCode.OK, HUNG_UP)
        return web.Response()

    def _hear(self, call: Call, samples: np.ndarray, lost: int) -> None:
        call.say(call.dialogue.hear(samples, lost, self._clock()))

    def _came(self, call: Call, size: int) -> bool:
        return call.connection is not None and call.connection.may_send(size, self._clock())

    async def _see(self, call: Call, frame: "VideoFrame") -> None:
        pixels = await asyncio.to_thread(lambda: call.dialogue.frame_of(frame.to_image()))
        call.dialogue.see(pixels, self._clock())


def _no_offer(error: "OfferError") -> web.Response:
    return http_error(400, "invalid_offer", str(error), "sdp")


def _play(call: Call, count: int) -> np.ndarray:
    samples, events = call.dialogue.play(count)
    call.say(events)
    return samples
