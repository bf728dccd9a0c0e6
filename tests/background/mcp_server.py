"""An MCP server over standard input and output, made with the protocol's own SDK."""

import asyncio
import os
import time

from mcp.server import MCPServer

server = MCPServer("tests")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"the sum is {a + b}"


@server.tool()
def fail() -> str:
    """Fails."""
    raise RuntimeError("on purpose")


@server.tool()
def die() -> str:
    """Ends the process."""
    os._exit(3)


@server.tool()
def hang() -> str:
    """Does not answer."""
    time.sleep(1000)
    return ""


@server.tool()
async def later(seconds: float) -> str:
    """Answers later, and says which process it is."""
    await asyncio.sleep(seconds)
    return str(os.getpid())


if __name__ == "__main__":
    server.run()
