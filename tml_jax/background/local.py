"""The embedded background: a calculator, a clock, a timer and a search over a folder. Needs no model and no network."""

import asyncio
import datetime
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from tml_jax.background.backend import BackendError, Tool
from tml_jax.background.calculator import CalculationError, calculate
from tml_jax.background.context import Package
from tml_jax.background.library import Library

LONGEST = 300  # characters of a paragraph that are told
_CLOCK = re.compile(r"(?:tell me )?(?:what(?:'s| is)? )?(?:the )?(?:current )?(?:time|date|day)(?: is it| now| today)*")
_TIMER = re.compile(
    r"(?:please )?(?:set |start )?(?:a |the )?(?:timer|alarm|remind me|wake me)(?: for| of| in| after)? "
    r"(?P<count>[0-9]{1,5}) ?(?P<unit>s|sec|second|min|minute|h|hour)s?\b(?:,? (?:to|for|that|about) (?P<what>.+))?"
)
_UNITS = {"s": ("second", 1), "m": ("minute", 60), "h": ("hour", 3600)}


def _only(name: str, description: str) -> Mapping[str, object]:
    """The schema of a function that takes one text."""
    text = {"type": "string", "description": description}
    return {"type": "object", "properties": {name: text}, "required": [name], "additionalProperties": False}


class LocalTools:
    """The calculator, the clock and the search, as functions."""

    def __init__(
        self, library: Library | None = None, clock: Callable[[], datetime.datetime] = datetime.datetime.now
    ) -> None:
        """Over what there is.

        Args:
          library: to search; None where there is none.
          clock: the time.
        """
        self._library, self._clock = library, clock

    async def list(self) -> Sequence[Tool]:
        """See `Tools`."""
        clock = {"type": "object", "properties": {}, "additionalProperties": False}
        tools = [
            Tool("calculate", "Works out arithmetic exactly.", _only("expression", "Such as (12 + 3) * 4 / 7 ^ 2.")),
            Tool("clock", "The time and the date.", clock),
        ]
        if self._library is not None:
            tools.append(Tool("search", "Finds a passage in the local documents.", _only("query", "A few words.")))
        return tools

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """See `Tools`."""
        if name == "clock":
            return self._clock().strftime("%H:%M on %A, %-d %B %Y")
        given = next((value for value in arguments.values() if isinstance(value, str)), "")
        if name == "calculate":
            try:
                return calculate(given)
            except CalculationError as error:
                return f"error: {error}"
        if name == "search" and self._library is not None:
            found = await asyncio.to_thread(self._library.best, given)
            return "nothing found" if found is None else f"{_shortened(found.text)} (from {found.source})"
        return f"error: no function {name}"

    async def close(self) -> None:
        """See `Tools`."""


class LocalBackend:
    """Does what it recognises by its words; anything else is searched for in the folder."""

    reads_turns = False

    def __init__(self, tools: LocalTools, sleep: Callable[[float], object] = asyncio.sleep) -> None:
        """Over the functions.

        Args:
          tools: what it can do.
          sleep: waits for seconds.
        """
        self._tools, self._sleep = tools, sleep

    def waits(self, request: str) -> bool:
        """See `Backend`: timers do."""
        return _TIMER.fullmatch(_plain(request)) is not None

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        asked = _plain(package.requests[-1])
        timer = _TIMER.fullmatch(asked)
        if timer is not None:
            count, (unit, length) = int(timer["count"]), _UNITS[timer["unit"][0]]
            seconds = count * length
            if seconds >= package.seconds:
                raise BackendError(f"longer than {package.seconds:g} s")
            yield ""
            await self._sleep(seconds)
            yield f"time is up after {count} {unit}{'s' * (count != 1)}" + (
                f": {timer['what']}" if timer["what"] else ""
            )
            return
        if _CLOCK.fullmatch(asked):
            yield f"it is {await self._tools.call('clock', {})}"
            return
        try:
            yield calculate(asked)
            return
        except CalculationError:
            pass
        found = await self._tools.call("search", {"query": package.request})
        if found.startswith("error:") or found == "nothing found":
            raise BackendError("nothing found")
        yield found

    async def close(self) -> None:
        """See `Backend`."""


def _plain(request: str) -> str:
    return request.strip().rstrip("?.!").lower()


def _shortened(text: str) -> str:
    """Whole sentences, or words, up to LONGEST characters."""
    if len(text) <= LONGEST:
        return text
    cut = text[:LONGEST]
    end = cut.rfind(". ") + 1
    return cut[:end] if end > LONGEST // 3 else cut.rsplit(" ", 1)[0] + " …"
