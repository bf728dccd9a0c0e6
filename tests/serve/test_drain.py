"""The end of a server. In a file of its own, because an engine belongs to one scheduler at a time."""

import asyncio

import pytest
from served import Served, receive, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus


def test_a_draining_server_lets_nobody_in_and_ends_the_rest(engine):
    with Served(engine) as served, served.socket() as socket:
        receive(socket, "session.created")
        draining = asyncio.run_coroutine_threadsafe(served.server.drain(0.5), served.loop)
        wait_until(lambda: served.get("/healthz")[0] == 503)
        with pytest.raises(InvalidStatus) as refused:
            served.socket()
        assert refused.value.response.status_code == 503
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1001
        draining.result(60)


def test_a_drain_that_is_hurried_waits_no_longer(engine):
    with Served(engine) as served, served.socket() as socket:
        receive(socket, "session.created")
        draining = asyncio.run_coroutine_threadsafe(served.server.drain(3600.0, lambda: True), served.loop)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1001
        draining.result(60)
