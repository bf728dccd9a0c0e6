"""The page that people talk on, at `/`, and what it is made of, below `/page/`."""

import functools
import importlib.resources
from collections.abc import Awaitable, Callable

from aiohttp import web

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = {
    # Everything comes from this server, and nothing is written into the page itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


def page_routes() -> list[web.RouteDef]:
    """A route for each file; they are read once, here, so no request names a path."""
    routes = []
    for file in importlib.resources.files("tml_jax.serve").joinpath("page").iterdir():
        kind = _TYPES.get(file.name[file.name.rfind(".") :])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/page/{file.name}"
            routes.append(web.get(path, _handler(file.read_bytes(), kind)))
    return routes


def _handler(body: bytes, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    return functools.partial(_answer, body, kind)


async def _answer(body: bytes, kind: str, request: web.Request) -> web.Response:
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)
