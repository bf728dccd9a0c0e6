"""Functions of an MCP server that is started as a process, through the protocol's own SDK (extra `background`)."""

import asyncio
import contextlib
import contextvars
import logging
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp import Client, MCPError, StdioServerParameters

from tml_jax.background.backend import BackendError, Tool
from tml_jax.background.seldom import Seldom

CONNECTION_CLOSED = -32000  # the SDK's code for a server that has gone
MOST_SILENT = 3  # calls in a row without an answer, after which the process is ended
MOST_RESULT = 20_000  # characters of what a function gives
SDK_LOGGER = "mcp.client.stdio"
_SERVER: contextvars.ContextVar[str] = contextvars.ContextVar("server", default="")


class McpTools:
    """A server and its functions. The process starts with the first use, and again after it has died or been silent."""

    def __init__(self, command: Sequence[str], seconds: float = 20.0, list_seconds: float = 5.0) -> None:
        """Not started yet.

        Args:
          command: program and arguments that start the server; it speaks MCP over its standard input and output.
          seconds: for it to start, and for each call.
          list_seconds: that a task waits for it to start and say what it has; then that goes on beside the tasks.

        Raises:
          ValueError: the command is empty.
        """
        if not command:
            raise ValueError("the command of an MCP server is empty: give one such as ['python', 'server.py']")
        self._parameters = StdioServerParameters(command=command[0], args=list(command[1:]))
        self._command, self._seldom = shlex.join(command), Seldom()
        self._seconds, self._list_seconds = seconds, list_seconds
        self._listing: asyncio.Task[Sequence[Tool] | None] | None = None
        self._until = 0.0  # time of the loop up to which tasks wait for the listing
        self._silent = 0
        self._keeper: asyncio.Task | None = None
        self._lock = asyncio.Lock()

    async def list(self) -> Sequence[Tool]:
        """See `Tools`. Asks once for as long as the process lives; what comes late is there for later tasks."""
        now = asyncio.get_running_loop().time()
        if self._listing is None:
            self._until = now + self._list_seconds
        if self._listing is None or (self._listing.done() and self._listing.result() is None):
            self._listing = asyncio.create_task(self._list())
        await asyncio.wait([self._listing], timeout=max(0.0, self._until - now))
        listed = self._listing.result() if self._listing.done() else None
        if listed is None:
            raise BackendError("tools unavailable")
        return listed

    async def _list(self) -> Sequence[Tool] | None:
        """What it has; None where it does not say."""
        try:
            listed = await self._asked(lambda client: client.list_tools())
        except (MCPError, BackendError):
            return None
        return [Tool(tool.name, tool.description or "", tool.input_schema) for tool in listed.tools]

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """See `Tools`. What a function gives beside text is left out."""
        try:
            result = await self._asked(lambda client: client.call_tool(name, dict(arguments)))
        except MCPError as error:
            return f"error: {error}"[:MOST_RESULT]
        text = "\n".join(part.text for part in result.content if part.type == "text")[:MOST_RESULT]
        return f"error: {text}" if result.is_error else text

    async def close(self) -> None:
        """See `Tools`."""
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.gather(self._listing, return_exceptions=True)
        if self._keeper is not None:
            await self._end(self._keeper)

    async def _asked(self, ask: Callable[[Client], Awaitable[Any]]) -> Any:
        """The server's answer; one that has died, does not start or is silent again and again is started anew."""
        async with self._lock:
            if self._keeper is None or self._keeper.done():
                self._ready, self._silent = asyncio.get_running_loop().create_future(), 0
                self._keeper = asyncio.create_task(self._keep(self._ready))
            keeper, ready = self._keeper, self._ready
        started = False
        try:
            client = await asyncio.wait_for(asyncio.shield(ready), self._seconds)
            started = True
            answer = await asyncio.wait_for(ask(client), self._seconds)
            self._silent = 0
            return answer
        except Exception as error:  # whatever a broken pipe raises in the SDK
            if isinstance(error, MCPError) and error.code != CONNECTION_CLOSED:
                self._silent = 0
                raise
            self._seldom.warn(f"the MCP server {self._command!r} failed: {_first(error)!r}")
            self._silent += 1
            alive = started and isinstance(error, TimeoutError) and self._silent < MOST_SILENT
            if not alive:  # others may have calls there that go well
                await self._end(keeper)
            raise BackendError("tools unavailable", again=True) from error

    async def _end(self, keeper: asyncio.Task) -> None:
        if self._keeper is keeper:  # or another has been started already
            self._keeper = None
            if self._listing is not None and self._listing.done() and self._listing.result() is not None:
                self._listing = None  # it may have others when it comes again
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)

    async def _keep(self, ready: asyncio.Future) -> None:
        """Holds the connection: what opens it must close it, in one and the same task."""
        try:
            async with _said_briefly(self._command, self._seldom), Client(self._parameters) as client:
                ready.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:  # whatever the SDK raises
            if not ready.done():
                ready.set_exception(error)


@contextlib.asynccontextmanager
async def _said_briefly(command: str, seldom: Seldom) -> AsyncIterator[None]:
    """What the SDK logs of this server, a traceback for each line that is no message, becomes one line in a while.

    The SDK reads in tasks that the one in here starts: they have its context, by which the server is told from others.
    """
    said = logging.getLogger(SDK_LOGGER)
    token = _SERVER.set(command)

    def brief(record: logging.LogRecord) -> bool:
        if _SERVER.get() != command:
            return True
        error = record.exc_info[1] if record.exc_info else None
        printed = " (is something printed there?)" if isinstance(error, ValueError) else ""
        seldom.warn(f"the MCP server {command!r}, standard output: {record.getMessage()}{printed}")
        return False

    said.addFilter(brief)
    try:
        yield
    finally:
        said.removeFilter(brief)
        _SERVER.reset(token)


def _first(error: BaseException) -> BaseException:
    """What is behind a group of errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
