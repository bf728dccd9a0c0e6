"""Keys for a short time, which a site's own server gets with the real key and hands to its visitors' browsers.

A key says until when it is good, and what is changed in the sessions that it opens, and is signed with the real key. So
a server remembers nothing, and any number of servers with the same real key know each other's.
"""

import base64
import binascii
import dataclasses
import hashlib
import hmac
import json

from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.session_settings import Object

PREFIX = "ek_"
_SECONDS = 600
_LEAST, _MOST = 10, 7200  # seconds
_MOST_SESSION = 3000  # characters: the key must fit into a header


@dataclasses.dataclass(frozen=True)
class ClientSecret:
    """Until when a key opens sessions, in whole seconds since 1970, and what is changed in those sessions."""

    expires_at: int
    session: Object


def asked_secret(asked: Object, now: float) -> ClientSecret:
    """What a key is to be good for.

    Args:
      asked: body of the request: `expires_after` and `session`, both of which may be missing.
      now: seconds since 1970.

    Returns:
      That.

    Raises:
      ProtocolError: a field is not what it must be.
    """
    after, session = asked.get("expires_after", {}), asked.get("session", {})
    for name, value in (("expires_after", after), ("session", session)):
        if not isinstance(value, dict):
            raise ProtocolError("invalid_type", f"{name}: expected an object", name)
    seconds, anchor = after.get("seconds", _SECONDS), after.get("anchor", "created_at")
    if anchor != "created_at" or not isinstance(seconds, int) or not _LEAST <= seconds <= _MOST:
        message = f"expires_after = {repr(after)[:100]}: expected anchor created_at, seconds {_LEAST} to {_MOST}"
        raise ProtocolError("invalid_value", message, "expires_after")
    size = len(json.dumps(session))
    if size > _MOST_SESSION:
        message = f"session has {size} characters: expected at most {_MOST_SESSION}; send the rest as session.update"
        raise ProtocolError("invalid_value", message, "session")
    return ClientSecret(int(now) + seconds, session)


def sign(secret: ClientSecret, key: bytes) -> str:
    """A secret as text that only who has the key can make."""
    said = _text(json.dumps([secret.expires_at, secret.session], separators=(",", ":")).encode())
    return f"{PREFIX}{said}.{_signature(said, key)}"


def read(text: str, key: bytes, now: float) -> ClientSecret | None:
    """What a text is good for; None where it was not signed with the key, or is too old."""
    said, _, signature = text.removeprefix(PREFIX).partition(".")
    if not text.startswith(PREFIX) or not hmac.compare_digest(_signature(said, key).encode(), signature.encode()):
        return None
    try:
        secret = ClientSecret(*json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4))))
    except (binascii.Error, ValueError, TypeError):
        return None
    return secret if secret.expires_at > now else None


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _signature(said: str, key: bytes) -> str:
    return _text(hmac.digest(key, b"client secret " + said.encode(errors="replace"), hashlib.sha256))
