"""Any endpoint of the OpenAI chat protocol, over a real socket: as it should be, and as it should not."""

import asyncio
import json
import threading
import time

import pytest
from aiohttp import web
from backends import package_of

pytest.importorskip("openai")

from tml_jax.background.backend import BackendError, Tool
from tml_jax.background.context import Package, Turn
from tml_jax.background.local import LocalTools
from tml_jax.background.openai_backend import OpenAIBackend
from tml_jax.background.runner import Runner, RunnerOptions

KEY = "its-key"


def chunk(delta: dict | None, end: str | None = None) -> str:
    """One event of the stream, whole, as the protocol's own server sends it."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": end, "logprobs": None}]
    return f"data: {json.dumps({**head, 'choices': choices})}\n\n"


def answer(*pieces: str) -> list[str]:
    """A stream that says these pieces."""
    first = chunk({"role": "assistant", "content": ""})
    return [first, *(chunk({"content": piece}) for piece in pieces), chunk({}, "stop"), chunk(None), "data: [DONE]\n\n"]


def calls(*functions: tuple[str, str]) -> list[str]:
    """A stream that asks for functions, each in pieces."""
    events = [chunk({"role": "assistant", "content": None})]
    for index, (name, arguments) in enumerate(functions):
        begin = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chunk({"tool_calls": [begin]}))
        for part in (arguments[:3], arguments[3:]):
            events.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": part}}]}))
    return [*events, chunk({}, "tool_calls"), "data: [DONE]\n\n"]


class Endpoint:
    """Answers each request with the next of its script: a status, a list of events, seconds to wait, or None to hang
    up."""

    def __init__(self, *script) -> None:
        self.script, self.requests, self.gone = list(script), [], threading.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.headers.get("Authorization"), await request.json()))
        step = self.script[min(len(self.requests), len(self.script)) - 1]
        if isinstance(step, int):
            return web.json_response(
                {"error": {"message": "no", "type": "x", "code": None, "param": None}}, status=step
            )
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            for event in step:
                if event is None:
                    request.transport.abort()
                elif isinstance(event, float):
                    await asyncio.sleep(event)
                else:
                    await response.write(event.encode())
        except (asyncio.CancelledError, ConnectionError):
            self.gone.set()
            raise
        return response


class Hosted:
    """An endpoint on localhost, in a thread of its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint, self.loop = endpoint, asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> str:
        self.thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(20)

    async def _start(self) -> str:
        app = web.Application(handler_args={"handler_cancellation": True})
        app.router.add_post("/v1/chat/completions", self.endpoint)
        self.runner = web.AppRunner(app, handler_cancellation=True)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, shutdown_timeout=0.1).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    def __exit__(self, *error) -> None:
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(20)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def talk(url: str, package: Package, *tools) -> list[str]:
    """What it says to a package."""

    async def run() -> list[str]:
        backend = OpenAIBackend("m", url, KEY, tools)
        try:
            return [piece async for piece in backend.run(package) if piece]
        finally:
            await backend.close()

    return asyncio.run(run())


def test_the_whole_package_goes_there_and_the_answer_streams_back():
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    package = Package(1, 1, ("weather",), 60.0, (Turn("user", 0.0, 1.2, (sound, picture)),))
    endpoint = Endpoint(answer("It is ", "dry."))
    with Hosted(endpoint) as url:
        assert talk(url, package) == ["It is ", "dry."]
    ((key, sent),) = endpoint.requests
    assert key == f"Bearer {KEY}" and sent["model"] == "m" and sent["stream"] is True and "tools" not in sent
    content = sent["messages"][1]["content"]
    assert sound in content and picture in content and content[0]["text"] == "[user, 0.0 to 1.2 s]"


def test_functions_are_called_and_their_results_go_back():
    endpoint = Endpoint(
        calls(("calculate", '{"expression": "6*7"}'), ("nowhere", "{}"), ("calculate", "{broken"), ("clock", "[]")),
        answer("It is 42."),
    )
    with Hosted(endpoint) as url:
        assert "".join(talk(url, package_of("six times seven"), LocalTools())).strip() == "It is 42."
    first, second = (sent for _, sent in endpoint.requests)
    assert [tool["function"]["name"] for tool in first["tools"]] == ["calculate", "clock"]
    asked, *results = second["messages"][2:]
    assert [call["id"] for call in asked["tool_calls"]] == ["call_0", "call_1", "call_2", "call_3"]
    assert [result["tool_call_id"] for result in results] == ["call_0", "call_1", "call_2", "call_3"]
    assert results[0]["content"] == "42"
    assert results[1]["content"] == "error: no function 'nowhere'; there are calculate, clock"
    assert "not JSON" in results[2]["content"] and "no JSON object" in results[3]["content"]


