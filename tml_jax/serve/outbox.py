"""What a session says, in order, and kept for a while after it was sent: a client that was cut off can have it again.

A socket that takes an event says nothing about its arrival, so what was sent is kept as well, as far as there is room.
Events have names of their own (`event_id`), and a client that comes back names the last one that it has.
"""

import collections
import dataclasses
from collections.abc import Iterable


class LostError(LookupError):
    """The event is none of those that are kept, so what came after it cannot be said again."""


@dataclasses.dataclass(frozen=True)
class Event:
    """One event: its `event_id`, its frame, and how many micro-turns there had been before it."""

    id: str
    frame: str
    turn: int


class Outbox:
    """Events, oldest first. To put one in and to send one costs the same however many there are.

    Attributes:
      size: characters of all that are kept.
      unsent_size: characters of those that have not been sent.
    """

    def __init__(self, room: int = 0) -> None:
        """Without any.

        Args:
          room: most characters kept of what was sent, or of everything while nobody is there to take it.
        """
        self._room, self._before = room, None  # the name of the event before the first that is kept
        self._sent: collections.deque[Event] = collections.deque()
        self._waiting: collections.deque[Event] = collections.deque()
        self.size, self.unsent_size = 0, 0

    @property
    def events(self) -> tuple[Event, ...]:
        """Those that are kept."""
        return (*self._sent, *self._waiting)

    @property
    def unsent(self) -> int:
        """How many have not been sent."""
        return len(self._waiting)

    @property
    def next(self) -> Event | None:
        """The next to be sent; None where all have been."""
        return self._waiting[0] if self._waiting else None

    def put(self, events: Iterable[Event], away: bool = False) -> None:
        """Adds events.

        Args:
          events: new ones.
          away: whether there is nobody to send to, so that what does not fit is forgotten unsent.
        """
        for event in events:
            self._waiting.append(event)
            self.size += len(event.frame)
            self.unsent_size += len(event.frame)
        self._fit(away)

    def send(self) -> str | None:
        """The next frame to send, which counts as sent from now on; None where all has been."""
        if not self._waiting:
            return None
        event = self._waiting.popleft()
        self._sent.append(event)
        self.unsent_size -= len(event.frame)
        self._fit(away=False)
        return event.frame

    def rewind(self, event_id: str) -> None:
        """Goes back to what comes after an event that the client has: all of it is to be sent again.

        Args:
          event_id: of that event.

        Raises:
          LostError: the event is not kept; nothing has changed.
        """
        events = self.events
        names = [self._before, *(event.id for event in events)]
        if event_id not in names:
            raise LostError(f"no event {event_id[:100]!r} among the {len(events)} that are kept")
        has = names.index(event_id)
        self._sent, self._waiting = collections.deque(events[:has]), collections.deque(events[has:])
        self.unsent_size = sum(len(event.frame) for event in self._waiting)

    def _fit(self, away: bool) -> None:
        """Forgets the oldest events until the rest fits, but what is still to be sent only while nobody is there."""
        while self.size > self._room and (self._sent or (away and self._waiting)):
            if self._sent:
                event = self._sent.popleft()
            else:
                event = self._waiting.popleft()
                self.unsent_size -= len(event.frame)
            self.size -= len(event.frame)
            self._before = event.id
