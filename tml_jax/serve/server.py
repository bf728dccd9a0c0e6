"""The server: health, metrics, and the realtime protocol over WebSockets and WebRTC.

  GET /              the page that people talk on (`page/`)
  GET /healthz       200 while sessions can run, 503 while it drains or after the engine failed
  GET /readyz        200 while a new session would be let in, 503 if not
  GET /metrics       for Prometheus
  GET /v1/realtime   WebSocket: the OpenAI Realtime protocol; with ?duplex=1 this project's own micro-turns
  POST /v1/realtime/calls                 an SDP offer; answers 201, the SDP answer, and in Location where the call is
  POST /v1/realtime/calls/{call}/hangup   ends such a call
  POST /v1/realtime/client_secrets        a key that opens sessions for a short time, for a browser

A client with ?duplex=1 or ?resumable=1 finds a `resume.token` in its session. If it is cut off, ?resume=TOKEN&after=ID,
with the `event_id` of the last event that it has, brings it back to the same session. It gets `session.resumed`, under
that same id and with `after`, the `event_id` of the last of its own events that arrived, and then all that it missed.
One that cannot be brought back gets an `error` event whose code begins with `resume_`, and close code 1008. The
connection that it had before is closed with 4001.

A client beyond the last place gets an `error` event with code `server_full`, its `queue_position` and a `ticket` to
come back with (?ticket=…), then close code 1013; in an overload the code is `server_overloaded`. Where the ticket is
empty, the line is full, too. A client that has as many sessions as a key may have gets `too_many_sessions` and 1008.
With the header `Tml-Full: refuse`, which a proxy sets, it gets status 503 in place of a WebSocket, so that the proxy
can ask another engine. Tokens and tickets begin with the engine's name.
"""

import asyncio
import dataclasses
import re
import secrets
import signal
import time
from collections.abc import Callable, Mapping

from aiohttp import WSCloseCode, web

from tml_jax.serve.access import SHOWN_PROTOCOL, Access, Wrong, http_error, protocols
from tml_jax.serve.admission import Line, RefusedError, ask, no_place, too_many, waiting_in
from tml_jax.serve.call import Call, frame_of
from tml_jax.serve.calls import Calls, new_token
from tml_jax.serve.client_secrets import asked_secret
from tml_jax.serve.connection import Connection
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.duplex import DuplexDialogue
from tml_jax.serve.limits import Limits
from tml_jax.serve.listening import RequestTimer, listen
from tml_jax.serve.log import log_event
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.protocol import ClientEvent, ProtocolError
from tml_jax.serve.rtc_calls import RtcCalls
from tml_jax.serve.rtc_offer import body_text, json_object
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.session_settings import Object, new_session, updated_session
from tml_jax.serve.static import page_routes
from tml_jax.serve.websocket import WebSocketTransport

