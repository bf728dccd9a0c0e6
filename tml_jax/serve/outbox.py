"""What a session says, in order, and kept for a while after it was sent: a client that was cut off can have it again.

A socket that takes an event says nothing about its arrival, so what was sent is kept as well, as far as there is room.
Events have names of their own (`event_id`), and a client that comes back names the last one that it has.
"""

import dataclasses


class LostError(LookupError):
    """The event is none of those that are kept, so what came after it cannot be said again."""


@dataclasses.dataclass(frozen=True)
class Event:
    """One event: its `event_id`, its frame, and how many micro-turns there had been before it."""

    id: str
    frame: str
    turn: int


@dataclasses.dataclass(frozen=True)
class Outbox:
    """Events, oldest first. Never changed.

    Attributes:
      room: most characters kept of what was sent, or of everything while nobody is there to take it.
      before: name of the event before the first that is kept.
      events: those kept.
      sent: how many of them have been sent.
      size: characters of all that are kept.
      unsent_size: characters of those that have not been sent.
    """

    room: int = 0
    before: str | None = None
    events: tuple[Event, ...] = ()
    sent: int = 0
    size: int = 0
    unsent_size: int = 0

    @property
    def unsent(self) -> int:
        """How many have not been sent."""
        return len(self.events) - self.sent

    @property
    def next(self) -> Event | None:
        """The next to be sent; None where all have been."""
        return self.events[self.sent] if self.unsent else None


def put(outbox: Outbox, events: tuple[Event, ...], away: bool = False) -> Outbox:
    """Adds events.

    Args:
      outbox: so far.
      events: new ones.
      away: whether there is nobody to send to, so that what does not fit is forgotten unsent.

    Returns:
      The outbox with them.
    """
    new = _size(events)
    more = dataclasses.replace(
        outbox, events=outbox.events + events, size=outbox.size + new, unsent_size=outbox.unsent_size + new
    )
    return _fitted(more, away)


def send(outbox: Outbox) -> tuple[Outbox, str | None]:
    """The next frame to send, and the outbox after it; None where all has been sent."""
    if outbox.next is None:
        return outbox, None
    frame = outbox.next.frame
    after = dataclasses.replace(outbox, sent=outbox.sent + 1, unsent_size=outbox.unsent_size - len(frame))
    return _fitted(after, away=False), frame


def rewind(outbox: Outbox, event_id: str) -> Outbox:
    """Goes back to what comes after an event that the client has.

    Args:
      outbox: so far.
      event_id: of that event.

    Returns:
      The outbox, with everything after it to be sent.

    Raises:
      LostError: the event is not kept.
    """
    if event_id == outbox.before:
        return dataclasses.replace(outbox, sent=0, unsent_size=outbox.size)
    for index, event in enumerate(outbox.events):
        if event.id == event_id:
            return dataclasses.replace(outbox, sent=index + 1, unsent_size=_size(outbox.events[index + 1 :]))
    raise LostError(f"no event {event_id[:100]!r} among the {len(outbox.events)} that are kept")


def _fitted(outbox: Outbox, away: bool) -> Outbox:
    """Forgets the oldest events until the rest fits, but what is still to be sent only while nobody is there."""
    size, count = outbox.size, 0
    most = len(outbox.events) if away else outbox.sent
    while count < most and size > outbox.room:
        size -= len(outbox.events[count].frame)
        count += 1
    if not count:
        return outbox
    before, sent = outbox.events[count - 1].id, max(0, outbox.sent - count)
    unsent = outbox.unsent_size - _size(outbox.events[outbox.sent : count])  # forgotten before it was sent
    return dataclasses.replace(
        outbox, before=before, events=outbox.events[count:], sent=sent, size=size, unsent_size=unsent
    )


def _size(events: tuple[Event, ...]) -> int:
    return sum(len(event.frame) for event in events)
