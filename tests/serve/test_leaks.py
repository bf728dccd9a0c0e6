"""Clients that come and go, in every way there is, leave nothing behind: no place, task, thread, socket or memory."""

import asyncio
import os
import pathlib
import socket as sockets

import pytest
from served import Served, receive, resident, send, threads, wait_until

AROUND = 4  # clients before the first count: pools and caches fill


@pytest.fixture(scope="module")
def served(warm_engine):
    with Served(warm_engine, resume_seconds=0.2) as served:
        yield served


def come_and_go(served: Served, number: int) -> None:
    """One client, that says goodbye or is cut off, after sound or nonsense or nothing; duplex or not."""
    with served.socket("?model=small" + ("&duplex=1" if number % 2 else "")) as socket:
        receive(socket, "session.created")
        if number % 4 < 2:
            send(
                socket, type="input_audio_buffer.append" if number % 2 == 0 else "duplex.input", audio="AAAA", offset=0
            )
        if number % 3 == 0:
            socket.send("{")
            receive(socket, "error")
        if number % 5 == 0:
            socket.socket.shutdown(sockets.SHUT_RDWR)


def left_behind(served: Served) -> dict[str, int]:
    wait_until(lambda: served.scheduler.sessions == 0 and len(served.server.calls) == 0)

    async def tasks() -> int:
        await asyncio.sleep(0.3)  # for connections that are just closing
        return len(asyncio.all_tasks())

    return {
        "tasks": served.call(tasks()),
        "threads": threads(),
        "files": len(os.listdir("/proc/self/fd")),
        "places": served.scheduler.engine.slots - served.scheduler.free,
    }


def check_nothing_more(served: Served, before: dict[str, int]) -> None:
    after = left_behind(served)
    assert all(after[name] <= before[name] for name in before), (before, after)  # less is what was just closing


def cycles(served: Served, first: int, count: int) -> None:
    for number in range(first, first + count):
        wait_until(lambda: served.scheduler.free)
        come_and_go(served, number)


@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_a_few_clients_leave_nothing(served):
    cycles(served, 0, AROUND)
    before = left_behind(served)
    cycles(served, AROUND, 5)
    check_nothing_more(served, before)
    assert before["places"] == 0
    assert served.scheduler.engine.recompilations == 0


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/fd").exists(), reason="counts open files as Linux shows them")
def test_a_thousand_clients_leave_nothing(served):
    cycles(served, 0, 200)
    before, memory = left_behind(served), resident()
    cycles(served, 200, 1000)
    check_nothing_more(served, before)
    grown = resident() - memory
    print(f"1,000 clients: memory grew by {grown / 2**20:.1f} MiB")
    assert grown < 8 * 2**20  # 8 KiB a client; their events and sound took more than 1 MiB each
