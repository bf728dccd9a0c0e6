"""The log of the server: what happened, for machines to read, and nothing that was said."""

import contextlib
import io
import json
import logging
import socket as sockets
import threading

import numpy as np
import pytest
from scripted import Line, ScriptedEngine
from served import KEY, LIMIT, Served, receive, send, type_in, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tml_jax.serve import log
from tml_jax.serve.log import log_event, logging_to
from tml_jax.serve.scheduler import Report
from tml_jax.serve.tick_log import TickLog


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_with_time_level_and_fields():
    stream = io.StringIO()
    with logging_to(stream, "json"):
        log_event("session_opened", session="sess_1", sessions=2)
        logging.getLogger("other").warning("two\nlines of %s", "it")
        try:
            raise ValueError("broken")
        except ValueError as error:
            log_event("engine_failed", logging.ERROR, error)
    opened, other, failed = lines(stream)
    assert opened.pop("time").endswith("Z")
    assert opened == {"level": "info", "event": "session_opened", "session": "sess_1", "sessions": 2}
    assert (other["event"], other["logger"], other["message"]) == ("log", "other", "two\nlines of it")
    assert failed["level"] == "error" and failed["exception"].endswith("ValueError: broken")


def test_people_read_the_same_as_text():
    stream = io.StringIO()
    with logging_to(stream, "text"):
        log_event("session_queued", logging.WARNING, position=3)
    assert stream.getvalue().split(" ", 1)[1] == "warning session_queued position=3\n"


def test_what_was_before_is_there_again_after_it():
    handlers = logging.getLogger().handlers
    with contextlib.suppress(KeyError), logging_to(io.StringIO(), "json"):
        raise KeyError
    assert logging.getLogger().handlers is handlers and not logging.getLogger(log.EVENTS).level


class StuckStream(io.StringIO):
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.free.wait(60)
        return super().write(text)


def test_a_log_that_nobody_reads_holds_up_nothing_and_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(log, "WAITING", 10)
    stream = StuckStream()
    with logging_to(stream, "json"):
        for number in range(20):  # all of this returns although nothing is written
            log_event("number", number=number)
        stream.free.set()
        wait_until(lambda: stream.getvalue().count("\n") >= 10)
        log_event("last")
    *first, dropped, last = lines(stream)
    assert [line["number"] for line in first] == list(range(len(first)))
    assert dropped["event"] == "lines_dropped" and dropped["count"] == 20 - len(first) >= 8
    assert last["event"] == "last"


def test_ticks_that_are_not_as_they_should_be_are_logged():
    engine, stream = ScriptedEngine(lambda index, arrived: Line()), io.StringIO()
    ticks = TickLog(engine)
    with logging_to(stream, "json"):
        ticks.observe(Report(0.05, 1, late=False, skipped=0, overloaded=False))
        ticks.observe(Report(0.25, 2, late=True, skipped=0, overloaded=False))
        for _ in range(2):
            ticks.observe(Report(0.3, 2, late=True, skipped=4, overloaded=True))
        engine.recompilations = 1
        ticks.observe(Report(0.05, 1, late=False, skipped=0, overloaded=False))
        ticks.observe(Report(0.05, 1, late=False, skipped=0, overloaded=False))
    said = lines(stream)
    late, skipped = ["tick_late"], ["windows_skipped"]
    expected = late + late + skipped + ["overload_began"] + late + skipped + ["overload_ended", "recompiled"]
    assert [line["event"] for line in said] == expected
    assert (said[0]["seconds"], said[0]["sessions"], said[2]["windows"]) == (0.25, 2, 4)
    assert said[-1]["recompilations"] == 1


def test_sessions_are_logged_from_their_begin_to_their_end_and_without_what_was_said():
    def talks(index, arrived) -> Line:
        return Line(np.full(4800, 0.1, np.float32), " moonlight")

    stream = io.StringIO()
    with logging_to(stream, "json"), Served(ScriptedEngine(talks)) as served:
        with served.socket() as socket:
            session = receive(socket, "session.created")["session"]["id"]
            words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "sunshine"}]}
            send(socket, type="conversation.item.create", item=words)
            receive(socket, "response.output_audio_transcript.delta")
            with served.socket() as other:
                ticket = receive(other, "error")["error"]["ticket"]
            with pytest.raises(InvalidStatus):
                served.socket(headers={"Authorization": "Bearer guessed"})
        wait_until(lambda: served.scheduler.free)
        with served.socket() as large, pytest.raises(ConnectionClosed):
            large.send("x" * (LIMIT + 1))
            while True:
                large.recv(timeout=60)
        wait_until(lambda: served.scheduler.free)
        with served.socket() as last, contextlib.suppress(ConnectionClosed):
            receive(last, "session.created")
            served.call(served.server.drain(0.0))
            while True:
                last.recv(timeout=60)
    opened, queued, refused, closed, *others = lines(stream)
    assert (opened["event"], opened["session"], opened["sessions"]) == ("session_opened", session, 1)
    assert (queued["event"], queued["position"]) == ("session_queued", 1)
    assert (refused["event"], refused["status"], refused["reason"]) == ("session_refused", 401, "invalid_api_key")
    assert (closed["event"], closed["session"], closed["code"]) == ("session_closed", session, 1000)
    assert [(line["event"], line.get("code")) for line in others][:6] == [
        ("session_opened", None),
        ("session_cut_off", 1009),
        ("session_opened", None),
        ("drain_began", None),
        ("session_cut_off", 1001),
        ("drain_ended", None),
    ]
    for secret in (KEY, "guessed", "sunshine", "moonlight", ticket):
        assert secret not in stream.getvalue()


def test_a_session_is_followed_through_its_connections():
    stream = io.StringIO()
    engine = ScriptedEngine(lambda index, arrived: Line())
    with logging_to(stream, "json"), Served(engine, resume_seconds=1.0) as served:
        first = served.socket("?resumable=1")
        created = receive(first, "session.created")
        token = created["session"]["resume"]["token"]
        type_in(first, "hello")
        receive(first, "conversation.item.done")
        first.socket.shutdown(sockets.SHUT_RDWR)  # without a goodbye
        wait_until(lambda: "session_held" in stream.getvalue())
        second = served.socket(f"?resume={token}&after={created['event_id']}")
        receive(second, "session.resumed")
        second.socket.shutdown(sockets.SHUT_RDWR)
        wait_until(lambda: "session_expired" in stream.getvalue())
        with served.socket(f"?resume={token}") as third, pytest.raises(ConnectionClosed):
            receive(third, "error")
            third.recv(timeout=60)
    said = lines(stream)[:6]
    held = ["session_held", "session_resumed"]
    assert [line["event"] for line in said] == ["session_opened", *held, held[0], "session_expired", "session_refused"]
    assert {line["session"] for line in said[:5]} == {created["session"]["id"]}
    assert said[1]["reason"] == "dropped" and said[5]["reason"] == "resume_expired"
    assert token not in stream.getvalue()
