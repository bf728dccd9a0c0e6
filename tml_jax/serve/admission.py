"""Who comes in when every place is taken: a line that remembers for a while whom it sent away, and in which order.

A client that is refused gets a ticket and its position, and asks again with the ticket. It is let in once there are
more free places than clients before it. One that does not ask again for `patience` seconds loses its place.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Line:
    """Those who wait: (ticket, when they last asked, seconds), first come first. Never changed."""

    waiting: tuple[tuple[str, float], ...] = ()
    patience: float = 30.0
    longest: int = 1000


@dataclasses.dataclass(frozen=True)
class Refusal:
    """`position` in the line, 1 for who is next; `ticket` to ask again with, empty if even the line is full."""

    ticket: str
    position: int


def ask(line: Line, ticket: str, free: int, now: float) -> tuple[Line, Refusal | None]:
    """Asks for a place.

    Args:
      line: who waits.
      ticket: of the client, a new one if it has none.
      free: places that are free.
      now: seconds.

    Returns:
      The line after it, and the refusal; None where the client may come in.
    """
    waiting = [(other, asked) for other, asked in line.waiting if now - asked <= line.patience]
    tickets = [other for other, _ in waiting]
    before = tickets.index(ticket) if ticket in tickets else len(tickets)
    if before < free:
        return dataclasses.replace(line, waiting=tuple(w for w in waiting if w[0] != ticket)), None
    if before == len(waiting):
        if before >= line.longest:
            return dataclasses.replace(line, waiting=tuple(waiting)), Refusal("", before + 1)
        waiting.append((ticket, now))
    else:
        waiting[before] = (ticket, now)
    return dataclasses.replace(line, waiting=tuple(waiting)), Refusal(ticket, before + 1)
