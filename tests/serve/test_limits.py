"""What one client may take: how much at once, for how long, how often, and how long to ask for anything at all."""

import contextlib
import json
import logging
import socket as sockets
import struct
from socket import create_connection

import pytest
from openai import OpenAI
from scripted import Line, ScriptedEngine
from served import KEY, Served, receive, send, type_in, wait_until
from websockets.exceptions import ConnectionClosed

from tml_jax.serve import listening as listening_module
from tml_jax.serve.limits import BURST_SECONDS, Limits, Rate, RateError, spend

OTHER = "another-key"


def quiet(index, arrived) -> Line:
    return Line()


def closed(socket) -> tuple[int, str]:
    """Code and reason with which the server ends a connection."""
    with pytest.raises(ConnectionClosed) as ended:
        while True:
            socket.recv(timeout=60)
    return ended.value.rcvd.code, ended.value.rcvd.reason


def test_a_client_may_send_a_burst_and_then_its_rate():
    rate = Rate(Limits(events_per_second=2, bytes_per_second=100))
    for _ in range(int(2 * BURST_SECONDS)):
        rate = spend(rate, 10, 5.0)
    with pytest.raises(RateError, match="too many events: expected 2 a second, and 20 at once"):
        spend(rate, 10, 5.4)
    rate = spend(rate, 10, 5.5)
    with pytest.raises(RateError, match="too many bytes"):
        spend(rate, 900, 6.0)
    assert spend(rate, 900, 1000.0).events == 1.0


def test_a_client_without_a_rate_may_send_anything():
    rate = Rate(Limits(events_per_second=0, bytes_per_second=0))
    for _ in range(1000):
        rate = spend(rate, 2**30, 0.0)


@pytest.mark.parametrize("limits", [{"queue": -1}, {"events_per_second": float("nan")}])
def test_a_limit_that_is_none_is_refused(limits):
    with pytest.raises(ValueError, match="expected a number from 0 on"):
        Limits(**limits)


@pytest.mark.parametrize("frame", ["{}", bytes(2)])
@pytest.mark.parametrize("limits", [{"events_per_second": 3.0}, {"bytes_per_second": 6.0}])
def test_who_sends_too_much_too_fast_is_told_and_cut_off_and_the_others_are_not(frame, limits):
    with Served(ScriptedEngine(quiet, slots=2), limits=Limits(**limits)) as served:
        with served.socket() as other, served.socket() as socket:
            receive(socket, "session.created")
            with contextlib.suppress(ConnectionClosed):  # it may be closed before the last one
                for _ in range(40):  # thirty may come at once
                    socket.send(frame)
            codes = []
            while "rate_limit_exceeded" not in codes:
                codes.append(receive(socket, "error")["error"]["code"])
            assert 25 <= len(codes) <= 36 and closed(socket) == (1008, "rate_limit_exceeded")
            type_in(other, "hello") if "events_per_second" in limits else None
            receive(other, "session.created")
            assert 'tml_sessions_cut_off_total{reason="rate_limit_exceeded"} 1.0' in served.get("/metrics")[1]


def test_answers_count_so_that_short_events_do_not_ask_for_long_ones_without_end():
    """An empty `session.update` is answered with all settings, as the protocol has it."""
    limits, long = Limits(bytes_per_second=20_000), "x" * 20_000
    with Served(ScriptedEngine(quiet, slots=2), limits=limits) as served, served.socket() as socket:
        receive(socket, "session.created")
        send(socket, type="session.update", session={"type": "realtime", "instructions": long})
        receive(socket, "session.updated")
        answers = 0
        while answers < 1000:
            socket.send('{"type": "session.update", "session": {}}')
            event = json.loads(socket.recv(timeout=60))
            if event["type"] == "error":
                break
            answers += 1
        assert event["error"]["code"] == "rate_limit_exceeded" and "answers count" in event["error"]["message"]
        assert closed(socket) == (1008, "rate_limit_exceeded") and answers >= 8


