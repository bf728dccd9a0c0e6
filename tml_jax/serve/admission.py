"""Who comes in when every place is taken: a line that remembers for a while whom it sent away, and in which order.

A client that is refused gets a ticket and its position, and asks again with the ticket. From then on it is in the line:
it is let in once there are more free places than clients before it, and loses its place if it does not ask again for
`patience` seconds. A ticket that was never shown again keeps nobody out, because most clients know no tickets: they
would stand in their own way each time they try again.
"""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Waiting:
    """One ticket that was given out: when it last asked, seconds, and whether it has ever come back."""

    ticket: str
    asked: float
    returned: bool = False


@dataclasses.dataclass(frozen=True)
class Line:
    """The tickets given out, first come first. Never changed."""

    waiting: tuple[Waiting, ...] = ()
    patience: float = 30.0
    longest: int = 1000


@dataclasses.dataclass(frozen=True)
class Refusal:
    """`position` in the line, 1 for who is next; `ticket` to ask again with, empty if too many were given out."""

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
    waiting = [other for other in line.waiting if now - other.asked <= line.patience]
    index = next((index for index, other in enumerate(waiting) if other.ticket == ticket), None)
    before = sum(other.returned for other in waiting[:index])
    if before < free:
        return dataclasses.replace(line, waiting=tuple(w for w in waiting if w.ticket != ticket)), None
    given = ticket
    if index is not None:
        waiting[index] = Waiting(ticket, now, returned=True)
    elif len(waiting) < line.longest:
        waiting.append(Waiting(ticket, now))
    else:
        given = ""
    return dataclasses.replace(line, waiting=tuple(waiting)), Refusal(given, before + 1)


class FullHouseError(Exception):
    """A client that is refused; `event` is the `error` event that tells it so."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__("server_full")
        self.event = _event(refusal)


def _event(refusal: Refusal) -> dict[str, Any]:
    back = f"come back with ?ticket={refusal.ticket}" if refusal.ticket else "come back later"
    message = f"every place is taken: you are number {refusal.position} in line; {back}"
    error = {"type": "server_error", "code": "server_full", "message": message, "param": None, "event_id": None}
    more = {"queue_position": refusal.position, "ticket": refusal.ticket, "retry_after_ms": 5000}
    return {"type": "error", "error": {**error, **more}}
