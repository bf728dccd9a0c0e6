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
    """One ticket that was given out: when it last asked, seconds, whether it has ever come back, and whose it is."""

    ticket: str
    asked: float
    returned: bool = False
    owner: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """The tickets given out, first come first, and how many there may be, of all and of one owner. Never changed."""

    waiting: tuple[Waiting, ...] = ()
    patience: float = 30.0
    longest: int = 100
    most_of_one: int = 0


@dataclasses.dataclass(frozen=True)
class Refusal:
    """`position` in the line, 1 for who is next; `ticket` to ask again with, empty if too many are out, of all or of
    this owner."""

    ticket: str
    position: int


def waiting_in(line: Line, now: float) -> tuple[Waiting, ...]:
    """Who is still in line."""
    return tuple(other for other in line.waiting if now - other.asked <= line.patience)


def ask(line: Line, ticket: str, free: int, now: float, owner: str = "") -> tuple[Line, Refusal | None]:
    """Asks for a place.

    Args:
      line: who waits.
      ticket: of the client, a new one if it has none.
      free: places that are free.
      now: seconds.
      owner: of the ticket, a client's key or address.

    Returns:
      The line after it, and the refusal; None where the client may come in.
    """
    waiting = list(waiting_in(line, now))
    index = next((index for index, other in enumerate(waiting) if other.ticket == ticket), None)
    before = sum(other.returned for other in waiting[:index])
    if before < free:
        return dataclasses.replace(line, waiting=tuple(w for w in waiting if w.ticket != ticket)), None
    given = ticket
    if index is not None:
        waiting[index] = Waiting(ticket, now, True, waiting[index].owner)
    elif (not line.longest or len(waiting) < line.longest) and (
        not line.most_of_one or sum(other.owner == owner for other in waiting) < line.most_of_one
    ):
        waiting.append(Waiting(ticket, now, owner=owner))
    else:
        given = ""
    return dataclasses.replace(line, waiting=tuple(waiting)), Refusal(given, before + 1)


class RefusedError(Exception):
    """A client that gets no place.

    Attributes:
      code: why.
      event: the `error` event that tells it so.
      may_wait: whether it may come back in a while, and need change nothing.
    """

    def __init__(self, code: str, message: str, may_wait: bool, **more: Any) -> None:
        super().__init__(code)
        self.code, self.may_wait = code, may_wait
        error = {"type": "server_error", "code": code, "message": message, "param": None, "event_id": None}
        self.event = {"type": "error", "error": {**error, **more}}


def no_place(refusal: Refusal, overloaded: bool) -> RefusedError:
    """The refusal of a client that `ask` did not let in.

    Args:
      refusal: by `ask`.
      overloaded: whether there are places that nobody gets, because the server is too slow.
    """
    code = "server_overloaded" if overloaded else "server_full"
    why = "the server is overloaded and lets nobody in" if overloaded else "every place is taken"
    back = (
        f"come back with ?ticket={refusal.ticket}" if refusal.ticket else "no more are taken into it, come back later"
    )
    message = f"{why}: you are number {refusal.position} in line; {back}"
    more = {"queue_position": refusal.position, "ticket": refusal.ticket, "retry_after_ms": 5000}
    return RefusedError(code, message, True, **more)


def too_many(most: int) -> RefusedError:
    """The refusal of a client that has as many sessions as it may."""
    message = f"you have as many sessions as one key may have here ({most}): end one, or use another key"
    return RefusedError("too_many_sessions", message, False)