def test_who_comes_back_has_no_more_to_spend_than_before():
    limits = Limits(events_per_second=1.0)
    with Served(ScriptedEngine(quiet), limits=limits) as served, served.socket("?resumable=1") as first:
        created = receive(first, "session.created")
        for _ in range(9):
            first.send("{}")
            receive(first, "error")
        with served.socket(f"?resume={created['session']['resume']['token']}&after={created['event_id']}") as second:
            with contextlib.suppress(ConnectionClosed):  # it may be closed before the last one
                for _ in range(9):
                    second.send("{}")
            assert closed(second) == (1008, "rate_limit_exceeded")


def test_a_session_ends_when_its_time_is_up_and_its_client_is_told():
    with Served(ScriptedEngine(quiet), limits=Limits(session_seconds=1.0)) as served:
        with served.socket("?duplex=1") as socket:
            created = receive(socket, "session.created")
            assert created["session"]["expires_at"] > 1e9
            type_in(socket, "hello")
            error = receive(socket, "error")["error"]
            assert error["code"] == "session_expired" and "1 seconds" in error["message"]
            assert closed(socket) == (1008, "session_expired")
        wait_until(lambda: served.scheduler.free)
        with served.socket(f"?resume={created['session']['resume']['token']}&after={created['event_id']}") as back:
            assert receive(back, "error")["error"]["code"] == "resume_ended"
    with Served(ScriptedEngine(quiet), limits=Limits(session_seconds=600.0)) as served:
        with served.socket("?duplex=1") as socket:  # one that is held has no longer
            receive(socket, "session.created")
            type_in(socket, "hello")
            receive(socket, "duplex.micro_turn")
            socket.socket.shutdown(sockets.SHUT_RDWR)
        wait_until(lambda: "tml_sessions_held 1.0" in served.get("/metrics")[1])
        (call,) = served.server.calls._open
        served.loop.call_soon_threadsafe(served.server.calls._time_up, call)
        wait_until(lambda: served.scheduler.free)  # resume_seconds are 30
        assert served.server.calls._ends == {}


def with_key(key: str) -> dict:
    return {"headers": {"Authorization": f"Bearer {key}"}}


def refused(socket) -> str:
    """The code of the error that a client gets in place of a session."""
    return json.loads(socket.recv(timeout=60))["error"]["code"]


def test_one_key_has_no_more_than_its_sessions_and_its_client_secrets_are_of_it():
    limits = Limits(sessions_per_key=1)
    with Served(ScriptedEngine(quiet, slots=3), keys=(KEY, OTHER), limits=limits) as served:
        client = OpenAI(api_key=OTHER, base_url=f"http://127.0.0.1:{served.port}/v1", max_retries=0)
        secret = client.realtime.client_secrets.create().value
        with served.socket("?duplex=1") as mine:
            receive(mine, "session.created")
            with served.socket() as second:
                assert refused(second) == "too_many_sessions" and closed(second) == (1008, "too_many_sessions")
            with served.socket(**with_key(OTHER)) as theirs:
                receive(theirs, "session.created")
                with served.socket(**with_key(secret)) as from_secret:
                    assert refused(from_secret) == "too_many_sessions"
            type_in(mine, "hello")
            receive(mine, "duplex.micro_turn")
            mine.socket.shutdown(sockets.SHUT_RDWR)
        wait_until(lambda: served.scheduler.sessions == 1)
        with served.socket() as second:  # one that is held is one, too
            assert refused(second) == "too_many_sessions"
        with served.socket(**with_key(secret)) as from_secret:
            receive(from_secret, "session.created")
        assert 'tml_sessions_refused_total{code="too_many_sessions"} 3.0' in served.get("/metrics")[1]


def test_without_keys_sessions_are_counted_by_address():
    with Served(ScriptedEngine(quiet, slots=2), keys=(), limits=Limits(sessions_per_key=1)) as served:
        with served.socket() as first, served.socket() as second:
            receive(first, "session.created")
            assert refused(second) == "too_many_sessions"


