"""One conversation: the model's side of it, its protocol, and what it has said. It outlives the connection it is on."""

import asyncio
import json
import secrets
import typing

from aiohttp import WSCloseCode

from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.limits import Rate, answered
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.notices import Told, news, with_notices
from tml_jax.serve.outbox import Event, Outbox
from tml_jax.serve.protocol import ClientEvent, ProtocolError, parse_event
from tml_jax.serve.scheduler import Ended, LiveSession
from tml_jax.serve.session_settings import Object
from tml_jax.serve.words import MicroTurn

TAKEN_OVER = 4001  # close code of a connection whose session goes on on another
QUIET_SECONDS = 5.0  # that a session in which nothing was said is held
_LONGEST_ID = 512  # characters
_MOST_UNSENT = 4 * 2**20  # characters that wait for a client before more of what it sends is read


def new_event_id() -> str:
    """A name that no other event has."""
    return f"event_{secrets.token_hex(10)}"


def frame_of(event: Object, event_id: str | None = None) -> str:
    """An event as a text frame, with an id of its own."""
    return json.dumps({"event_id": event_id or new_event_id(), **event})


class Link(typing.Protocol):
    """What a call sees of its connection."""

    def close(self, code: int, reason: str, dropped: bool = False, message: str | None = None) -> bool:
        """Ends it; `dropped` where the client may come back. Returns whether it had not been ended before."""

    def may_send(self, size: int, now: float) -> bool:
        """Whether the client keeps within its rate with so many bytes more; ends it if not."""