def test_calls_without_an_index_are_told_apart_and_arguments_too_deep_are_no_call():
    def call(index, name, arguments, call_id=None):
        return {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    pieces = [
        call(0, "calculate", '{"expression"', "a"),
        call(None, None, ': "6*7"}'),
        call(None, "clock", "{}", "b"),
        call(None, "calculate", '{"expression": ' + "[" * 50_000, "c"),
    ]
    events = [chunk({"tool_calls": [piece]}) for piece in pieces]
    endpoint = Endpoint([*events, chunk({}, "tool_calls"), "data: [DONE]\n\n"], answer("done"))
    with Hosted(endpoint) as url:
        assert "".join(talk(url, package_of("x"), LocalTools())).strip() == "done"
    asked, *results = endpoint.requests[1][1]["messages"][2:]
    assert [call["id"] for call in asked["tool_calls"]] == ["a", "b", "c"]
    assert results[0]["content"] == "42" and "not JSON" in results[2]["content"]


def test_the_log_says_where_and_why_in_one_line_and_no_key(caplog):
    with Hosted(Endpoint(401)) as url:
        backend = OpenAIBackend("m", url.replace("//", "//me:hidden@"), KEY)

        async def run() -> None:
            for _ in range(3):
                with pytest.raises(BackendError):
                    async for _ in backend.run(package_of("x")):
                        pass
            await backend.close()

        asyncio.run(run())
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"the background at {url}/: refused 401 (status 401)"


class DeadTools:
    """Functions that can be listed once and never called."""

    listed = 0

    async def list(self):
        self.listed += 1
        if self.listed > 1:
            raise BackendError("tools unavailable", again=True)
        return [Tool("look", "Looks.", {"type": "object", "properties": {}})]

    async def call(self, name, arguments):
        raise BackendError("tools unavailable", again=True)

    async def close(self):
        pass


def test_functions_that_cannot_be_reached_end_no_task():
    dead = DeadTools()
    endpoint = Endpoint(calls(("look", "{}")), answer("cannot look"), answer("no functions"))
    with Hosted(endpoint) as url:
        assert "".join(talk(url, package_of("x"), dead)).strip() == "cannot look"
        assert endpoint.requests[1][1]["messages"][-1]["content"] == "error: tools unavailable"
        assert talk(url, package_of("x"), dead) == ["no functions"]
    assert "tools" not in endpoint.requests[2][1]


def test_servers_of_functions_that_never_start_keep_no_task_from_the_endpoint():
    from test_runner import brief, job, results

    pytest.importorskip("mcp")
    from tml_jax.background.mcp_tools import McpTools

    never = [McpTools(["sleep", "1000"], seconds=60.0, list_seconds=0.2) for _ in range(3)]
    endpoint = Endpoint(answer("ok"))
    with Hosted(endpoint) as url:
        runner = Runner(OpenAIBackend("m", url, KEY, never), RunnerOptions(first_seconds=3.0, attempts=1))
        runner.start()
        channel = runner.open()
        runner.begin(job(channel, seconds=30.0))
        assert brief(results(runner, channel)) == ["ok", "."]
        runner.stop()


def test_arguments_without_end_are_refused_and_calls_too_many_left_out(monkeypatch):
    monkeypatch.setattr("tml_jax.background.openai_backend.MOST_ARGUMENTS", 500)
    more = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 100}}]})
    with Hosted(Endpoint([*calls(("calculate", '{"a": "'))[:-2], *[more] * 20, 30.0])) as url:
        with pytest.raises(BackendError, match="unreadable"):
            talk(url, package_of("x"), LocalTools())
    endpoint = Endpoint(calls(*[("clock", "")] * 30), answer("ok"))
    with Hosted(endpoint) as url:
        talk(url, package_of("x"), LocalTools())
    assert len(endpoint.requests[1][1]["messages"][2]["tool_calls"]) == 16