def test_the_line_has_an_end():
    with Served(ScriptedEngine(quiet), limits=Limits(queue=1)) as served, served.socket() as first:
        receive(first, "session.created")
        with served.socket() as second:
            error = receive(second, "error")["error"]
            assert error["ticket"] and error["code"] == "server_full"
        with served.socket() as third:
            error = receive(third, "error")["error"]
            assert error["ticket"] == "" and "come back later" in error["message"]
        text = served.get("/metrics")[1]
        assert "tml_queue 1.0" in text and "tml_slots 1.0" in text
        assert 'tml_sessions_refused_total{code="server_full"} 2.0' in text


HALVES = [
    b"",
    b"GET /v1/realtime HTTP/1.1\r\nHost: here\r\n",
    b"POST /v1/realtime/calls HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer the-key\r\n"
    b"Content-Type: application/sdp\r\nContent-Length: 1000\r\n\r\nv=0",
]


@pytest.mark.parametrize("half", HALVES)
def test_a_connection_that_never_asks_is_closed(half):
    with Served(ScriptedEngine(quiet), limits=Limits(request_seconds=0.5)) as served:
        with served.socket("?duplex=1") as socket, create_connection(("127.0.0.1", served.port), timeout=60) as raw:
            raw.sendall(half)
            answer = b""
            while piece := raw.recv(1000):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408 ")
            receive(socket, "session.created")
            send(socket, type="duplex.input", offset=0, audio="AAA=")
            for _ in range(4):  # nor are those closed that have asked
                receive(socket, "duplex.micro_turn")
        assert not served.server.timer._timers


def test_a_connection_that_has_asked_may_ask_again():
    with Served(ScriptedEngine(quiet), limits=Limits(request_seconds=0.3)) as served:
        with create_connection(("127.0.0.1", served.port), timeout=60) as raw:
            for _ in range(2):
                raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
                assert raw.recv(1000).startswith(b"HTTP/1.1 200 ")
                with pytest.raises(TimeoutError):
                    raw.settimeout(0.6)
                    raw.recv(1)
                raw.settimeout(60)
            raw.sendall(HALVES[2])  # but not keep its body to itself
            assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_request_that_is_torn_is_nothing_to_log(caplog):
    with (
        caplog.at_level(logging.WARNING),
        Served(ScriptedEngine(quiet), limits=Limits(request_seconds=0.3)) as served,
    ):
        for path in (b"calls", b"client_secrets"):
            torn = HALVES[2].replace(b"calls", path)
            with create_connection(("127.0.0.1", served.port), timeout=60) as raw:
                raw.sendall(torn)
                assert raw.recv(1000).startswith(b"HTTP/1.1 408 ")
            for linger in (struct.pack("ii", 1, 0), struct.pack("ii", 0, 0)):
                with create_connection(("127.0.0.1", served.port), timeout=60) as raw:
                    raw.sendall(torn)
                    assert served.get("/healthz")[0] == 200  # it has arrived
                    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, linger)
        wait_until(lambda: not served.server.timer._timers)
        assert served.get("/healthz")[0] == 200
    assert not caplog.records, caplog.text


def test_a_client_that_does_not_read_its_answers_is_cut_off(monkeypatch):
    monkeypatch.setattr(listening_module, "UNREAD_SECONDS", 0.3)
    with Served(ScriptedEngine(quiet), keys=()) as served:
        with served.socket() as other, sockets.socket() as raw:
            raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
            raw.settimeout(60)
            raw.connect(("127.0.0.1", served.port))
            with pytest.raises(ConnectionError):
                while True:
                    raw.sendall(b"GET /page/page.js HTTP/1.1\r\nHost: here\r\n\r\n" * 20)
            receive(other, "session.created")


@pytest.mark.parametrize("more", [b"", b"GE", b"GET /healthz HTTP/1.1\r\nHo"])
def test_a_connection_is_not_kept_for_ever_for_its_next_request_or_half_of_it(monkeypatch, more):
    monkeypatch.setattr(listening_module, "KEPT_SECONDS", 0.5)
    with Served(ScriptedEngine(quiet)) as served:
        with create_connection(("127.0.0.1", served.port), timeout=60) as raw:
            raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n" + more)
            while raw.recv(1000):
                pass
