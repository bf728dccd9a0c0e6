"""Sessions that outlive their connection: over real sockets, cut at any byte, held, taken over and given up."""

import asyncio
import base64
import contextlib
import json
import socket as sockets

import numpy as np
import pytest
from cuts import Network
from scripted import SAMPLES, Line, ScriptedEngine
from served import KEY, Served, receive, send, type_in, wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tml_jax.data.record import USER
from tml_jax.serve.call import Call
from tml_jax.serve.sound_formats import to_pcm16

SLOTS = 2


def script(index, arrived) -> Line:
    return Line(np.full(SAMPLES, 0.001 * (index % 100), np.float32), f" w{index}") if index % 5 else Line()


@contextlib.contextmanager
def serving(**options):
    engine = ScriptedEngine(script, SLOTS)
    with Served(engine, **options) as served:
        yield served, engine


@pytest.fixture
def said(monkeypatch) -> dict:
    """Call → every frame that it made."""
    made, put = {}, Call.say

    def kept(self, events):
        before = self._outbox.events[-1:]
        size = put(self, events)
        after = self._outbox.events
        start = after.index(before[0]) + 1 if before and before[0] in after else 0
        made.setdefault(self, []).extend(event.frame for event in after[start:])
        return size

    monkeypatch.setattr(Call, "say", kept)
    return made


def sound(index: int) -> dict:
    audio = base64.b64encode(to_pcm16(np.full(3200, 0.1, np.float32))).decode()
    return {"type": "duplex.input", "event_id": f"sound{index}", "offset": 3200 * index, "audio": audio}


def text(words: str, event_id: str) -> dict:
    content = [{"type": "input_text", "text": words}]
    item = {"type": "message", "role": "user", "content": content}
    return {"type": "conversation.item.create", "event_id": event_id, "item": item}


class Client:
    """A client that comes back whenever it is cut off, and keeps what it got and sent."""

    def __init__(self, port: int, path: str) -> None:
        self.url, self.path, self.events, self.unheard = f"ws://127.0.0.1:{port}/v1/realtime", path, [], []
        self.resumed = 0
        self.dial(path)

    def dial(self, path: str) -> None:
        options = {"additional_headers": {"Authorization": f"Bearer {KEY}"}, "proxy": None, "max_size": None}
        self.socket = connect(self.url + path, compression=None, **options)  # as long as they are, for the cuts

    def send(self, event: dict) -> None:
        self.unheard.append(event)
        with contextlib.suppress(ConnectionClosed):
            self.socket.send(json.dumps(event))

    def next(self) -> dict:
        while True:
            try:
                frame = self.socket.recv(timeout=60)
            except ConnectionClosed:
                self.come_back()
                continue
            self.events.append(frame)
            return json.loads(frame)

    def come_back(self) -> None:
        token = json.loads(self.events[0])["session"]["resume"]["token"]
        last = json.loads(self.events[-1])["event_id"]
        while True:
            try:
                self.dial(f"?resume={token}&after={last}")
                told = json.loads(self.socket.recv(timeout=60))
                break
            except (ConnectionClosed, OSError):
                pass
        assert told["type"] == "session.resumed" and told["event_id"] == last, told
        ids = [event["event_id"] for event in self.unheard]
        self.unheard = self.unheard[ids.index(told["after"]) + 1 if told["after"] else 0 :]
        for event in list(self.unheard):
            with contextlib.suppress(ConnectionClosed):
                self.socket.send(json.dumps(event))
        self.resumed += 1

    def hang_up(self) -> None:
        self.socket.close()


def test_cut_at_any_byte_again_and_again_a_duplex_session_loses_and_repeats_nothing(said):
    """Also what the client sends: the model reads each text once, though some are sent twice."""
    cuts = iter(np.random.default_rng(5).integers(1, 40_000, 100).tolist())
    with serving() as (served, engine):
        network = Network(served.port)
        client = Client(served.call(network.open()), "?duplex=1")
        for index in range(20):
            if index % 2:
                network.left = next(cuts)
            client.send(sound(index))
            client.send(text(f"t{index}", f"text{index}"))
            while True:
                event = client.next()
                if event["type"] == "duplex.micro_turn":
                    break
        network.left = None
        while event["index"] < 24:
            event = client.next()
            event = event if event["type"] == "duplex.micro_turn" else {"index": 0}
        (call,) = said
        arrived = list(engine.arrived[0])
        client.hang_up()
        wait_until(lambda: served.scheduler.sessions == 0)
        served.call(network.close())
        assert client.resumed >= 4
        assert client.events == said[call][: len(client.events)]
    turns = [event for event in map(json.loads, client.events) if event["type"] == "duplex.micro_turn"]
    assert [turn["index"] for turn in turns] == list(range(len(turns)))
    for turn in turns:
        line = script(turn["index"], None)
        assert turn["text"] == line.text and turn["gate"] == ("LISTEN" if line.samples is None else "SPEAK")
        assert (
            turn["audio"]
            == base64.b64encode(to_pcm16(np.zeros(SAMPLES) if line.samples is None else line.samples)).decode()
        )
    read = [part.text for window in arrived for part in window.texts if part.speaker == USER]
    assert read == [f"t{index}" for index in range(20)]


