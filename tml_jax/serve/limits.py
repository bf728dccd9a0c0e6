"""What one client may take of a server: how much at once, for how long, how often. 0 is no limit everywhere."""

import dataclasses

BURST_SECONDS = 10.0  # of events and bytes that may come at once, as a recording does


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
      events_per_second: of one connection, over time; sound in pieces of 10 ms makes 100.
      bytes_per_second: of one connection, over time, both what the client sends and what it is answered at once: short
        events may ask for long answers. A character of text counts as one. Sound in real time takes 64 KB.
      session_seconds: after which a session ends, its client there or not.
      sessions_per_key: sessions at once, and tickets in line, of one API key or of the client secrets made with it;
        where the server asks for no key, of one address.
      queue: tickets that may be in line.
      request_seconds: from the beginning of a connection to the end of its first request.
    """

    events_per_second: float = 1000.0
    bytes_per_second: float = 4 * 2**20
    session_seconds: float = 0.0
    sessions_per_key: int = 0
    queue: int = 100
    request_seconds: float = 10.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) >= 0:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: expected a number from 0 on")


class RateError(Exception):
    """A client sends too much, too fast; says what."""


@dataclasses.dataclass(frozen=True)
class Rate:
    """How much a connection may still send at once. Never changed.

    Attributes:
      limits: of the server.
      events: that it has sent, less what has been forgiven with time.
      size: bytes, likewise, with those of answers.
      at: when that was, seconds.
    """

    limits: Limits = Limits()
    events: float = 0.0
    size: float = 0.0
    at: float = 0.0


def answered(rate: Rate, size: int) -> Rate:
    """The client was answered: so many bytes count as if it had sent them, against what it sends next."""
    return dataclasses.replace(rate, size=rate.size + size)


def spend(rate: Rate, size: int, now: float) -> Rate:
    """One more frame has come.

    Args:
      rate: so far.
      size: bytes of it.
      now: seconds, of any clock.

    Returns:
      What the connection may send after it.

    Raises:
      RateError: it may not have sent this one.
    """
    limits, passed = rate.limits, max(0.0, now - rate.at)
    events = max(0.0, rate.events - passed * limits.events_per_second) + 1
    sent = max(0.0, rate.size - passed * limits.bytes_per_second) + size
    for what, count, most in (("events", events, limits.events_per_second), ("bytes", sent, limits.bytes_per_second)):
        if most and count > BURST_SECONDS * most:
            what += " (answers count)" if what == "bytes" else ""
            raise RateError(f"too many {what}: expected {most:g} a second, and {BURST_SECONDS * most:g} at once")
    return Rate(limits, events, sent, now)
