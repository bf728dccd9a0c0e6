"""Tasks as function calls: clients that declare a tool get them, and what they answer is read as a result."""

import contextlib
import json

import numpy as np
import pytest
from dialogue_client import Client, kinds
from openai import OpenAI
from scripted import Line, ScriptedEngine
from served import KEY, Served, wait_until
from synthetic import tokenizer

from tml_jax.background.tasks import TaskEvent
from tml_jax.serve.client_tasks import MAX_CALLS, ClientTool, output_text, task_tool

TEXT = {"type": "string"}
DELEGATE = {
    "type": "function",
    "name": "delegate",
    "description": "Does a task.",
    "parameters": {"type": "object", "properties": {"loud": {"type": "boolean"}, "task": TEXT}, "required": ["task"]},
}
WEATHER = {"type": "function", "name": "weather", "parameters": {"properties": {"where": TEXT, "when": TEXT}}}


def asked(number: int = 1, revision: int = 1, text: str = "3 + 4", what: str = "asked") -> tuple[TaskEvent]:
    return (TaskEvent(what, 0, number, revision, text),)


@pytest.fixture
def client():
    client = Client()
    client.send("session.update", session={"type": "realtime", "tools": [DELEGATE]})
    return client


@pytest.mark.parametrize(
    ("tools", "choice", "expected"),
    [
        ([], "auto", None),
        ([DELEGATE], "auto", ClientTool("delegate", "task")),
        ([DELEGATE], "none", None),
        ([WEATHER, DELEGATE], "auto", ClientTool("delegate", "task")),
        ([WEATHER], "auto", ClientTool("weather", "where")),
        ([WEATHER, {**WEATHER, "name": "time"}], "auto", None),
        ([{"type": "mcp", "server_label": "x"}], "auto", None),
        ([{"name": "delegate", "parameters": 3}, "junk", {"name": 4}], "auto", ClientTool("delegate", "task")),
        ([{"name": "a", "parameters": {"properties": 1, "required": 2}}], "auto", ClientTool("a", "task")),
    ],
)
def test_tasks_go_to_the_tool_for_them_or_to_the_only_one(tools, choice, expected):
    assert task_tool({"tools": tools, "tool_choice": choice}) == expected


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("seven", "seven"),
        ('"seven"', "seven"),
        ("7", "7"),
        ('{"a": "b"}', '{"a": "b"}'),
        ('"torn', '"torn'),
        ('"a" or "b"', '"a" or "b"'),
        ("[" * 9999, "[" * 9999),
        ("", ""),
    ],
)
def test_an_output_that_is_text_as_json_is_that_text(output, text):
    assert output_text(output) == text


def test_a_task_is_a_function_call_in_a_response_of_its_own_and_its_output_a_result(client):
    assert client.live.by_client
    events = client.turn(False, tasks=asked())
    assert kinds(events) == [
        "created",
        "output_item.added",
        "conversation.item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "conversation.item.done",
        "done",
    ]
    (item,) = events[-1]["response"]["output"]
    assert events[-1]["response"]["status"] == "completed"
    assert (item["type"], item["name"], json.loads(item["arguments"])) == (
        "function_call",
        "delegate",
        {"task": "3 + 4"},
    )
    assert client.send("conversation.item.retrieve", item_id=item["id"])[0]["item"] == item

    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "seven"}
    added = client.send("conversation.item.create", item=output)
    assert added[0]["item"]["call_id"] == item["call_id"] and added[0]["previous_item_id"] == item["id"]
    assert client.live.answers == [(1, 1, "seven")] and not client.live.texts
    assert kinds(client.send("response.create")) == ["created"]
    client.send("conversation.item.create", item={**output, "id": "again"})  # nobody waits for it any more
    assert client.live.answers == [(1, 1, "seven")] and not client.live.texts


def test_a_task_of_a_model_that_speaks_is_one_more_output_of_its_response(client):
    client.turn(True, " one moment")
    (response,) = {event["response_id"] for event in client.turn(True, tasks=asked()) if "response_id" in event}
    assert client.dialogue._replies.active == response
    output = client.turn(False)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "function_call"]
    assert output[0]["content"] == [{"type": "output_audio", "transcript": "one moment"}]


