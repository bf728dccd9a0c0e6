"""What the server says of itself to clients that know its own events (`?duplex=1`, `?resumable=1`).

Each notice has a `code`, a `message`, and a number where there is one:

  server_overloaded     ticks have been late for a while: answers come late, and nobody new is let in
  overload_ended        they are on time again
  windows_skipped       `windows` of 200 ms were passed over unheard, because the server was too far behind
  input_audio_dropped   `milliseconds` of sound without stamps were dropped to hear again what is sent now (`lag`)

A `duplex.micro_turn` has a list of them in `notices`; other clients get each as a `session.notice` event.
"""

import dataclasses

from tml_jax.config import INPUT_RATE
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.session_settings import Object


@dataclasses.dataclass(frozen=True)
class Told:
    """What a client knows: samples dropped and windows passed over so far, and whether the server is overloaded."""

    dropped: int = 0
    passed: int = 0
    overloaded: bool = False


def news(told: Told, live: LiveSession) -> tuple[Told, list[Object]]:
    """What a client does not know yet.

    Args:
      told: what it knows.
      live: its session.

    Returns:
      What it knows then, and the notices that tell it.
    """
    now, made = Told(live.counts.dropped, live.passed, live.overloaded), []
    if now.overloaded and not told.overloaded:
        made.append({"code": "server_overloaded", "message": "the server is overloaded: answers come late"})
    if told.overloaded and not now.overloaded:
        made.append({"code": "overload_ended", "message": "the server is in time again"})
    windows = now.passed - told.passed
    if windows:
        message = f"the server was too far behind: {windows} windows of 200 ms were not heard"
        made.append({"code": "windows_skipped", "message": message, "windows": windows})
    milliseconds = 1000 * (now.dropped - told.dropped) // INPUT_RATE
    if milliseconds:
        message = f"sound came {milliseconds} ms late after a gap: so much of it was dropped, to hear what is said now"
        made.append({"code": "input_audio_dropped", "message": message, "milliseconds": milliseconds})
    return now, made


def with_notices(events: list[Object], notices: list[Object]) -> list[Object]:
    """The events of a micro-turn, with notices."""
    if any(event["type"] == "duplex.micro_turn" for event in events):
        return [{**event, "notices": notices} for event in events]
    return events + [{"type": "session.notice", **notice} for notice in notices]
