"""What a client sends to begin a call over WebRTC: SDP, alone or beside what its session is to be like."""

import json

from aiohttp import web

from tml_jax.serve.protocol import ProtocolError, json_type
from tml_jax.serve.session_settings import Object


async def read_offer(request: web.Request) -> tuple[str, Object]:
    """Reads the body of `POST /v1/realtime/calls`.

    Args:
      request: with a body of `application/sdp`, or `multipart/form-data` with `sdp` and `session` (JSON).

    Returns:
      The SDP, and changes to the session.

    Raises:
      ProtocolError: the body is neither.
    """
    kind = request.content_type
    if kind == "application/sdp":
        return await body_text(request), {}
    if kind != "multipart/form-data":
        message = f"Content-Type {kind[:100]}: expected application/sdp, or multipart/form-data with sdp and session"
        raise ProtocolError("invalid_content_type", message)
    try:
        form = await request.post()
    except (ValueError, web.RequestPayloadError) as error:
        raise ProtocolError("invalid_form", f"the body is no form: {error}") from error
    texts = {name: _text(form[name]) for name in ("sdp", "session") if name in form}
    if "sdp" not in texts:
        raise ProtocolError("missing_field", "the form has no sdp", "sdp")
    return texts["sdp"], json_object(texts.get("session", "{}"), "session")


async def body_text(request: web.Request) -> str:
    """The body of a request as text.

    Raises:
      ProtocolError: it is none in the encoding that its headers name.
    """
    try:
        return await request.text()
    except (ValueError, LookupError, web.RequestPayloadError) as error:
        raise ProtocolError("invalid_body", f"the body is no text: {error}"[:300]) from error


def json_object(text: str, name: str) -> Object:
    """Text as a JSON object.

    Raises:
      ProtocolError: it is none; says so of `name`.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("invalid_json", f"{name} is not JSON: {error}", name) from error
    if not isinstance(value, dict):
        raise ProtocolError("invalid_type", f"{name} is of type {json_type(type(value))}: expected an object", name)
    return value


def _text(part: str | bytes | web.FileField) -> str:
    """A part of a form, which aiohttp gives by the headers that it came with."""
    raw = part.file.read() if isinstance(part, web.FileField) else part
    return raw if isinstance(raw, str) else bytes(raw).decode(errors="replace")