_CLOSING_SECONDS = 5.0  # for sessions that were ended to be gone
_NAME = re.compile("[A-Za-z0-9_-]{0,40}")


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Attributes:
      model: name that sessions show.
      api_keys: of which clients must send one; none lets everybody in.
      origins: pages of other sites that may connect, such as `https://example.org`; pages of this server always may.
      max_message: most bytes of one message; a large picture, or a minute of sound, 4 MB in base64.
      outbox: events that may wait for a client to read, and micro-turns that one may wait before it is cut off.
      idle_seconds: a client that sends nothing for so long gives its place away.
      resume_seconds: how long a session waits for a client that was cut off.
      kept: characters of events kept for such a client; a micro-turn takes 13,000.
      name: of this engine among several, with which its tokens and tickets begin, before a dot; '' for none.
      heartbeat: seconds between pings; a client that leaves one without an answer for half of that is cut off.
      limits: to what one client may take.
    """

    model: str = "tml"
    api_keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_message: int = 21 * 2**20
    outbox: int = 100
    idle_seconds: float = 300.0
    resume_seconds: float = 30.0
    kept: int = 8 * 2**20
    name: str = ""
    heartbeat: float = 20.0
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name = {self.name!r}: expected up to 40 letters, digits, - and _")


class Server:
    """The sessions' way in from the network. Holds a scheduler that ticks already."""

    def __init__(self, scheduler: Scheduler, metrics: ServerMetrics, options: ServerOptions) -> None:
        """Serves nothing yet.

        Args:
          scheduler: of the sessions; the caller starts and stops it.
          metrics: told of its ticks.
          options: how to serve.
        """
        self._scheduler, self._metrics, self._options = scheduler, metrics, options
        limits = options.limits
        self._access = Access(options.api_keys, options.origins)
        self._line = Line(longest=limits.queue, most_of_one=limits.sessions_per_key)
        self.calls = Calls(scheduler, metrics, options.resume_seconds, limits.session_seconds)
        self._rtc = RtcCalls(self.calls, self._new_call, self._run, scheduler.clock, options.idle_seconds, limits)
        self.timer = RequestTimer(limits.request_seconds)
        self._draining = False

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(middlewares=[self.timer.middleware])
        app.on_response_prepare.append(self._access.allow)
        app.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/realtime", self._realtime),
                web.post("/v1/realtime/calls", self._call_rtc),
                web.options("/v1/realtime/calls", self._access.preflight),
                web.post("/v1/realtime/calls/{call}/hangup", self._hang_up),
                web.post("/v1/realtime/client_secrets", self._client_secret),
                *page_routes(),
            ]
        )
        return app

    async def drain(self, seconds: float, hurried: Callable[[], bool] = lambda: False) -> None:
        """Lets nobody in, waits until the sessions there are have ended, and then ends the rest. Holds none.

        Args:
          seconds: to wait at most.
          hurried: whether to wait no longer.
        """
        self._draining = True
        log_event("drain_began", sessions=len(self.calls), seconds=seconds)
        self.calls.end_held()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while len(self.calls) and loop.time() < end and not hurried():
            await asyncio.sleep(0.05)
        self.calls.close(WSCloseCode.GOING_AWAY, "the server ends")
        end = loop.time() + _CLOSING_SECONDS
        while len(self.calls) and loop.time() < end:
            await asyncio.sleep(0.05)
        log_event("drain_ended", sessions=len(self.calls))

    async def _health(self, request: web.Request) -> web.Response:
        well = not (self._draining or self._scheduler.failed)
        status = "draining" if self._draining else "failed" if self._scheduler.failed else "ok"
        told = {"status": status, "sessions": self._scheduler.sessions, "slots": self._scheduler.engine.slots}
        return web.json_response(told, status=200 if well else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        failed, ready = self._scheduler.failed, not self._draining and self._room("")
        no_room = "overloaded" if self._overloaded else "full"
        status = "failed" if failed else "draining" if self._draining else "ready" if ready else no_room
        return web.json_response({"status": status}, status=200 if status == "ready" else 503)

    @property
    def _overloaded(self) -> bool:
        """Whether there are places, and nobody gets one because the server is too slow."""
        return self._scheduler.overloaded and self._scheduler.sessions < self._scheduler.engine.slots

    def _room(self, ticket: str) -> bool:
        """Whether a client with this ticket would be let in."""
        return ask(self._line, ticket, self._scheduler.free, self._scheduler.clock())[1] is None

    async def _show_metrics(self, request: web.Request) -> web.Response:
        text = self._metrics.text(self._scheduler, len(waiting_in(self._line, self._scheduler.clock())))
        return web.Response(body=text, content_type="text/plain", charset="utf-8")

    def _refusal(self, request: web.Request) -> web.Response | None:
        """An answer to a request that may not open a session."""
        wrong = self._wrong(request)
        return None if wrong is None else self._refuse(wrong)

    def _refuse(self, wrong: Wrong) -> web.Response:
        self._metrics.refused.labels(wrong.code).inc()
        return wrong.response()

    def _wrong(self, request: web.Request) -> Wrong | None:
        """What forbids a session."""
        wrong = self._access.wrong(request)
        if wrong is not None:
            return wrong
        if self._draining or self._scheduler.failed:
            return Wrong(503, "server_unavailable", "no new sessions: the server ends")
        passes = request.headers.get("Tml-Full") == "refuse" and "resume" not in request.query
        if passes and not self._room(_ticket(request.query)):
            if self._overloaded:
                return Wrong(503, "server_overloaded", "this engine is overloaded: another may have a place")
            return Wrong(503, "server_full", "every place is taken: another engine may have one")
        return None

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        shown = (SHOWN_PROTOCOL,) if SHOWN_PROTOCOL in protocols(request) else ()
        options = self._options
        socket = web.WebSocketResponse(max_msg_size=options.max_message, protocols=shown, heartbeat=options.heartbeat)
        try:
            await socket.prepare(request)
        except ConnectionError:  # the client has left before it was let in: no fault of the server's to be logged
            return web.Response(status=400)
        transport = WebSocketTransport(socket)
        # No await from here to attach: two clients must not be let in to one place.
        try:
            call, greeting = self._call(request)
        except ProtocolError as error:
            self._metrics.errors.labels(error.code).inc()
            log_event("session_refused", reason=error.code)
            await transport.send(frame_of(error.event()))
            await transport.close(WSCloseCode.POLICY_VIOLATION, error.code)
            return socket
        except RefusedError as refused:
            await transport.send(frame_of(refused.event))
            code = WSCloseCode.TRY_AGAIN_LATER if refused.may_wait else WSCloseCode.POLICY_VIOLATION
            await transport.close(code, refused.code)
            return socket
        connection = Connection(transport, call, options.idle_seconds, greeting, options.limits)
        self.calls.attach(call, connection)
        await self._run(call, connection)
        return socket

    async def _run(self, call: Call, connection: Connection) -> None:
        try:
            await connection.run(self._scheduler.clock)
        finally:
            self.calls.release(call, connection)

    def _call(self, request: web.Request) -> tuple[Call, list[str]]:
        """The call that a client asks for, a new one or its old one, and what to say to it first."""
        query = request.query
        if "resume" not in query:
            duplex, resumable = (_switch(query, name) for name in ("duplex", "resumable"))
            return self._new_call(request, DuplexDialogue if duplex else Dialogue, resumable=duplex or resumable), []
        after = query.get("after", "")
        call = self.calls.find(query["resume"], after, self._access.holder(request))
        self._metrics.resumed.inc()
        log_event("session_resumed", session=call.session_id)
        return call, [frame_of({"type": "session.resumed", "after": call.received}, after)]

    def _named(self, secret: str) -> str:
        return f"{self._options.name}.{secret}" if self._options.name else secret

    def _admit(self, request: web.Request, owner: str) -> None:
        """Lets a client in, or not.

        Raises:
          RefusedError: there is no place, or none for this client.
        """
        most, scheduler = self._options.limits.sessions_per_key, self._scheduler
        if most and self.calls.of(owner) >= most:
            self._metrics.refused.labels("too_many_sessions").inc()
            log_event("session_refused", reason="too_many_sessions")
            raise too_many(most)
        ticket = _ticket(request.query) or self._named(secrets.token_hex(8))
        self._line, refused = ask(self._line, ticket, scheduler.free, scheduler.clock(), owner)
        if refused is not None:
            error = no_place(refused, self._overloaded)
            self._metrics.refused.labels(error.code).inc()
            log_event("session_queued", position=refused.position, reason=error.code)
            raise error

    def _new_call(
        self, request: web.Request, kind: type[Dialogue], changes: Object | None = None, resumable: bool = False
    ) -> Call:
        """A place for a new session, and its call; `changes` are to the session as it begins.

        Raises:
          RefusedError: there is no place.
          ProtocolError: the changes are none that a session can have.
        """
        scheduler, options, owner = self._scheduler, self._options, self._access.owner(request)
        self._admit(request, owner)
        knows = resumable  # this server's own events
        resumable &= self.calls.seconds > 0
        token = self._named(new_token()) if resumable else None
        call = Call(self._metrics, options.outbox, token, options.kept if resumable else 0, owner, knows)
        live = scheduler.join(call.deliver, secrets.randbits(31), stamped=kind is DuplexDialogue)
        try:
            dialogue = kind(live, options.model, scheduler.engine.config, self._metrics.ear_to_voice.observe)
            for update in (self._access.session(request), changes):
                if update:
                    dialogue.client(ClientEvent("session.update", None, {"session": update}), scheduler.clock())
        except ProtocolError:
            scheduler.leave(live)
            raise
        if resumable:
            dialogue.session["resume"] = {"token": token, "seconds": self.calls.seconds}
        if options.limits.session_seconds:
            dialogue.session["expires_at"] = int(time.time() + options.limits.session_seconds)
        call.begin(live, dialogue)
        self._metrics.admitted.inc()
        self.calls.add(call)
        duplex = kind is DuplexDialogue
        log_event("session_opened", session=call.session_id, duplex=duplex, sessions=scheduler.sessions)
        return call

    async def _call_rtc(self, request: web.Request) -> web.Response:
        return self._refusal(request) or await self._rtc.create(request)

    async def _hang_up(self, request: web.Request) -> web.Response:
        wrong = self._access.wrong(request)
        return await self._rtc.hang_up(request) if wrong is None else self._refuse(wrong)

    async def _client_secret(self, request: web.Request) -> web.Response:
        wrong = self._access.wrong(request, own_key=True)
        if wrong is not None:
            return self._refuse(wrong)
        try:
            secret = asked_secret(json_object(await body_text(request) or "{}", "the body"), time.time())
            session = updated_session(new_session(f"sess_{secrets.token_hex(10)}", self._options.model), secret.session)
        except ProtocolError as error:
            return http_error(400, error.code, error.message, error.param)
        told = {"value": self._access.sign(secret, request), "expires_at": secret.expires_at, "session": session}
        return web.json_response(told)


async def serve(server: Server, scheduler: Scheduler, host: str, port: int, drain_seconds: float) -> None:
    """Listens until SIGTERM or Ctrl-C, and then drains; a second one ends that at once.

    Args:
      server: its routes.
      scheduler: of its sessions.
      host: address to listen at.
      port: to listen at; 0 takes a free one.
      drain_seconds: to wait for sessions at the end.

    Raises:
      OSError: the address cannot be used.
    """
    ended, hurried = asyncio.Event(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, lambda: (hurried if ended.is_set() else ended).set())
    listening = await listen(server.app(), server.timer, host, port)
    try:
        host, port = listening.host, listening.port
        print(f"listening at ws://{host}:{port}/v1/realtime for {scheduler.engine.slots} sessions", flush=True)
        print(f"talk at http://{host}:{port}/", flush=True)
        log_event("listening", host=host, port=port, slots=scheduler.engine.slots)
        await ended.wait()
        told = f"ending: {scheduler.sessions} sessions have {drain_seconds:g} s"
        print(f"{told}; a second Ctrl-C or SIGTERM ends them now", flush=True)
        await server.drain(drain_seconds, hurried.is_set)
    finally:
        await listening.close()


def _switch(query: Mapping[str, str], name: str) -> bool:
    """A parameter of the address that is 0 or 1; 0 where it is not there.

    Raises:
      ProtocolError: it is something else.
    """
    value = query.get(name, "0")
    if value not in ("0", "1"):
        raise ProtocolError("invalid_value", f"?{name}={value[:100]}: expected 0 or 1", name)
    return value == "1"


def _ticket(query: Mapping[str, str]) -> str:
    return query.get("ticket", "")[:64]