def test_a_client_of_the_openai_protocol_that_asks_for_it_comes_back_too(said):
    with serving() as (served, engine):
        network = Network(served.port)
        client = Client(served.call(network.open()), "?model=small&resumable=1")
        for index in range(4):
            network.left = 3000 + 7000 * index
            client.send(text(f"t{index}", f"text{index}"))
            while client.next()["type"] != "response.done":
                pass
        (call,) = said
        client.hang_up()
        served.call(network.close())
        assert client.resumed >= 2 and client.events == said[call][: len(client.events)]


def test_unmodified_clients_have_no_token_and_their_place_is_free_at_once():
    with serving() as (served, engine):
        network = Network(served.port)
        client = Client(served.call(network.open()), "?model=small")
        assert "resume" not in client.next()["session"]
        served.loop.call_soon_threadsafe(network.cut)
        wait_until(lambda: served.scheduler.sessions == 0)
        served.call(network.close())


def refused(served, path: str) -> str:
    """The code with which the server sends a client away."""
    with served.socket(path) as socket:
        code = receive(socket, "error")["error"]["code"]
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(timeout=60)
        assert closed.value.rcvd.code == 1008 and closed.value.rcvd.reason == code
        return code


def cut_off(socket) -> None:
    """Ends a client's connection with no word, as a program that is killed does."""
    socket.socket.shutdown(sockets.SHUT_RDWR)


def test_a_session_is_held_with_what_is_missing_marked_as_lost_and_given_up_in_time():
    with serving(resume_seconds=3.0) as (served, engine):
        socket = served.socket("?duplex=1")
        session = receive(socket, "session.created")["session"]
        assert session["resume"]["seconds"] == 3.0
        for index in range(2):
            send(socket, **sound(index))
        last = receive(socket, "duplex.micro_turn")["event_id"]
        cut_off(socket)
        wait_until(lambda: len(engine.arrived.get(0, [])) >= 5)
        assert [window.lost for window in engine.arrived[0][:5]] == [False, False, True, True, True]
        assert engine.arrived[0][4].audio is None
        status, metrics = served.get("/metrics")
        assert "tml_sessions_held 1.0" in metrics and "tml_sessions 1.0" in metrics
        wait_until(lambda: served.scheduler.sessions == 0)
        assert refused(served, f"?resume={session['resume']['token']}&after={last}") == "resume_expired"
        status, metrics = served.get("/metrics")
        assert "tml_sessions_held 0.0" in metrics and "tml_sessions_expired_total 1.0" in metrics


def test_sound_without_stamps_that_is_missing_while_a_client_is_away_is_lost_and_is_not_otherwise():
    with serving() as (served, engine):
        socket = served.socket("?resumable=1")
        created = receive(socket, "session.created")
        audio = base64.b64encode(to_pcm16(np.full(4800, 0.1, np.float32))).decode()
        send(socket, type="input_audio_buffer.append", audio=audio)
        wait_until(lambda: len(engine.arrived.get(0, [])) >= 3)
        assert not any(window.lost for window in engine.arrived[0][:3])
        cut_off(socket)
        wait_until(lambda: engine.arrived[0][-1].lost)
        with served.socket(f"?resume={created['session']['resume']['token']}&after={created['event_id']}") as back:
            assert json.loads(back.recv(timeout=60))["type"] == "session.resumed"
            seen = len(engine.arrived[0])
            while len(engine.arrived[0]) < seen + 3:
                back.recv(timeout=60)
            assert not engine.arrived[0][-1].lost


@pytest.mark.parametrize("code, held", [(1000, 0), (1001, 0), (1012, 1), (4000, 1)])
def test_a_goodbye_is_one_only_from_the_client_itself(code, held):
    """1012 is what a proxy says that begins anew, 4000 the page when it hears nothing."""
    with serving() as (served, engine):
        with served.socket("?duplex=1") as socket:
            type_in(socket, "hello")
            receive(socket, "duplex.micro_turn")
            socket.close(code=code)
        wait_until(lambda: f"tml_sessions_held {held}.0" in served.get("/metrics")[1])
        wait_until(lambda: served.scheduler.sessions == held)


