"""A server on a real socket, its clients as they are, and what happens to the others when one is hostile."""

import asyncio
import base64
import io
import json
import types
from socket import create_connection

import numpy as np
import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from openai import OpenAI
from served import KEY, LIMIT, Served, receive, send, wait_until
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tml_jax.serve import server as server_module
from tml_jax.serve.call import Call
from tml_jax.serve.connection import Connection
from tml_jax.serve.log import logging_to
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.scheduler import Ended
from tml_jax.serve.sound_formats import to_pcm16
from tml_jax.serve.windows import Arrived

SEED = 7


@pytest.fixture(scope="module")
def expected(warm_engine):
    """What the engine says to some sound when nothing else runs."""
    slot = warm_engine.join(SEED)
    turns = [warm_engine.tick({slot: Arrived(part)}).turns[slot] for part in quantised().reshape(-1, 3200)]
    warm_engine.leave(slot)
    return turns


def quantised() -> np.ndarray:
    """Twelve windows of sound that 16 bits can carry."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(12 * 3200)
    return np.frombuffer(to_pcm16(sound), "<i2").astype(np.float32) / 32768


@pytest.fixture(scope="module")
def served(warm_engine, expected):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module.secrets, "randbits", lambda bits: SEED)
        with Served(warm_engine) as served:
            yield served
    for slot in warm_engine.taken:
        warm_engine.leave(slot)


def pcm24(seconds: float, seed: int = 0) -> str:
    sound = 0.1 * np.random.default_rng(seed).standard_normal(int(24_000 * seconds))
    return base64.b64encode(to_pcm16(sound)).decode()


def test_the_openai_client_holds_a_conversation(served):
    client = OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{served.port}/v1")
    with client.realtime.connect(model="small") as connection:
        created = connection.recv()
        assert created.type == "session.created" and created.session.model == "small"
        connection.session.update(session={"type": "realtime", "instructions": "Be kind."})
        updated = connection.recv()
        assert updated.type == "session.updated" and updated.session.instructions == "Be kind."
        words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "red box"}]}
        connection.conversation.item.create(item=words)
        added, done = connection.recv(), connection.recv()
        assert (added.type, done.type) == ("conversation.item.added", "conversation.item.done")
        assert added.item.content[0].text == "red box" and added.item.id == done.item.id
        for piece in range(20):
            connection.input_audio_buffer.append(audio=pcm24(0.1, piece))
        events = []
        for event in connection:
            events.append(event)
            if event.type == "response.done" and event.response.output:
                break
        seen = [event.type for event in events]
        assert seen.index("input_audio_buffer.speech_started") >= 0
        assert not [event for event in events if event.type == "error"]
        reply = events[-1].response
        ours = [event for event in events if getattr(event, "response_id", None) == reply.id]
        order = [event.type for event in ours if not event.type.endswith(".delta")]
        assert order == [
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.output_audio_transcript.done",
            "response.content_part.done",
            "response.output_item.done",
        ]
        assert len({event.event_id for event in events}) == len(events)
        transcript = "".join(e.delta for e in ours if e.type == "response.output_audio_transcript.delta")
        assert reply.output[0].content[0].transcript == transcript
        sound = [base64.b64decode(e.delta) for e in ours if e.type == "response.output_audio.delta"]
        assert sound and {len(piece) for piece in sound} == {9600}
        assert any(np.frombuffer(piece, "<i2").any() for piece in sound)
        assert reply.usage.output_tokens > 4 and reply.usage.input_tokens > 0

        item = reply.output[0].id
        connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=100)
        connection.conversation.item.retrieve(item_id=item)
        kinds = {event.type: event for event in wait_for(connection, "conversation.item.retrieved")}
        assert kinds["conversation.item.truncated"].audio_end_ms == 100
        assert transcript.startswith(kinds["conversation.item.retrieved"].item.content[0].transcript)


def wait_for(connection, kind: str) -> list:
    events = []
    for event in connection:
        events.append(event)
        if event.type == kind:
            return events
    raise AssertionError(f"no {kind}")


def duplex_input(socket, sound: np.ndarray, offset: int) -> None:
    audio = base64.b64encode(to_pcm16(sound)).decode()
    send(socket, type="duplex.input", offset=offset, audio=audio)


def check_micro_turns(events: list[dict], expected: list) -> None:
    for event, turn in zip(events, expected, strict=True):
        assert (event["index"], event["gate"], event["text"]) == (turn.index, turn.gate, turn.text)
        assert event["audio"] == base64.b64encode(to_pcm16(turn.samples)).decode()


HOSTILE = [
    ("{", "invalid_json"),
    ('{"type": "input_audio_buffer.append", "audio": NaN}', "invalid_json"),
    ("[" * 50_000, "invalid_json"),
    ('{"type": "session.update", "session": {"max_output_tokens": 1e999}}', "invalid_json"),
    ("[]", "invalid_event"),
    ("{}", "unknown_event"),
    ('{"type": "session.shutdown"}', "unknown_event"),
    ('{"type": ["session.update"]}', "unknown_event"),
    ('{"type": "session.update"}', "missing_field"),
    ('{"type": "session.update", "session": 3}', "invalid_type"),
    ('{"type": "session.update", "session": {"audio": {"input": {"format": {"type": "mp3"}}}}}', "invalid_value"),
    ('{"type": "session.update", "session": {"audio": [1]}}', "invalid_type"),
    ('{"type": "session.update", "session": {"output_modalities": ["smell"]}}', "invalid_value"),
    ('{"type": "session.update", "session": {"max_output_tokens": -3}}', "invalid_value"),
    ('{"type": "session.update", "session": {"instructions": "' + "x" * 300_000 + '"}}', "settings_too_large"),
    ('{"type": "session.update", "session": {"instructions": "' + "x" * 2**20 + '"}}', "event_too_large"),
    ('{"type": "input_audio_buffer.append", "audio": "%%%"}', "invalid_input"),
    ('{"type": "input_audio_buffer.append", "audio": "AAAA"}', "invalid_input"),
    ('{"type": "input_audio_buffer.append", "audio": 1e99}', "invalid_type"),
    ('{"type": "input_audio_buffer.commit"}', "input_audio_buffer_commit_empty"),
    ('{"type": "response.cancel"}', "response_cancel_not_active"),
    ('{"type": "conversation.item.delete", "item_id": "none"}', "item_delete_invalid_item_id"),
    (
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "god", "content": []}}',
        "invalid_value",
    ),
    (
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "user",'
        ' "content": [{"type": "input_text", "text": "\\ud800"}]}}',
        "invalid_input",
    ),
    (
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "user",'
        ' "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}}',
        "invalid_image",
    ),
    (
        '{"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": ['
        + ", ".join(['{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}'] * 5)
        + "]}}",
        "invalid_value",
    ),
]


def test_hostile_frames_get_typed_errors_and_another_session_goes_on_undisturbed(served, expected):
    sound = quantised()
    with served.socket("?duplex=1") as steady:
        assert receive(steady, "session.created")["session"]["duplex"]["input_rate"] == 16_000
        duplex_input(steady, sound, 0)  # at once, so that none of it can be late
        with served.socket() as hostile:
            for frame, code in HOSTILE:
                hostile.send(frame)
                assert receive(hostile, "error")["error"]["code"] == code, frame[:100]
            hostile.send(b"\x00\x01")
            assert receive(hostile, "error")["error"]["code"] == "invalid_frame"
            send(hostile, type="response.cancel", event_id="mine")
            assert receive(hostile, "error")["error"]["event_id"] == "mine"
            send(hostile, type="session.update", session={"type": "realtime"})  # it can still speak
            receive(hostile, "session.updated")
            with pytest.raises(ConnectionClosed) as closed:
                hostile.send("x" * (LIMIT + 1))
                while True:
                    hostile.recv(timeout=60)
            assert closed.value.rcvd.code == 1009
        check_micro_turns([receive(steady, "duplex.micro_turn") for _ in expected], expected)
    assert 'tml_protocol_errors_total{code="invalid_json"} 4.0' in served.get("/metrics")[1]


def test_sound_that_never_arrives_is_counted_and_time_goes_on(served):
    with served.socket("?duplex=1") as socket:
        duplex_input(socket, np.zeros(1600, np.float32), 0)
        turns = [receive(socket, "duplex.micro_turn") for _ in range(3)]
        assert [turn["index"] for turn in turns] == [0, 1, 2]
        assert turns[0]["input"]["heard"] == 1600 and turns[2]["input"]["missing"] >= 1600
        duplex_input(socket, np.zeros(1600, np.float32), 1600)
        while (late := receive(socket, "duplex.micro_turn")["input"]["late"]) == 0:
            pass
        assert late == 1600
        send(socket, type="input_audio_buffer.commit")
        assert receive(socket, "error")["error"]["code"] == "unknown_event"


def test_one_too_many_is_told_its_place_in_line_and_comes_in_once_one_leaves(served):
    wait_until(lambda: served.scheduler.free == 3)  # those of the tests before have left
    sockets = [served.socket() for _ in range(3)]
    for socket in sockets:
        receive(socket, "session.created")
    with served.socket() as late:
        refusal = receive(late, "error")["error"]
        assert refusal["code"] == "server_full" and refusal["queue_position"] == 1
        with pytest.raises(ConnectionClosed) as closed:
            late.recv(timeout=60)
        assert closed.value.rcvd.code == 1013
    with served.socket(f"?ticket={refusal['ticket']}") as again:
        assert receive(again, "error")["error"]["queue_position"] == 1
    with served.socket() as later:
        assert receive(later, "error")["error"]["queue_position"] == 2
    sockets[0].close()
    wait_until(lambda: served.scheduler.free)
    with served.socket() as other:  # the one place is for who asked first
        assert receive(other, "error")["error"]["queue_position"] == 2
    with served.socket(f"?ticket={refusal['ticket']}") as back:
        receive(back, "session.created")
    for socket in sockets:
        socket.close()
    served.server._line = server_module.Line()


def test_who_may_connect(served):
    for headers, status in (
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({"Origin": "https://evil.example"}, 403),
    ):
        with pytest.raises(InvalidStatus) as refused:
            served.socket(headers=headers)
        assert refused.value.response.status_code == status
    with served.socket(headers={"Origin": "https://friend.example"}) as socket:
        receive(socket, "session.created")
    with served.socket(headers={"Origin": f"http://127.0.0.1:{served.port}"}) as socket:
        receive(socket, "session.created")

    async def browser(key: str) -> str:
        protocols = ("realtime", f"openai-insecure-api-key.{key}")
        url = f"http://127.0.0.1:{served.port}/v1/realtime"
        async with ClientSession() as session, session.ws_connect(url, protocols=protocols) as socket:
            assert (await socket.receive_json())["type"] == "session.created"
            return socket.protocol

    assert served.call(browser(KEY)) == "realtime"
    with pytest.raises(WSServerHandshakeError, match="401"):
        served.call(browser("wrong"))


@pytest.mark.parametrize(
    "header", [b"Authorization: Bearer \xff", b"Authorization: Bearer ek_\xff", b"Origin: http://["]
)
def test_headers_that_are_no_text_are_refused_and_nothing_fails(served, header):
    with create_connection(("127.0.0.1", served.port)) as raw:
        raw.sendall(b"GET /v1/realtime?model=small HTTP/1.1\r\nHost: here\r\n" + header + b"\r\n\r\n")
        assert int(raw.recv(1000).split()[1]) in (401, 403)


SECRET = b"sk-of-somebody"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /v1/realtime HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer " + SECRET + 9000 * b"a" + b"\r\n\r\n",
        b"GET /v1/realtime HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer " + SECRET + b"\x01\r\n\r\n",
        b"GET /v1/realtime?resume=" + SECRET + 9000 * b"a" + b" HTTP/1.1\r\nHost: here\r\n\r\n",
        b"POST /v1/realtime/calls HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n" + SECRET + b"\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: here\r\n\r\n",
    ],
    ids=["long", "bent", "address", "chunk", "url"],
)
def test_what_is_no_http_is_one_line_of_the_log_without_its_content(served, request_bytes):
    stream = io.StringIO()
    with logging_to(stream, "text"):
        with create_connection(("127.0.0.1", served.port), timeout=60) as raw:
            raw.sendall(request_bytes)
            assert raw.recv(1000).split()[1] in (b"400", b"401")
            while raw.recv(1000):
                pass
    assert SECRET.decode() not in stream.getvalue() and "Traceback" not in stream.getvalue()
    assert 1 <= stream.getvalue().count("\n") <= 2


@pytest.mark.parametrize("path", ["calls", "client_secrets"])
@pytest.mark.parametrize(
    "headers, body",
    [
        (b"Content-Type: application/sdp", b"v=0\r\n\xff\xfe"),
        (b"Content-Type: application/sdp; charset=nope", b"v=0"),
        (b"Content-Type: application/sdp\r\nContent-Encoding: gzip", b"v=0"),
    ],
    ids=["no text", "no encoding", "no gzip"],
)
def test_a_body_that_is_no_text_is_said_and_no_fault_of_the_server(served, path, headers, body):
    head = f"POST /v1/realtime/{path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\n"
    stream = io.StringIO()
    with logging_to(stream, "text"), create_connection(("127.0.0.1", served.port), timeout=60) as raw:
        raw.sendall(head.encode() + headers + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert raw.recv(1000).split()[1] == b"400"
    assert "Traceback" not in stream.getvalue()


def test_a_switch_in_the_address_is_on_or_off(served):
    with served.socket("?duplex=banana") as socket:
        error = receive(socket, "error")["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "duplex") and "0 or 1" in error["message"]


def test_health_and_metrics(served):
    status, text = served.get("/healthz")
    assert status == 200 and json.loads(text)["slots"] == 3
    status, text = served.get("/metrics")
    assert status == 200 and "tml_recompilations 0.0" in text and "tml_tick_seconds_bucket" in text


class Stuck:
    """A client that takes no frame."""

    closed = None

    async def send(self, frame: str) -> None:
        await asyncio.Event().wait()

    async def receive(self, seconds: float):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)

    async def close(self, code: int, reason: str, last: str | None) -> None:
        self.closed, self.last = (code, reason), last


class Chatty:
    """A dialogue of one event a micro-turn."""

    def opening(self):
        return [{"type": "session.created"}]

    def micro_turn(self, turn):
        return [{"type": "duplex.micro_turn", "index": turn.index}]


def run_stuck(metrics: ServerMetrics, idle: float, deliveries: list) -> Stuck:
    """Runs a connection whose client neither reads nor writes."""

    async def run() -> Stuck:
        call, stuck = Call(metrics, 8), Stuck()
        call.begin(types.SimpleNamespace(), Chatty())
        connection = Connection(stuck, call, idle)
        call.attach(connection)
        running = asyncio.create_task(connection.run(lambda: 0.0))
        for delivery in deliveries:
            call.deliver(delivery)  # returns at once
        await running
        return stuck

    return asyncio.run(run())


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nothing(expected):
    metrics = ServerMetrics()
    assert run_stuck(metrics, 60.0, expected).closed == (1008, "slow reader")
    assert metrics.slow_readers._value.get() == 1


def test_a_client_that_sends_nothing_gives_its_place_away():
    assert run_stuck(ServerMetrics(), 0.05, []).closed == (1008, "session_idle")


def test_a_session_that_the_engine_ends_is_told_so():
    stuck = run_stuck(ServerMetrics(), 60.0, [Ended("not_finite")])
    assert stuck.closed == (1011, "not_finite") and json.loads(stuck.last)["error"]["code"] == "not_finite"