def test_a_response_that_was_asked_for_is_over_with_a_task_and_what_is_said_then_is_another(client):
    client.send("response.create")
    events = client.turn(False, tasks=asked())
    assert kinds(events)[0] == "output_item.added" and kinds(events)[-1] == "done"
    assert kinds(client.turn(True, " one"))[0] == "created"


def test_a_response_asked_for_after_an_output_waits_until_the_model_has_said_what_it_says(client):
    call = client.turn(False, tasks=asked())[-1]["response"]["output"][0]["call_id"]
    client.turn(True, " one")
    assert client.refused("response.create") == "conversation_already_has_active_response"
    client.send("conversation.item.create", item={"type": "function_call_output", "call_id": call, "output": "seven"})
    assert client.send("response.create") == []
    assert kinds(client.turn(False))[-2:] == ["done", "created"]
    assert "output_audio.delta" in kinds(client.turn(True, " seven"))
    assert kinds(client.turn(False))[-1] == "done" and client.turn(False) == []


def test_a_refined_task_is_another_call_and_what_becomes_of_tasks_otherwise_is_none(client):
    client.turn(False, tasks=asked())
    again = client.turn(False, tasks=asked(1, 2, "3 + 5", "refined"))[-1]["response"]["output"][0]
    for what in ("cancelled", "done", "failed", "expired", "malformed"):
        assert client.turn(False, tasks=asked(what=what)) == []
    client.send(
        "conversation.item.create", item={"type": "function_call_output", "call_id": again["call_id"], "output": "8"}
    )
    assert client.live.answers == [(1, 2, "8")]


def test_of_the_outputs_of_one_call_the_first_alone_is_read_and_none_of_a_call_that_was_forgotten(client):
    def answer(call_id, output):
        item = {"type": "function_call_output", "call_id": call_id, "output": output}
        return client.send("conversation.item.create", item=item)

    calls = [
        client.turn(False, tasks=asked(number))[-1]["response"]["output"][0]["call_id"]
        for number in range(1, MAX_CALLS + 2)
    ]
    client.turn(False, tasks=asked(2, what="cancelled"))
    for call_id in (calls[2], calls[2], calls[1], calls[0]):
        assert kinds(answer(call_id, "seven")) == ["conversation.item.added", "conversation.item.done"]
    assert client.live.answers == [(3, 1, "seven")] and not client.live.texts
    answer(calls[-1], "eight")
    assert client.live.answers[1:] == [(MAX_CALLS + 1, 1, "eight")]


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        ({"output": "x" * 20_001}, "invalid_value", "20001 characters: expected at most 20000"),
        ({"output": 7}, "invalid_type", "item.output is of type integer: expected string"),
        (
            {"output": [{"type": "input_text", "text": "7"}]},
            "invalid_type",
            "item.output is of type array: expected string",
        ),
        ({"output": "\ud800"}, "invalid_input", ""),
        ({"output": "7", "id": 3}, "invalid_value", "item.id"),
    ],
)
def test_an_output_that_is_refused_leaves_its_call_open_and_the_error_says_so(client, wrong, code, said):
    call = client.turn(False, tasks=asked())[-1]["response"]["output"][0]["call_id"]
    output = {"type": "function_call_output", "call_id": call}
    error = client.error("conversation.item.create", item=output | wrong)
    assert error.code == code and said in error.message
    assert error.message.endswith(f"; call {call!r} waits for another output until its task's deadline")
    assert not client.live.answers
    client.send("conversation.item.create", item=output | {"output": "seven"})
    assert client.live.answers == [(1, 1, "seven")]


@pytest.mark.parametrize("ended", ["cancelled", "failed", "expired", "refined", "done"])
def test_no_output_is_asked_for_once_its_task_has_ended(client, ended):
    call = client.turn(False, tasks=asked())[-1]["response"]["output"][0]["call_id"]
    client.turn(False, tasks=asked(1, 2 if ended == "refined" else 1, what=ended))
    output = {"type": "function_call_output", "call_id": call}
    assert "waits" not in client.error("conversation.item.create", item=output | {"output": 7}).message
    client.send("conversation.item.create", item=output | {"output": "seven"})
    assert not client.live.answers