def test_a_second_connection_takes_over_and_the_first_is_told():
    with serving() as (served, engine):
        first = served.socket("?duplex=1")
        created = receive(first, "session.created")
        path = f"?resume={created['session']['resume']['token']}&after={created['event_id']}"
        with served.socket(path) as second:
            assert json.loads(second.recv(timeout=60))["type"] == "session.resumed"
            with pytest.raises(ConnectionClosed) as closed:
                first.recv(timeout=60)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "taken_over")
            send(second, **sound(0))
            assert receive(second, "duplex.micro_turn")["index"] == 0
            assert served.scheduler.sessions == 1
        wait_until(lambda: served.scheduler.sessions == 0)  # a goodbye: not held
        assert refused(served, path) == "resume_ended"


def test_a_connection_that_goes_silent_is_found_by_its_pings_and_the_session_is_held():
    with serving(heartbeat=0.5) as (served, engine):
        network = Network(served.port)
        client = Client(served.call(network.open()), "?duplex=1")
        client.next()
        client.send(text("hello", "text0"))
        while client.next()["type"] != "duplex.micro_turn":
            pass
        network.silent = True
        wait_until(lambda: "tml_sessions_held 1.0" in served.get("/metrics")[1])
        network.silent = False
        client.come_back()
        assert client.next()["type"] == "duplex.micro_turn"
        client.hang_up()
        served.call(network.close())


def test_a_token_opens_its_own_session_and_no_other():
    with serving() as (served, engine):
        with served.socket("?duplex=1") as one, served.socket("?duplex=1") as other:
            mine, theirs = receive(one, "session.created"), receive(other, "session.created")
            token = mine["session"]["resume"]["token"]
            assert len(token) >= 43 and token != theirs["session"]["resume"]["token"]
            assert refused(served, f"?resume={token[:-1]}&after={mine['event_id']}") == "resume_unknown"
            assert refused(served, "?resume=") == "resume_unknown"
            assert refused(served, f"?resume={token}&after={theirs['event_id']}") == "resume_events_lost"
            assert refused(served, f"?resume={token}") == "resume_events_lost"
            send(one, **sound(0))  # none of these has disturbed it
            assert receive(one, "duplex.micro_turn")["index"] == 0


def test_a_token_is_of_no_use_with_another_key():
    with Served(ScriptedEngine(lambda index, arrived: Line()), keys=(KEY, "another")) as served:
        with served.socket("?duplex=1") as one:
            created = receive(one, "session.created")
            path = f"?resume={created['session']['resume']['token']}&after={created['event_id']}"
            with served.socket(path, headers={"Authorization": "Bearer another"}) as other:
                assert receive(other, "error")["error"]["code"] == "resume_unknown"
            send(one, **sound(0))
            assert receive(one, "duplex.micro_turn")["index"] == 0
            with served.socket(path) as again:
                assert receive(again, "session.resumed")


def test_a_held_session_takes_a_place_and_ends_when_the_server_does():
    with serving() as (served, engine):
        held = [served.socket("?duplex=1") for _ in range(SLOTS)]
        for socket in held:
            receive(socket, "session.created")
            type_in(socket, "hello")
            receive(socket, "duplex.micro_turn")
            cut_off(socket)
        wait_until(lambda: f"tml_sessions_held {SLOTS}.0" in served.get("/metrics")[1])
        with served.socket() as late:
            assert receive(late, "error")["error"]["code"] == "server_full"
        served.call(served.server.drain(30.0))  # at once: nobody is there
        assert served.scheduler.sessions == 0


def test_a_session_in_which_nothing_was_said_is_not_held_for_long(monkeypatch):
    monkeypatch.setattr("tml_jax.serve.call.QUIET_SECONDS", 0.5)
    silence = {**sound(0), "audio": base64.b64encode(bytes(6400)).decode()}
    engine = ScriptedEngine(lambda index, arrived: Line(), 1)
    with Served(engine) as served:  # holds 30 s
        for inputs, held in ([], 0), ([silence], 0.5), ([sound(0)], 30.0), ([text("hello", "text")], 30.0):
            with served.socket("?duplex=1") as socket:
                created = receive(socket, "session.created")
                for event in inputs:
                    send(socket, **event)
                    receive(socket, "duplex.micro_turn")
                (call,) = served.server.calls._open
                assert call.held_for(30.0) == held
                cut_off(socket)
            if held < 30:
                wait_until(lambda: served.scheduler.free)
                token = created["session"]["resume"]["token"]
                ended = refused(served, f"?resume={token}&after={created['event_id']}")
                assert ended == ("resume_expired" if held else "resume_ended")
            else:
                wait_until(lambda: "tml_sessions_held 1.0" in served.get("/metrics")[1])
                served.call(asyncio.sleep(0, served.loop.call_soon_threadsafe(served.server.calls._expire, call)))
                wait_until(lambda: served.scheduler.free)
