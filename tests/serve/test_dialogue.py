"""Micro-turns as events of the realtime protocol: when a response begins and ends, and that every event is whole."""

import base64
import io
import json

import pytest
from dialogue_client import Client, FakeLive, kinds, loud, quiet
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small import small_config

from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.protocol import REALTIME, ProtocolError, parse_event
from tml_jax.serve.replies import PATIENCE


@pytest.fixture
def client():
    return Client()


def check_responses(events: list) -> None:
    """Responses come one at a time, begin and end once, and what belongs to one lies inside it and names it."""
    now, items, opened, said = None, set(), False, ""
    for event in events:
        kind = event["type"]
        if kind == "response.created":
            assert now is None
            now, opened, said = event["response"]["id"], False, ""
        elif kind == "response.done":
            response = event["response"]
            assert response["id"] == now and bool(response["output"]) == opened
            if opened:
                assert response["output"][0]["content"][0]["transcript"] == said
            now = None
        elif kind.startswith("response."):
            assert event["response_id"] == now
            if kind == "response.output_item.added":
                assert not opened and event["item"]["id"] not in items
                opened = True
                items.add(event["item"]["id"])
            assert opened
            said += event["delta"] if kind == "response.output_audio_transcript.delta" else ""


ACTIONS = st.one_of(
    st.tuples(st.just("turn"), st.booleans(), st.sampled_from(["", " a", " b"])),
    st.sampled_from([("create",), ("cancel",), ("loud",), ("quiet",)]),
)


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.lists(ACTIONS, max_size=40))
def test_whatever_happens_responses_stay_whole_and_in_order(actions):
    client, events = Client(), []
    for name, *given_ in actions:
        try:
            if name == "turn":
                events += client.turn(*given_)
            elif name in ("create", "cancel"):
                events += client.send(f"response.{name}")
            else:
                events += client.send("input_audio_buffer.append", audio={"loud": loud, "quiet": quiet}[name](0.3))
        except ProtocolError as error:
            assert error.code in ("conversation_already_has_active_response", "response_cancel_not_active")
    check_responses(events)
    for _ in range(PATIENCE + 1):  # silence ends what there is
        events += client.turn(False)
    check_responses(events)
    made, done = (sum(event["type"] == f"response.{kind}" for event in events) for kind in ("created", "done"))
    assert made == done


OPENED = ["created", "output_item.added", "conversation.item.added", "content_part.added"]
CLOSED = [
    "output_audio.done",
    "output_audio_transcript.done",
    "content_part.done",
    "output_item.done",
    "conversation.item.done",
    "done",
]
DELTAS = ["output_audio.delta", "output_audio_transcript.delta"]


def test_a_run_of_speaking_micro_turns_is_a_response(client):
    assert client.turn(False) == []
    assert kinds(client.turn(True, " good")) == [*OPENED, *DELTAS]
    assert kinds(client.turn(True, " day")) == DELTAS
    assert kinds(client.turn(True)) == ["output_audio.delta"]
    ended = client.turn(False)
    assert kinds(ended) == ["output_audio.delta", *CLOSED]
    response = ended[-1]["response"]
    assert response["status"] == "completed" and response["status_details"] is None
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": "good day"}]
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (25, 16)
    assert usage["output_token_details"] == {"audio_tokens": 12, "text_tokens": 4}
    assert client.turn(False) == []


