"""Who may come: the origin of a browser's page, and the key that a client shows."""

import dataclasses
import hmac
import secrets
import time
from urllib.parse import urlsplit

from aiohttp import web

from tml_jax.serve import client_secrets
from tml_jax.serve.client_secrets import ClientSecret
from tml_jax.serve.log import log_event
from tml_jax.serve.realtime_objects import Object

SHOWN_PROTOCOL = "realtime"
_KEY_PROTOCOL = "openai-insecure-api-key."  # how a browser, which cannot set headers, sends its key


@dataclasses.dataclass(frozen=True)
class Wrong:
    """Why a request is refused: status, code and message."""

    status: int
    code: str
    message: str

    def response(self) -> web.Response:
        """The answer."""
        log_event("session_refused", status=self.status, reason=self.code)
        return http_error(self.status, self.code, self.message)


def http_error(status: int, code: str, message: str, param: str | None = None) -> web.Response:
    """A refusal as clients of the protocol expect it."""
    error = {"type": "invalid_request_error", "code": code, "message": message, "param": param}
    return web.json_response({"error": error}, status=status)


def protocols(request: web.Request) -> list[str]:
    """Subprotocols of a WebSocket that a client offers."""
    return [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]


class Access:
    """The key and the origins of one server."""

    def __init__(self, key: str | None, origins: tuple[str, ...]) -> None:
        """Of a server.

        Args:
          key: what clients must show; None lets everybody in.
          origins: pages of other sites that may connect; pages of this server always may.
        """
        self._key, self._origins = key, origins
        self._signing = secrets.token_bytes(32) if key is None else key.encode()

    def wrong(self, request: web.Request, own_key: bool = False) -> Wrong | None:
        """Why a request may not come in; with `own_key` a key for a short time is not enough."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins and _host(origin) != request.host:
            return Wrong(
                403, "origin_not_allowed", f"Origin {ascii(origin)[1:-1]} may not connect: allow it with --origin"
            )
        shown = _shown(request)
        if self._key is None or hmac.compare_digest(shown.encode(), self._key.encode()):
            return None
        if not own_key and self._secret(shown) is not None:
            return None
        if shown.startswith(client_secrets.PREFIX):
            return Wrong(401, "invalid_client_secret", "the client secret is wrong, too old, or not enough here")
        return Wrong(401, "invalid_api_key", "the API key is missing or wrong: Authorization: Bearer KEY")

    def _secret(self, shown: str) -> ClientSecret | None:
        return client_secrets.read(shown, self._signing, time.time())

    def sign(self, secret: ClientSecret) -> str:
        """A secret as the key that opens sessions here."""
        return client_secrets.sign(secret, self._signing)

    def session(self, request: web.Request) -> Object:
        """What the client secret of a request, if it has one, changes in a session."""
        secret = self._secret(_shown(request))
        return {} if secret is None else secret.session

    async def allow(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tells the browser that a page of an allowed site may read the response. For `on_response_prepare`."""
        origin = request.headers.get("Origin")
        if origin in self._origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = "Location, Retry-After"
            response.headers["Vary"] = "Origin"

    async def preflight(self, request: web.Request) -> web.Response:
        """What a browser asks before it sends a request of another site's page."""
        allowed = {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "authorization, content-type",
        }
        return web.Response(status=204, headers=allowed)


def _host(origin: str) -> str | None:
    """Host and port of an origin; None for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _shown(request: web.Request) -> str:
    """What the client shows as its key; bytes that are no text, which can be no key, as question marks."""
    return _header(request).encode(errors="replace").decode()


def _header(request: web.Request) -> str:
    for protocol in protocols(request):
        if protocol.startswith(_KEY_PROTOCOL):
            return protocol.removeprefix(_KEY_PROTOCOL)
    return request.headers.get("Authorization", "").removeprefix("Bearer ")
