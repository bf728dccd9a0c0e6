"""Functions of a real MCP server, in a process of its own, which may fail, hang and die."""

import asyncio
import pathlib
import sys

import pytest

pytest.importorskip("mcp")

from tml_jax.background.backend import BackendError
from tml_jax.background.mcp_tools import MOST_SILENT, McpTools

SERVER = pathlib.Path(__file__).with_name("mcp_server.py")


def with_server(play, *command: str, seconds: float = 120.0) -> None:
    async def run() -> None:
        tools = McpTools(command or (sys.executable, str(SERVER)), seconds, list_seconds=seconds)
        try:
            await play(tools)
        finally:
            await tools.close()

    asyncio.run(run())


def test_functions_are_listed_and_called_and_a_server_that_died_is_started_again():
    async def play(tools):
        listed = {tool.name: tool for tool in await tools.list()}
        assert (
            set(listed) == {"add", "fail", "die", "hang", "later"} and listed["add"].description == "Adds two numbers."
        )
        assert set(listed["add"].parameters["properties"]) == {"a", "b"}
        assert await tools.call("add", {"a": 2, "b": 40}) == "the sum is 42"
        both = await asyncio.gather(*(tools.call("add", {"a": n, "b": 0}) for n in range(3)))
        assert both == ["the sum is 0", "the sum is 1", "the sum is 2"]
        for name, arguments in (("fail", {}), ("add", {"a": "no"}), ("nowhere", {})):
            assert (await tools.call(name, arguments)).startswith("error: ")
        with pytest.raises(BackendError, match="tools unavailable") as error:
            await tools.call("die", {})
        assert error.value.again
        assert await tools.call("add", {"a": 1, "b": 1}) == "the sum is 2"

    with_server(play)


def test_a_call_that_hangs_ends_no_other_and_several_end_the_server():
    async def play(tools):
        process = await tools.call("later", {"seconds": 0})
        tools._seconds = 5.0
        hangs = asyncio.create_task(tools.call("later", {"seconds": 60}))
        await asyncio.sleep(4.0)
        assert await tools.call("later", {"seconds": 2.0}) == process  # the other ends meanwhile
        with pytest.raises(BackendError, match="tools unavailable"):
            await hangs
        tools._seconds = 0.3
        hang = [tools.call("later", {"seconds": 60}) for _ in range(MOST_SILENT)]
        assert all(isinstance(end, BackendError) for end in await asyncio.gather(*hang, return_exceptions=True))
        tools._seconds = 120.0
        assert await tools.call("later", {"seconds": 0}) != process

    with_server(play)


def test_a_server_that_is_slow_to_start_is_waited_for_once_and_its_functions_are_there_later():
    async def run() -> None:
        tools = McpTools(["sh", "-c", f"sleep 1; exec {sys.executable} {SERVER}"], 120.0, list_seconds=0.1)
        began = asyncio.get_running_loop().time()
        try:
            with pytest.raises(BackendError, match="tools unavailable"):
                await tools.list()
            while True:  # each of these asks at once what has come
                try:
                    assert "add" in {tool.name for tool in await tools.list()}
                    return
                except BackendError:
                    assert asyncio.get_running_loop().time() < began + 120
                    await asyncio.sleep(0.05)
        finally:
            await tools.close()

    asyncio.run(run())


def test_a_server_that_prints_is_logged_in_one_line_that_names_it(caplog):
    printing = SERVER.with_name("mcp_printing.py")

    async def play(tools):
        for _ in range(3):
            assert await tools.call("add", {"a": 2, "b": 40}) == "the sum is 42"

    with_server(play, sys.executable, str(printing))
    (record,) = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert "mcp_printing.py" in record.getMessage() and "printed" in record.getMessage() and not record.exc_info


def test_a_server_that_hangs_or_is_none_is_given_up():
    async def hangs(tools):
        await tools.list()
        tools._seconds = 0.3
        with pytest.raises(BackendError, match="tools unavailable"):
            await tools.call("hang", {})

    with_server(hangs)

    async def nothing(tools):
        with pytest.raises(BackendError, match="tools unavailable"):
            await tools.list()

    with_server(nothing, "no-such-program-anywhere")
    with_server(nothing, sys.executable, "-c", "print(1)", seconds=10.0)
    with pytest.raises(ValueError, match="empty"):
        McpTools([])