def endless(piece: str, headers: dict[str, str], status: int = 200):
    """An endpoint that sends a piece again and again, for as long as somebody reads; what it sent is in `sent`."""

    async def serve(request: web.Request) -> web.StreamResponse:
        serve.accepted = request.headers["Accept-Encoding"]
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        while True:
            await response.write(piece.encode())
            serve.sent += len(piece)

    serve.sent = 0
    return serve


EVENTS = {"Content-Type": "text/event-stream"}


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (endless("x" * 2**14, EVENTS), "1048576 bytes"),
        (endless("data: " + "x" * 2**14 + "\r\n", EVENTS), "1048576 bytes"),
        (endless("x" * 2**14, {"Content-Type": "application/json"}, 400), "1048576 bytes"),
        (endless("x" * 2**14, {**EVENTS, "Content-Encoding": "gzip"}), "packed"),
    ],
)
def test_what_never_ends_is_read_no_further_than_its_limit(endpoint, said, caplog):
    with Hosted(endpoint) as url, pytest.raises(BackendError) as error:
        talk(url, package_of("x"))
    assert error.value.again and said in caplog.text and endpoint.accepted == "identity"
    assert endpoint.sent < 2**20 + 2**24  # the limit, and what waits in sockets


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_an_answer_may_be_longer_than_the_limit_of_its_events(end, monkeypatch):
    monkeypatch.setattr("tml_jax.background.bounded.MOST_BYTES", 1000)
    events = [event.replace("\n\n", end) for event in answer(*["dry "] * 100)]
    halves = [half for event in events for half in (event[: 1 - len(end)], event[1 - len(end) :])]
    with Hosted(Endpoint(halves)) as url:
        assert talk(url, package_of("x")) == ["dry "] * 100


def test_a_model_that_only_calls_functions_is_stopped():
    with Hosted(Endpoint(calls(("clock", "{}")))) as url:
        with pytest.raises(BackendError, match="too many steps"):
            talk(url, package_of("x"), LocalTools())


@pytest.mark.parametrize(
    ("step", "reason", "again"),
    [
        (500, "unavailable", True),
        (429, "unavailable", True),
        (401, "refused 401", False),
        (400, "refused 400", False),
        ([None], "unavailable", True),
        ([chunk({"content": "half"}), None], "unavailable", True),
        ([chunk({"content": "half"})], "cut off", True),
        (["data: {broken\n\n"], "unreadable", True),
        (['data: {"choices": 7}\n\n'], "unreadable", True),
        (['data: {"choices": [7]}\n\n'], "unreadable", True),
        (['data: {"choices": [{"delta": null}]}\n\n'], "unreadable", True),
        (['data: {"choices": [{"delta": {"content": 9}, "finish_reason": "stop"}]}\n\n'], "unreadable", True),
        (['data: {"error": {"message": "overloaded"}}\n\n'], "unreadable", True),
        (["data: " + '{"choices": ' + "[" * 100_000 + "\n\n"], "unreadable", True),
        ([chunk({"content": []}).replace("[]", "[" * 900 + "]" * 900)], "unreadable", True),
        (["<html>hello</html>"], "cut off", True),
    ],
)
def test_what_goes_wrong_has_a_reason_and_is_tried_again_where_that_may_help(step, reason, again):
    with Hosted(Endpoint(step)) as url:
        with pytest.raises(BackendError) as error:
            talk(url, package_of("x"))
    assert (str(error.value), error.value.again) == (reason, again)


def test_nobody_there():
    with pytest.raises(BackendError, match="unavailable") as error:
        talk("http://127.0.0.1:9/v1", package_of("x"))
    assert error.value.again


def test_with_the_runner_a_flaky_endpoint_answers_and_one_that_hangs_is_let_go():
    from test_runner import brief, job, results

    endpoint = Endpoint(503, [None], answer("ok "), [chunk({"content": "a "}), 60.0])
    with Hosted(endpoint) as url:
        runner = Runner(OpenAIBackend("m", url, KEY), RunnerOptions(backoff=0.01))
        runner.start()
        channel = runner.open()
        runner.begin(job(channel, 1))
        assert brief(results(runner, channel)) == ["ok ", "."] and len(endpoint.requests) == 3
        runner.begin(job(channel, 2))
        end, come = time.monotonic() + 60, []
        while not any(result.text for result in come) and time.monotonic() < end:  # that it has begun is none of it
            time.sleep(0.01)
            come += runner.collect(channel)
        runner.end(channel, 2, 1)
        assert endpoint.gone.wait(20)  # its connection is closed, not forgotten
        runner.stop()
