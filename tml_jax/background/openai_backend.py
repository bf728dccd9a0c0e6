"""A background model behind any endpoint that speaks the OpenAI chat protocol (extra `background`).

The package goes there as messages with sound and pictures, the answer streams back, and the functions that the model
asks for are called in between.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import openai

from tml_jax.background.backend import BackendError, Tool, Tools
from tml_jax.background.bounded import PLAIN, TooLongError, bound
from tml_jax.background.context import Package, messages
from tml_jax.background.seldom import Seldom

ROUNDS = 8  # of calls of functions in one task
MOST_CALLS = 16  # in one round
MOST_ARGUMENTS = 100_000  # characters of all calls of a round, names and ids with them


class OpenAIBackend:
    """One model at one endpoint."""

    def __init__(self, model: str, base_url: str | None, api_key: str, tools: Sequence[Tools] = ()) -> None:
        """Connects when it is first used.

        Args:
          model: its name at the endpoint.
          base_url: such as http://localhost:8001/v1; None for OpenAI's own.
          api_key: of the endpoint; anything where it asks for none.
          tools: what the model may call; of two of the same name the first counts.
        """
        client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [bound]}, timeout=None)
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=api_key,
            max_retries=0,  # retries and times are the runner's
            timeout=None,
            http_client=client,
            default_headers=PLAIN,
        )
        self._model, self._tools, self._seldom = model, tuple(tools), Seldom()

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        told, owners, functions = messages(package), {}, []
        lists = await asyncio.gather(*map(self._listed, self._tools))
        for tools, listed in zip(self._tools, lists, strict=True):
            for tool in listed:
                if tool.name not in owners:
                    owners[tool.name] = tools
                    functions.append(_function(tool))
        for _ in range(ROUNDS):
            text, calls = [], {}
            async with contextlib.aclosing(self._stream(told, functions, calls)) as pieces:
                async for piece in pieces:
                    text.append(piece)
                    yield piece
            if not calls:
                return
            asked = list(calls.values())
            told.append({"role": "assistant", "content": "".join(text) or None, "tool_calls": asked})
            for call in asked:
                result = await _called(owners, call["function"])
                told.append({"role": "tool", "tool_call_id": call["id"], "content": result})
                yield ""
            yield " "  # what was said before and after a call are no one word
        raise BackendError("too many steps")

    async def close(self) -> None:
        """See `Backend`."""
        await self._client.close()
        for tools in self._tools:
            await tools.close()

    async def _stream(
        self, told: list[dict[str, Any]], functions: list[dict[str, Any]], calls: dict[object, dict[str, Any]]
    ) -> AsyncIterator[str]:
        """One answer: yields its text, and puts the calls that it asks for into `calls`, in their order."""
        more = {"tools": functions} if functions else {}
        finished = False
        try:
            stream = await self._client.chat.completions.create(model=self._model, messages=told, stream=True, **more)
            async with stream:
                async for chunk in stream:
                    for choice in (chunk.choices or [])[:1]:
                        finished |= choice.finish_reason is not None
                        for call in choice.delta.tool_calls or ():
                            _add(calls, call)
                        piece = choice.delta.content or ""
                        if not isinstance(piece, str):
                            raise TypeError(f"content is a {type(piece).__name__}")
                        yield piece
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as error:
            raise self._failed("unavailable", error, again=True) from error
        except openai.APIStatusError as error:
            raise self._failed(f"refused {error.status_code}", error) from error
        except Exception as error:
            # A stream that is no JSON, or JSON of another shape or too deep, surfaces as whatever the SDK meets first.
            raise self._failed("unreadable", error, again=True) from error
        if not finished:
            raise self._failed("cut off", None, again=True)

    def _failed(self, reason: str, error: Exception | None, again: bool = False) -> BackendError:
        """What is told to the model; the log says where it was, and why, but nothing that was said, and no key."""
        if isinstance(error, openai.APIStatusError):
            why = f"status {error.status_code}"
        elif isinstance(error, openai.APIConnectionError):
            why = str(error.__cause__ or error)
        elif isinstance(error, TooLongError):
            why = str(error)
        else:
            why = type(error).__name__ if error else "its answer has no end"
        self._seldom.warn(f"the background at {self._client.base_url.copy_with(userinfo=b'')}: {reason} ({why})")
        return BackendError(reason, again)

    async def _listed(self, tools: Tools) -> Sequence[Tool]:
        """Functions that there are; where they cannot be reached, the model has to do without."""
        try:
            return await tools.list()
        except BackendError as error:
            self._seldom.warn(f"functions are missing: {error}")
            return ()


def _function(tool: Tool) -> dict[str, Any]:
    described = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": described}


def _add(calls: dict[object, dict[str, Any]], delta: Any) -> None:
    """A piece of a call to those that there are; one without an index has an id or goes on with the last. What is too
    much of it is a ValueError."""
    empty = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    key = delta.index
    if key is None:
        key = delta.id or next(reversed(calls), None)
    if key not in calls and len(calls) == MOST_CALLS:
        return
    call = calls.setdefault(key, empty)
    call["id"] += delta.id or ""
    if delta.function is not None:
        call["function"]["name"] += delta.function.name or ""
        call["function"]["arguments"] += delta.function.arguments or ""
    if sum(len(call["id"]) + sum(map(len, call["function"].values())) for call in calls.values()) > MOST_ARGUMENTS:
        raise ValueError(f"calls of more than {MOST_ARGUMENTS} characters")


async def _called(owners: Mapping[str, Tools], function: Mapping[str, str]) -> str:
    """What a function gives, or what is wrong with the call: the model may do better next time."""
    owner = owners.get(function["name"])
    if owner is None:
        return f"error: no function {function['name']!r}; there are {', '.join(owners)}"
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except (ValueError, RecursionError) as error:
        return f"error: the arguments are not JSON: {error}"
    if not isinstance(arguments, dict):
        return "error: the arguments are no JSON object"
    try:
        return await owner.call(function["name"], arguments)
    except BackendError as error:
        return f"error: {error}"