def test_the_output_of_a_call_that_nobody_made_is_refused_and_the_error_says_which_wait(client):
    call = client.turn(False, tasks=asked())[-1]["response"]["output"][0]["call_id"]
    wrong = {"type": "function_call_output", "call_id": "call_of_nobody", "output": "seven"}
    error = client.error("conversation.item.create", item=wrong)
    assert error.code == "invalid_tool_call_id" and error.param == "item.call_id"
    assert "no call 'call_of_nobody'" in error.message and call in error.message


def test_what_the_client_muted_stays_mute_beside_a_task(client):
    client.turn(True, " one")
    client.send("response.cancel")
    client.turn(True, tasks=asked())
    assert client.turn(True, " two") == []


def test_without_a_tool_tasks_are_none_of_the_clients_business():
    client = Client()
    assert client.turn(False, tasks=asked()) == [] and not client.live.by_client
    client.send("session.update", session={"type": "realtime", "tools": [DELEGATE]})
    client.send("session.update", session={"type": "realtime", "tools": []})
    assert client.turn(False, tasks=asked()) == [] and not client.live.by_client


@contextlib.contextmanager
def delegating(served):
    """A connection of the `openai` package that declares the tool, in a session that has begun."""
    client = OpenAI(api_key=KEY, websocket_base_url=f"ws://127.0.0.1:{served.port}/v1")
    with client.realtime.connect(model="small") as connection:
        connection.session.update(session={"type": "realtime", "tools": [DELEGATE]})
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": "now"}]}
        )
        yield connection


def decoded(tokens):
    return tokenizer().decode([token for token in tokens if token < tokenizer().size]).strip()


def test_what_the_openai_client_finds_for_a_task_before_it_was_refined_is_not_read(client_background):
    read = []

    def script(index, arrived):
        read.extend(arrived.results)
        spoken = np.ones(4800, np.float32)
        return Line(spoken, " on", tasks={1: ("3 + 4",), 3: ("#1 3 + 5",)}.get(index, ()))

    with Served(ScriptedEngine(script), client_background) as served:
        with delegating(served) as connection:
            calls = []
            for event in connection:
                assert event.type != "error", event
                if event.type == "response.function_call_arguments.done":
                    calls.append((event.call_id, json.loads(event.arguments)["task"]))
                if len(calls) == 2:
                    break
            for (call_id, _), output in zip(calls, ("7", "8")):
                connection.conversation.item.create(
                    item={"type": "function_call_output", "call_id": call_id, "output": output}
                )
            wait_until(lambda: "8" in decoded(read))
    assert [task for _, task in calls] == ["3 + 4", "3 + 5"] and decoded(read) == "#1. 8"


def test_the_openai_client_does_a_task_and_the_model_reads_what_it_found(client_background):
    read = []

    def script(index, arrived):
        read.extend(arrived.results)
        if index == 1:
            return Line(tasks=("3 + 4",))
        return Line(np.ones(4800, np.float32), " seven") if "7" in decoded(read) and index % 2 else Line()

    with Served(ScriptedEngine(script), client_background) as served:
        with delegating(served) as connection:
            said, calls = "", []
            for event in connection:
                assert event.type != "error", event
                if event.type == "response.function_call_arguments.done":
                    calls.append((event.name, event.arguments))
                    first, _, second = json.loads(event.arguments)["task"].split()
                    output = {
                        "type": "function_call_output",
                        "call_id": event.call_id,
                        "output": str(int(first) + int(second)),
                    }
                    connection.conversation.item.create(item=output)
                    connection.response.create()
                if event.type == "response.output_audio_transcript.delta":
                    said += event.delta
                if event.type == "response.done" and said:
                    break
        assert 'tml_background_events_total{what="done"} 1.0' in served.get("/metrics")[1]
    assert calls == [("delegate", '{"task": "3 + 4"}')] and said == "seven"
    assert decoded(read) == "#1. 7"
