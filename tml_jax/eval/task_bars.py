"""What became of a conversation's tasks, as bars on its time axis, from its micro-turns alone."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tml_jax.background.grammar import Action, MalformedError, Mark, parse_request, parse_result
from tml_jax.background.tasks import State
from tml_jax.config import MICRO_TURN_SECONDS

if TYPE_CHECKING:
    from tml_jax.serve.words import MicroTurn

REFINED = "refined"


@dataclasses.dataclass(frozen=True)
class Bar:
    """One revision of a task.

    Attributes:
      number: of the task.
      start: seconds, when the model had asked for it.
      end: seconds, when it read the end of its result, or the task ended otherwise, or the conversation did.
      state: how it stood then, a `State`, or `refined`.
      asked: what for.
      found: what the model read of it.
    """

    number: int
    start: float
    end: float
    state: str
    asked: str
    found: str = ""

    @property
    def label(self) -> str:
        """In a few words."""
        if self.state == State.DONE:
            return f"{self.number}: {self.asked} → {self.found or '–'}"
        why = f": {self.found}" if self.state == State.FAILED and self.found else ""
        return f"{self.number}: {self.asked}" + (f" ({self.state}{why})" if self.state != State.RUNNING else "")


def task_bars(micro_turns: Sequence["MicroTurn"]) -> list[Bar]:
    """The tasks of a conversation, by start.

    Args:
      micro_turns: from the first, with the events of a desk; without any, the spans tell what was asked.

    Returns:
      A bar for each revision of each task.
    """
    end = MICRO_TURN_SECONDS * len(micro_turns)
    desk = any(turn.tasks for turn in micro_turns)
    running: dict[int, Bar] = {}
    bars: list[Bar] = []

    def close(number: int, time: float, state: str) -> None:
        if number in running:
            bar = running.pop(number)
            bars.append(dataclasses.replace(bar, end=max(time, bar.start), state=state))

    count = 0
    for turn in micro_turns:
        for number, mark, text in _read(turn):
            if number in running:
                bar = running[number]
                running[number] = dataclasses.replace(bar, found=f"{bar.found} {text}".strip())
            if mark != Mark.MORE:
                close(number, turn.start, State.DONE if mark == Mark.LAST else State.FAILED)
        events = [(event.what, event.number, event.text) for event in turn.tasks] if desk else list(_spans(turn, count))
        heard = turn.start + MICRO_TURN_SECONDS
        for what, number, text in events:
            if what in ("asked", REFINED):
                close(number, heard, REFINED)
                running[number] = Bar(number, heard, end, State.RUNNING, text)
                count = max(count, number)
            elif what == State.CANCELLED:
                for each in [number] if number else list(running):
                    close(each, heard, what)
    return sorted([*bars, *running.values()], key=lambda bar: (bar.start, bar.number))


def _read(turn: "MicroTurn") -> Iterator[tuple[int, Mark, str]]:
    """Pieces of results that the model began to read."""
    for given in turn.given:
        try:
            yield parse_result(given)
        except MalformedError:  # of a recording; a desk tags what it gives
            continue


def _spans(turn: "MicroTurn", count: int) -> Iterator[tuple[str, int, str]]:
    """(what, number, text) of the spans of a micro-turn, where `count` tasks have been asked for before."""
    for span in turn.spans:
        try:
            asked = parse_request(span.text)
        except MalformedError:
            continue
        if asked.action == Action.NEW:
            count += 1
            yield "asked", count, asked.text
        else:
            yield State.CANCELLED if asked.action == Action.CANCEL else REFINED, asked.number or 0, asked.text