class Call:
    """A conversation and its connection, if it has one. Lives in the loop; only `deliver` may come from elsewhere."""

    def __init__(
        self,
        metrics: ServerMetrics,
        patience: int,
        token: str | None = None,
        room: int = 0,
        owner: str = "",
        notices: bool = False,
    ) -> None:
        """Of a client that comes in; `begin` is next.

        Args:
          metrics: of the server.
          patience: events that may wait for the client to read before its own are no longer read, and micro-turns
            that one may wait before the client is cut off.
          token: what the client comes back with; None where it cannot.
          room: most characters of events kept for that.
          owner: whose it is.
          notices: whether the client is told of what the server notices (`notices`).
        """
        self._metrics, self._patience, self.token, self.owner = metrics, patience, token, owner
        self._told = Told() if notices else None
        self._spoke = False
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(room)
        self._turns, self._since = 0, 0  # micro-turns, and how many there were when the connection began
        self._more, self._room = asyncio.Event(), asyncio.Event()
        self._decoding: asyncio.Future[ClientEvent] | None = None
        self.connection: Link | None = None
        self.received: str | None = None
        self.rate: Rate | None = None  # of what its client sends and is answered, on all of its connections together
        self.failed: str | None = None

    def begin(self, live: LiveSession, dialogue: Dialogue) -> None:
        """Joins what `deliver` was given for."""
        self.live, self.dialogue = live, dialogue
        self.say(dialogue.opening())

    @property
    def session_id(self) -> str:
        """As the client knows it."""
        return self.dialogue.session["id"]

    @property
    def turns(self) -> int:
        """Micro-turns so far."""
        return self._turns

    def deliver(self, turn: MicroTurn | Ended) -> None:
        """Takes a micro-turn from the thread of the ticks."""
        try:
            self._loop.call_soon_threadsafe(self._take, turn)
        except RuntimeError:  # the loop is closed, and with it the call
            pass

    def _take(self, turn: MicroTurn | Ended) -> None:
        if isinstance(turn, Ended):
            self.failed = turn.reason
            if self.connection is not None:
                message = f"the session is over: {turn.reason}"
                self.connection.close(WSCloseCode.INTERNAL_ERROR, turn.reason, message=message)
            return
        self._turns += 1
        self._spoke |= turn.gate == "SPEAK"
        events = self.dialogue.micro_turn(turn)
        if self._told is not None:
            self._told, notices = news(self._told, self.live)
            events = with_notices(events, notices)
        self.say(events)
        oldest = self._outbox.next
        if self.connection is not None and oldest is not None:
            if self._turns - max(oldest.turn, self._since) > self._patience:
                first = self.connection.close(WSCloseCode.POLICY_VIOLATION, "slow reader", dropped=True)
                self._metrics.slow_readers.inc(first)

    def say(self, events: list[Object]) -> int:
        """Puts events behind those that wait for the client. Returns how many characters they have."""
        named = [(new_event_id(), event) for event in events]
        made = [Event(name, frame_of(event, name), self._turns) for name, event in named]
        self._outbox.put(made, away=self.connection is None and self.token is not None)
        self._more.set()
        return sum(len(event.frame) for event in made)

    # What its connection calls.

    async def client(self, frame: str | bytes, now: float, connection: Link) -> None:
        """Acts on a frame of the client, to be called for one at a time of each connection.

        What takes long to decode, such as a picture, is decoded beside the loop, so that nobody else waits for it. The
        rest is done at once, answers included: whoever comes back finds all of it or nothing.

        Args:
          frame: of text; bytes are refused.
          now: seconds, of the scheduler's clock.
          connection: that it came on; once another one has taken over, what was not done yet is left to that.
        """
        try:
            if isinstance(frame, bytes):
                raise ProtocolError("invalid_frame", "a binary frame: expected text frames of JSON")
            event = parse_event(frame, self.dialogue.known)
            if self.dialogue.is_long(event):
                event = await self._decoded(event, connection)
                if event is None:
                    return
            self._receive(event.event_id)
            size = self.say(self.dialogue.client(event, now))
            if self.rate is not None:
                self.rate = answered(self.rate, size)
        except ProtocolError as error:
            self._receive(error.event_id)
            self._metrics.errors.labels(error.code).inc()
            self.say([error.event()])  # never much longer than what it is about

    async def _decoded(self, event: ClientEvent, connection: Link) -> ClientEvent | None:
        """An event decoded beside the loop; None where another connection has taken over meanwhile. One at a time for
        the whole call: whoever comes back again and again does not fill all threads with what it has left there."""
        while self._decoding is not None:
            await asyncio.wait([self._decoding])
        if self.connection is not connection:
            return None
        self._decoding = decoding = asyncio.ensure_future(asyncio.to_thread(self.dialogue.decoded, event))
        decoding.add_done_callback(self._decoding_over)
        await asyncio.wait([decoding])  # which a connection that ends leaves, and the thread to its work
        return decoding.result() if self.connection is connection else None

    def _decoding_over(self, decoding: "asyncio.Future[ClientEvent]") -> None:
        self._decoding = None
        if not decoding.cancelled():
            decoding.exception()  # seen, where nobody is there any more to ask for it

    def _receive(self, event_id: str | None) -> None:
        if event_id is not None and len(event_id) <= _LONGEST_ID:
            self.received = event_id

    async def next(self, connection: Link) -> str | None:
        """The next frame to send; None once another connection has taken over."""
        while self.connection is connection:
            frame = self._outbox.send()
            if frame is not None:
                if not self._full:
                    self._room.set()
                return frame
            self._more.clear()
            await self._more.wait()
        return None

    async def room(self) -> None:
        """Waits until the client has read most of what it was told."""
        while self._full:
            self._room.clear()
            await self._room.wait()

    @property
    def _full(self) -> bool:
        return self._outbox.unsent >= self._patience or self._outbox.unsent_size >= _MOST_UNSENT

    # What the server calls.

    def attach(self, connection: Link) -> None:
        """From now on it is on this connection; the one before is closed."""
        if self.connection is not None:
            self.connection.close(TAKEN_OVER, "taken_over")
        self.connection, self._since, self.live.away = connection, self._turns, False
        self._more.set()

    def held_for(self, seconds: float) -> float:
        """How long it is worth to hold it for a client that was cut off, if others are held for so long."""
        if not self.live.begun:
            return 0.0
        return seconds if self.live.used or self._spoke else min(seconds, QUIET_SECONDS)

    def rewind(self, event_id: str) -> None:
        """Says again what came after an event.

        Raises:
          outbox.LostError: it is not known any more.
        """
        self._outbox.rewind(event_id)

    def detach(self) -> None:
        """From now on nobody is there."""
        self.connection, self.live.away = None, True
