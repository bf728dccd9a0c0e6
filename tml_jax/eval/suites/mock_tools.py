"""Mock tools of a benchmark in the background: the model hands over what is to be done, and the calls are written down.

Tools are known by the calls that the benchmark expects. What they answer is made up, but has what later calls of the
same item refer to: `$RESULT_0.flights[0].flight_id` is the id of a flight in the answer to the item's first call.
"""

import dataclasses
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from tml_jax.background.backend import Backend, BackendError, Tool, Tools
from tml_jax.background.context import Package
from tml_jax.background.desk import Background, Desk
from tml_jax.background.stepped import SteppedRunner
from tml_jax.config import Config
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.eval.suites.transcripts import json_objects

MOST_ITEMS = 100  # of a list in a made-up answer
_REFERENCE = re.compile(r"\$RESULT_(\d{1,3})\.(.+)")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d{1,3})\]")
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
Call = Mapping[str, Any]


class MockTools:
    """The tools of a benchmark, as one item finds them; see `Tools`."""

    def __init__(self, known: Sequence[Call], expected: Sequence[Call]) -> None:
        """With no call made yet.

        Args:
          known: calls of the whole benchmark, which tell what tools there are.
          expected: calls of this item, which tell what their answers must have.
        """
        self._tools = _described(known)
        self._left = list(zip((call["function"] for call in expected), answers(expected)))
        self.calls: list[Call] = []

    async def list(self) -> Sequence[Tool]:
        """See `Tools`."""
        return list(self._tools.values())

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """See `Tools`."""
        self.calls.append({"function": name, "args": dict(arguments)})
        if name not in self._tools:
            return f"error: no function {name}"
        place = next((place for place, (function, _) in enumerate(self._left) if function == name), None)
        return json.dumps({"status": "ok"} if place is None else self._left.pop(place)[1])

    async def close(self) -> None:
        """See `Tools`."""


class DirectCalls:
    """A background without a model: makes the calls `{"function": …, "args": {…}}` that the task itself consists of."""

    def __init__(self, tools: Tools) -> None:
        """Over the tools."""
        self._tools = tools

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        calls = [call for call in json_objects(package.requests[-1]) if isinstance(call.get("function"), str)]
        if not calls:
            raise BackendError("nothing to call")
        for call in calls:
            given = call.get("args")
            yield f"{await self._tools.call(call['function'], given if isinstance(given, dict) else {})} "

    async def close(self) -> None:
        """See `Backend`."""


@dataclasses.dataclass(frozen=True)
class ToolDesk:
    """One item's desk, and the tools behind it."""

    desk: Desk
    tools: MockTools


def tool_desk(
    known: Sequence[Call],
    expected: Sequence[Call],
    backend: Callable[[Tools], Backend] | None,
    tokenizer: Tokenizer,
    config: Config,
) -> ToolDesk:
    """A desk for one item.

    Args:
      known: calls of the whole benchmark.
      expected: of the item.
      backend: makes what does the tasks with the tools; how long it takes counts. None for `DirectCalls`.
      tokenizer: of the model.
      config: of the model.

    Returns:
      The desk and its tools.
    """
    tools = MockTools(known, expected)
    runner = SteppedRunner((backend or DirectCalls)(tools), timed=backend is not None)
    return ToolDesk(Background(runner, tokenizer, config).open(), tools)


def answers(expected: Sequence[Call]) -> list[Any]:
    """What each of an item's calls is answered with, JSON types: all that later calls refer to."""
    made: list[Any] = [{"status": "ok"} for _ in expected]
    for text in (text for call in expected for text in _texts(call.get("args", {}))):
        found = _REFERENCE.fullmatch(text)
        if found is not None and int(found[1]) < len(made):
            steps = [name or int(index) for name, index in _STEP.findall(found[2])]
            number = int(found[1])
            made[number] = _with(made[number], steps, f"{steps[-1]}-{number}")
    return made


def _described(calls: Sequence[Call]) -> dict[str, Tool]:
    """Each function with the arguments that it is called with anywhere."""
    seen: dict[str, dict[str, Any]] = {}
    for call in calls:
        properties = seen.setdefault(call["function"], {})
        for name, value in call.get("args", {}).items():
            properties.setdefault(name, {"type": _KINDS.get(type(value), "string")})
    schema = lambda properties: {"type": "object", "properties": properties}  # noqa: E731
    return {name: Tool(name, name.replace("_", " "), schema(properties)) for name, properties in seen.items()}


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in inner for text in _texts(part)]


def _with(value: Any, steps: Sequence[str | int], leaf: str) -> Any:
    """`value` with a leaf at the end of the steps; what is in their way is replaced."""
    if not steps:
        return leaf
    first, rest = steps[0], steps[1:]
    if isinstance(first, int):
        listed = (value if isinstance(value, list) else []) + [{}] * MOST_ITEMS
        kept = max(first + 1, len(value) if isinstance(value, list) else 0)
        return [*listed[:first], _with(listed[first], rest, leaf), *listed[first + 1 : kept]]
    mapping = value if isinstance(value, dict) else {}
    return {**mapping, first: _with(mapping.get(first, {}), rest, leaf)}
