"""The server: health, metrics and the realtime WebSocket.

  GET /              the page that people talk on (`page/`)
  GET /healthz       200 while sessions can run, 503 while it drains or after the engine failed
  GET /metrics       for Prometheus
  GET /v1/realtime   WebSocket: the OpenAI Realtime protocol; with ?duplex=1 this project's own micro-turns

A client beyond the last place gets an `error` event with code `server_full`, its `queue_position` and a `ticket` to
come back with (?ticket=…), then close code 1013.
"""

import asyncio
import dataclasses
import hmac
import secrets
import signal
from urllib.parse import urlsplit

from aiohttp import WSCloseCode, web

from tml_jax.serve.admission import Line, ask
from tml_jax.serve.connection import Connection, end_socket, frame_of
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.duplex import DuplexDialogue
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.static import page_routes

_KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser, which cannot set headers, sends its key
_SHOWN_PROTOCOL = "realtime"


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Attributes:
      model: name that sessions show.
      api_key: what clients must send; None lets everybody in.
      origins: pages of other sites that may connect, such as `https://example.org`; pages of this server always may.
      max_message: most bytes of one message; 15 MiB of sound take 20 MiB in base64.
      outbox: events that may wait for a client to read before it is cut off.
      idle_seconds: a client that sends nothing for so long gives its place away.
    """

    model: str = "tml"
    api_key: str | None = None
    origins: tuple[str, ...] = ()
    max_message: int = 21 * 2**20
    outbox: int = 100
    idle_seconds: float = 300.0


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
        self._line = Line()
        self._connections: set[Connection] = set()
        self._draining = False

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._health),
                web.get("/metrics", self._show_metrics),
                web.get("/v1/realtime", self._realtime),
                *page_routes(),
            ]
        )
        return app

    async def drain(self, seconds: float) -> None:
        """Lets no new session in, waits until those there are have ended, and then ends the rest.

        Args:
          seconds: to wait at most.
        """
        self._draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._connections and loop.time() < end:
            await asyncio.sleep(0.05)
        for connection in self._connections:
            connection.close(WSCloseCode.GOING_AWAY, "the server ends")
        while self._connections and loop.time() < end + 5:
            await asyncio.sleep(0.05)

    async def _health(self, request: web.Request) -> web.Response:
        well = not (self._draining or self._scheduler.failed)
        status = "draining" if self._draining else "failed" if self._scheduler.failed else "ok"
        told = {"status": status, "sessions": self._scheduler.sessions, "slots": self._scheduler.engine.slots}
        return web.json_response(told, status=200 if well else 503)

    async def _show_metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(self._scheduler), content_type="text/plain", charset="utf-8")

    def _refusal(self, request: web.Request) -> web.Response | None:
        """An answer to a request that may not open a session."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._options.origins and urlsplit(origin).netloc != request.host:
            return _http_error(403, "origin_not_allowed", f"Origin {origin} may not connect: allow it with --origin")
        key = self._options.api_key
        if key is not None:
            offered = request.headers.get("Authorization", "").removeprefix("Bearer ")
            for protocol in _protocols(request):
                if protocol.startswith(_KEY_PROTOCOL):
                    offered = protocol.removeprefix(_KEY_PROTOCOL)
            if not hmac.compare_digest(offered.encode(), key.encode()):
                return _http_error(401, "invalid_api_key", "the API key is missing or wrong: Authorization: Bearer KEY")
        if self._draining or self._scheduler.failed:
            return _http_error(503, "server_unavailable", "no new sessions: the server ends")
        return None

    async def _realtime(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        shown = (_SHOWN_PROTOCOL,) if _SHOWN_PROTOCOL in _protocols(request) else ()
        socket = web.WebSocketResponse(max_msg_size=self._options.max_message, protocols=shown, heartbeat=20.0)
        await socket.prepare(request)
        # No await from here to join: two clients must not be let in to one place.
        scheduler, duplex = self._scheduler, request.query.get("duplex") == "1"
        ticket = request.query.get("ticket", "")[:64] or secrets.token_hex(8)
        self._line, refused = ask(self._line, ticket, scheduler.free, scheduler.clock())
        if refused is not None:
            self._metrics.refused.inc()
            back = f"come back with ?ticket={refused.ticket}" if refused.ticket else "come back later"
            message = f"every place is taken: you are number {refused.position} in line; {back}"
            error = {"type": "server_error", "code": "server_full", "message": message, "param": None, "event_id": None}
            more = {"queue_position": refused.position, "ticket": refused.ticket, "retry_after_ms": 5000}
            await socket.send_str(frame_of({"type": "error", "error": {**error, **more}}))
            await end_socket(socket, WSCloseCode.TRY_AGAIN_LATER, "server_full")
            return socket
        connection = Connection(socket, self._metrics, self._options.outbox, self._options.idle_seconds)
        live = scheduler.join(connection.deliver, secrets.randbits(31), stamped=duplex)
        kind = DuplexDialogue if duplex else Dialogue
        connection.dialogue = kind(live, self._options.model, scheduler.engine.config)
        self._metrics.admitted.inc()
        self._connections.add(connection)
        try:
            await connection.run(scheduler.clock)
        finally:
            scheduler.leave(live)
            self._connections.discard(connection)
        return socket


async def serve(server: Server, scheduler: Scheduler, host: str, port: int, drain_seconds: float) -> None:
    """Listens until SIGTERM or Ctrl-C, and then drains.

    Args:
      server: its routes.
      scheduler: of its sessions.
      host: address to listen at.
      port: to listen at; 0 takes a free one.
      drain_seconds: to wait for sessions at the end.

    Raises:
      OSError: the address cannot be used.
    """
    ended = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, ended.set)
    runner = web.AppRunner(server.app(), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        host, port = runner.addresses[0][:2]
        print(f"listening at ws://{host}:{port}/v1/realtime for {scheduler.engine.slots} sessions", flush=True)
        print(f"talk at http://{host}:{port}/", flush=True)
        await ended.wait()
        print(f"ending: {scheduler.sessions} sessions have {drain_seconds:g} s", flush=True)
        await server.drain(drain_seconds)
    finally:
        await runner.cleanup()


def _protocols(request: web.Request) -> list[str]:
    return [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]


def _http_error(status: int, code: str, message: str) -> web.Response:
    error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
    return web.json_response({"error": error}, status=status)
