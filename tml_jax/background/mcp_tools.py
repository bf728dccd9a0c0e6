"""Functions of an MCP server that is started as a process, through the protocol's own SDK (extra `background`)."""

import asyncio
import logging
import shlex
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from mcp import Client, MCPError, StdioServerParameters

from tml_jax.background.backend import BackendError, Tool

MOST_RESULT = 20_000  # characters of what a function gives


class McpTools:
    """A server and its functions. The process starts with the first use, and again after it has died."""

    def __init__(self, command: str, seconds: float = 20.0) -> None:
        """Not started yet.

        Args:
          command: line that starts the server; it speaks MCP over its standard input and output.
          seconds: for it to start, and for each call.

        Raises:
          ValueError: the line cannot be split into words.
        """
        program, *arguments = shlex.split(command) or [""]
        if not program:
            raise ValueError("the command of an MCP server is empty: give one such as 'python server.py'")
        self._parameters = StdioServerParameters(command=program, args=arguments)
        self._seconds = seconds
        self._keeper: asyncio.Task | None = None
        self._lock = asyncio.Lock()

    async def list(self) -> Sequence[Tool]:
        """See `Tools`."""
        client = await self._connected()
        listed = await self._answer(client.list_tools())
        return [Tool(tool.name, tool.description or "", tool.input_schema) for tool in listed.tools]

    async def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """See `Tools`. What a function gives beside text is left out."""
        client = await self._connected()
        try:
            result = await self._answer(client.call_tool(name, dict(arguments)))
        except MCPError as error:
            return f"error: {error}"[:MOST_RESULT]
        text = "\n".join(part.text for part in result.content if part.type == "text")[:MOST_RESULT]
        return f"error: {text}" if result.is_error else text

    async def close(self) -> None:
        """See `Tools`."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    async def _answer(self, asked: Awaitable[Any]) -> Any:
        """Waits for the server; one that does not answer, or has died, is started anew next time."""
        try:
            return await asyncio.wait_for(asked, self._seconds)
        except MCPError as error:
            if self._keeper is not None and not self._keeper.done():
                raise
            raise BackendError("tools unavailable", again=True) from error
        except Exception as error:  # whatever a broken pipe raises in the SDK
            logging.warning("an MCP server failed: %r", error)
            await self.close()
            raise BackendError("tools unavailable", again=True) from error

    async def _connected(self) -> Client:
        async with self._lock:
            if self._keeper is None or self._keeper.done():
                ready: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
                self._keeper, self._ready = asyncio.create_task(self._keep(ready)), ready
            try:
                return await asyncio.wait_for(asyncio.shield(self._ready), self._seconds)
            except Exception as error:  # whatever keeps a process from starting
                logging.warning("an MCP server did not start: %r", error)
                await self.close()
                raise BackendError("tools unavailable", again=True) from error

    async def _keep(self, ready: asyncio.Future) -> None:
        """Holds the connection: what opens it must close it, in one and the same task."""
        try:
            async with Client(self._parameters) as client:
                ready.set_result(client)
                await asyncio.Event().wait()
        except Exception as error:  # whatever the SDK raises
            if not ready.done():
                ready.set_exception(error)
