"""Who may come: the origin of a browser's page, and the key that a client shows; and whose a session is."""

import dataclasses
import hashlib
import hmac
import secrets
import time
from urllib.parse import urlsplit

from aiohttp import web

from tml_jax.serve import client_secrets
from tml_jax.serve.client_secrets import ClientSecret
from tml_jax.serve.log import log_event
from tml_jax.serve.session_settings import Object

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
    """The keys and the origins of one server."""

    def __init__(self, keys: tuple[str, ...], origins: tuple[str, ...]) -> None:
        """Of a server.

        Args:
          keys: of which clients must show one; none lets everybody in.
          origins: pages of other sites that may connect; pages of this server always may.
        """
        self._keys, self._origins = tuple(key.encode() for key in keys), origins
        self._signing = self._keys or (secrets.token_bytes(32),)

    def wrong(self, request: web.Request, own_key: bool = False) -> Wrong | None:
        """Why a request may not come in; with `own_key` a key for a short time is not enough."""
        origin = request.headers.get("Origin")
        if origin is not None and origin not in self._origins and _host(origin) != request.host:
            return Wrong(
                403, "origin_not_allowed", f"Origin {ascii(origin)[1:-1]} may not connect: allow it with --origin"
            )
        shown = _shown(request)
        if not self._keys or self._own(shown) is not None:
            return None
        if not own_key and self._secret(shown)[1] is not None:
            return None
        if shown.startswith(client_secrets.PREFIX):
            return Wrong(401, "invalid_client_secret", "the client secret is wrong, too old, or not enough here")
        return Wrong(401, "invalid_api_key", "the API key is missing or wrong: Authorization: Bearer KEY")

    def _own(self, shown: str) -> bytes | None:
        """The key that is shown, if it is one of the server's."""
        same = [hmac.compare_digest(shown.encode(), key) for key in self._keys]
        return self._keys[same.index(True)] if any(same) else None

    def _secret(self, shown: str) -> tuple[bytes, ClientSecret | None]:
        """The client secret that is shown, and the key that it was made with; None where it is none."""
        for key in self._signing:
            secret = client_secrets.read(shown, key, time.time())
            if secret is not None:
                return key, secret
        return b"", None

    def owner(self, request: web.Request) -> str:
        """Whose a session is, as a short name: of the key of a request that may come in, or of its address."""
        if not self._keys:
            return request.remote or ""
        shown = _shown(request)
        return hashlib.sha256(self._own(shown) or self._secret(shown)[0]).hexdigest()[:16]

    def holder(self, request: web.Request) -> str | None:
        """Whose sessions a request may go on with: of its key. Without keys of anybody's, since addresses change."""
        return self.owner(request) if self._keys else None

    def sign(self, secret: ClientSecret, request: web.Request) -> str:
        """A secret as a key that opens sessions here, made with the key of a request that may come in."""
        return client_secrets.sign(secret, self._own(_shown(request)) or self._signing[0])

    def session(self, request: web.Request) -> Object:
        """What the client secret of a request, if it has one, changes in a session."""
        secret = self._secret(_shown(request))[1]
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
