"""All conversations of a server: those that are on a connection, and those held for a client that was cut off.

A client that may come back has a token, which nobody can guess and nobody else is told. When its connection breaks
without a goodbye, its session keeps its place for a while: micro-turns go on, without sound and marked as lost, and
what the model says is kept. Whoever then shows the token and names the last event that it has gets all that followed.
One in which nothing has begun is not held, and one in which nothing was said only shortly: others want the place.
A token that comes while its connection still seems to be there takes over: a client knows sooner than a server that
a connection is dead.
"""

import asyncio
import dataclasses
import hashlib
import logging
import secrets

from aiohttp import WSCloseCode

from tml_jax.serve.call import Call
from tml_jax.serve.connection import Connection
from tml_jax.serve.log import log_event
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.outbox import LostError
from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.scheduler import Scheduler

HUNG_UP = "hung up"  # how a call ends whose client asks for it
_REMEMBERED = 1000  # tokens of sessions that are over


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    """What is looked up in place of a token: how long that takes says nothing about tokens."""
    return hashlib.sha256(token.encode(errors="replace")).digest()


@dataclasses.dataclass(frozen=True)
class _Over:
    code: str
    message: str


_ENDED = _Over("resume_ended", "the session has ended: begin a new one")
_EXPIRED = _Over("resume_expired", "the session was held for you, and its time is up: begin a new one")


class Calls:
    """The calls of one server. To be used in its loop alone."""

    def __init__(self, scheduler: Scheduler, metrics: ServerMetrics, seconds: float, longest: float = 0.0) -> None:
        """With none yet.

        Args:
          scheduler: of the sessions.
          metrics: of the server.
          seconds: that a session is held; 0 for not at all.
          longest: seconds after which a session ends; 0 for never.
        """
        self._scheduler, self._metrics, self.seconds, self._longest = scheduler, metrics, seconds, longest
        self._open: set[Call] = set()
        self._tokens: dict[bytes, Call] = {}
        self._timers: dict[Call, asyncio.TimerHandle] = {}
        self._ends: dict[Call, asyncio.TimerHandle] = {}
        self._over: dict[bytes, _Over] = {}

    def __len__(self) -> int:
        return len(self._open)

    def of(self, owner: str) -> int:
        """How many are of an owner."""
        return sum(call.owner == owner for call in self._open)

    def add(self, call: Call) -> None:
        """A call that has begun."""
        self._open.add(call)
        if self._longest:
            self._ends[call] = asyncio.get_running_loop().call_later(self._longest, self._time_up, call)
        if call.token is not None:
            self._tokens[_digest(call.token)] = call

    def find(self, token: str, after: str, owner: str | None = None) -> Call:
        """The call of a client that comes back, ready to say again what it missed.

        Args:
          token: that was given out.
          after: id of the last event that the client has.
          owner: whose it must be; None for anybody's who has the token.

        Returns:
          The call, still on its connection if it has one.

        Raises:
          ProtocolError: there is no such session any more, or it does not know the event any more.
        """
        call = self._tokens.get(_digest(token))
        if call is None or call.failed or owner not in (None, call.owner):
            unknown = _Over("resume_unknown", "resume: no session has this token")
            over = _ENDED if call and call.failed else self._over.get(_digest(token), unknown)
            raise ProtocolError(over.code, over.message, "resume")
        try:
            call.rewind(after)
        except LostError as error:
            message = f"after: {error}; name the last one that you have, or begin a new session"
            raise ProtocolError("resume_events_lost", message, "after") from error
        return call

    def attach(self, call: Call, connection: Connection) -> None:
        """Puts a call on a connection, in place of the one that it is on, if any."""
        timer = self._timers.pop(call, None)
        if timer is not None:
            timer.cancel()
        self._metrics.held.set(len(self._timers))
        call.attach(connection)

    def release(self, call: Call, connection: Connection) -> None:
        """After a connection: holds its call if the client may come back, and ends it if not."""
        if call.connection is not connection or call not in self._open:  # it goes on on another
            return
        code, reason = connection.ending
        comes_back = connection.dropped and call.token is not None and not call.failed
        seconds = call.held_for(self.seconds) if comes_back else 0.0
        if seconds > 0:
            call.detach()
            loop = asyncio.get_running_loop()
            self._timers[call] = loop.call_later(seconds, self._expire, call)
            self._metrics.held.set(len(self._timers))
            log_event("session_held", session=call.session_id, seconds=seconds, code=code, reason=reason)
        else:
            self._end(call, _ENDED)
            left = reason in ("left", HUNG_UP)
            event, level = ("session_closed", logging.INFO) if left else ("session_cut_off", logging.WARNING)
            log_event(event, level, **self._told(call), code=code, reason=reason)
            if not left:
                self._metrics.cut_off.labels(reason).inc()

    def _told(self, call: Call) -> dict[str, str | int]:
        """What the log says of a call that is over."""
        return {"session": call.session_id, "micro_turns": call.turns, "sessions": self._scheduler.sessions}

    def end_held(self) -> None:
        """Ends the calls that wait, and holds no more."""
        self.seconds = 0
        for call in list(self._timers):
            self._cut_off(call, "the server ends")

    def close(self, code: WSCloseCode, reason: str) -> None:
        """Ends all that are on a connection."""
        for call in self._open:
            if call.connection is not None:
                call.connection.close(code, reason)

    def _time_up(self, call: Call) -> None:
        longest = f"{self._longest / 60:g} minutes" if self._longest % 60 == 0 else f"{self._longest:g} seconds"
        message = f"the session has lasted {longest}, the longest there is here: begin a new one"
        call.failed = "session_expired"
        if call.connection is not None:
            call.connection.close(WSCloseCode.POLICY_VIOLATION, "session_expired", message=message)
        else:
            self._cut_off(call, "session_expired")

    def _cut_off(self, call: Call, reason: str) -> None:
        """Ends a call that is on no connection."""
        self._end(call, _ENDED)
        log_event("session_cut_off", logging.WARNING, **self._told(call), reason=reason)
        self._metrics.cut_off.labels(reason).inc()

    def _expire(self, call: Call) -> None:
        self._metrics.expired.inc()
        self._end(call, _EXPIRED)
        log_event("session_expired", **self._told(call))

    def _end(self, call: Call, why: _Over) -> None:
        for timer in (self._timers.pop(call, None), self._ends.pop(call, None)):
            if timer is not None:
                timer.cancel()
        self._metrics.held.set(len(self._timers))
        self._scheduler.leave(call.live)
        self._open.discard(call)
        if call.token is not None:
            self._tokens.pop(_digest(call.token), None)
            self._over[_digest(call.token)] = why
            while len(self._over) > _REMEMBERED:
                del self._over[next(iter(self._over))]