def test_falling_silent_while_the_user_speaks_is_an_interruption(client):
    client.turn(True, " well")
    started = client.send("input_audio_buffer.append", audio=loud(0.5))
    assert kinds(started) == ["input_audio_buffer.speech_started"]
    assert kinds(client.turn(True)) == ["output_audio.delta"]  # the model goes on for as long as it decides to
    done = client.turn(False)[-1]["response"]
    assert done["status"] == "cancelled"
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    stopped = client.send("input_audio_buffer.append", audio=quiet(1.0))
    assert kinds(stopped) == [
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    ids = [event["item_id"] for event in (started[0], *stopped[:2])] + [stopped[2]["item"]["id"]]
    assert len(set(ids)) == 1
    assert stopped[2]["previous_item_id"] == done["output"][0]["id"]


def test_what_a_client_cancels_is_not_heard_until_the_model_pauses(client):
    assert client.refused("response.cancel") == "response_cancel_not_active"
    client.turn(True, " one")
    done = client.send("response.cancel")
    assert kinds(done) == CLOSED and done[-1]["response"]["status_details"]["reason"] == "client_cancelled"
    assert client.turn(True, " two") == [] == client.turn(False)
    assert kinds(client.turn(True, " three"))[0] == "created"


def test_a_response_asked_for_waits_for_the_model_and_not_for_ever(client):
    assert kinds(client.send("response.create", response={"metadata": {"a": "b"}})) == ["created"]
    assert client.live.begun == 1
    assert client.refused("response.create") == "conversation_already_has_active_response"
    for _ in range(PATIENCE - 1):
        assert client.turn(False) == []
    (done,) = client.turn(False)
    assert done["response"]["output"] == [] and done["response"]["metadata"] == {"a": "b"}
    assert kinds(client.send("response.create")) == ["created"]
    assert kinds(client.turn(True, " yes")) == [*OPENED[1:], *DELTAS]


def test_who_wants_text_gets_text(client):
    client.send("session.update", session={"output_modalities": ["text"]})
    assert kinds(client.turn(True, " hello")) == [*OPENED, "output_text.delta"]
    done = client.turn(False)
    assert kinds(done)[0] == "output_text.done" and done[0]["text"] == "hello"
    assert done[-1]["response"]["output_modalities"] == ["text"]


def test_a_telephone_hears_its_own_format(client):
    formats = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcma"}}}
    updated = client.send("session.update", session={"type": "realtime", "audio": formats})
    assert updated[0]["session"]["audio"]["output"]["format"] == {"type": "audio/pcma"}
    client.send("input_audio_buffer.append", audio=base64.b64encode(bytes([0xFF] * 8000)).decode())
    assert 14_500 < client.live.heard <= 16_000
    heard = b"".join(
        base64.b64decode(event["delta"])
        for _ in range(5)
        for event in client.turn(True)
        if event["type"] == "response.output_audio.delta"
    )
    assert 7000 < len(heard) <= 8000  # one second, less what the filter holds back


def test_without_turn_detection_the_client_commits(client):
    client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
    assert client.send("input_audio_buffer.append", audio=loud(0.5)) == []
    assert kinds(client.send("input_audio_buffer.commit"))[0] == "input_audio_buffer.committed"
    assert client.refused("input_audio_buffer.commit") == "input_audio_buffer_commit_empty"
    client.send("input_audio_buffer.append", audio=loud(0.5))
    assert kinds(client.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert client.live.cleared == 1
    assert client.refused("input_audio_buffer.commit") == "input_audio_buffer_commit_empty"


def picture(colour: tuple) -> str:
    file = io.BytesIO()
    Image.new("RGB", (200, 100), colour).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


ODD = (None, True, 3, -1.5, 10**400, "", "x", "\ud800", [], [1], {}, {"type": []}, {"a": {"b": 1}})
SIDE = {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": {"silence_duration_ms": 500}, "voice": "v"}


def valid_events() -> list[dict]:
    parts = [
        {"type": "input_text", "text": "red"},
        {"type": "input_audio", "audio": quiet(0.1), "transcript": "red"},
        {"type": "input_image", "image_url": picture((0, 0, 255)), "detail": "auto"},
    ]
    update = {"type": "realtime", "instructions": "", "tools": [], "output_modalities": ["text"]}
    return [
        {"type": "session.update", "session": update | {"audio": {"input": SIDE, "output": SIDE}}},
        {"type": "input_audio_buffer.append", "audio": quiet(0.1)},
        {"type": "input_audio_buffer.commit", "event_id": "e"},
        {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": parts, "id": "i"}},
        {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "o"}},
        {"type": "conversation.item.truncate", "item_id": "i", "content_index": 0, "audio_end_ms": 0},
        {"type": "conversation.item.retrieve", "item_id": "i"},
        {"type": "response.create", "response": {"output_modalities": ["text"], "metadata": {}}},
    ]


def places(value, path: tuple = ()):
    """Paths to everything in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in inner:
        yield from places(child, (*path, key))


def with_odd(value, path: tuple, odd):
    """The value with something else in one place."""
    if not path:
        return odd
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_odd(copy[path[0]], path[1:], odd)
    return copy


@pytest.mark.parametrize("valid", valid_events(), ids=lambda valid: valid["type"])
def test_one_odd_value_anywhere_in_an_event_is_followed_or_a_typed_error(valid):
    refused = 0
    for path in places(valid):
        for odd in ODD:
            dialogue = Dialogue(FakeLive(), "small", small_config())
            try:
                event = parse_event(json.dumps(with_odd(valid, path, odd)), REALTIME)
                json.dumps(dialogue.client(event, 0.0))
            except ProtocolError as error:
                assert error.code and error.message
                refused += 1
    assert refused >= len(ODD)


def test_sound_in_an_item_that_does_not_fit_is_said(client):
    client.live.room = 4000
    content = [{"type": "input_audio", "audio": quiet(0.5)}]
    events = client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert events[-1]["error"]["code"] == "input_audio_buffer_full" and "0.2 s" in events[-1]["error"]["message"]


def test_what_a_user_writes_and_shows_reaches_the_model(client):
    content = [
        {"type": "input_text", "text": "what is this"},
        {"type": "input_image", "image_url": picture((255, 0, 0))},
        {"type": "input_audio", "audio": quiet(0.5)},
    ]
    events = client.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert client.live.texts == [Text(USER, "what is this", 0.0)]
    assert client.live.frames[0].shape == (40, 40, 3) and client.live.frames[0][7, 7].tolist() == [255, 0, 0]
    assert client.live.heard == 8000
    assert events[0]["item"]["content"][1] == {"type": "input_image"}  # shown without its bytes
    assert client.send("conversation.item.retrieve", item_id=events[0]["item"]["id"])[0]["item"] == events[0]["item"]
    large = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "x" * 20_001}]}
    assert client.refused("conversation.item.create", item=large) == "invalid_value"
    output = {"type": "function_call_output", "call_id": "c1", "output": "21 degrees"}
    client.send("conversation.item.create", item=output)
    assert client.live.texts[1] == Text(BACKGROUND, "21 degrees", 0.0)
    system = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "be kind"}]}
    client.send("conversation.item.create", item=system)
    assert len(client.live.texts) == 2
