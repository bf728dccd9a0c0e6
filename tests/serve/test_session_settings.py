"""What a session may be set to: the protocol's types and ranges, its size, and that nothing is copied deep."""

import copy
import json

import openai.types.realtime as published
import pytest
from dialogue_client import Client
from pydantic import TypeAdapter

from tml_jax.serve.protocol import MAX_PLAIN, MAX_VALUES, REALTIME, ProtocolError, parse_event
from tml_jax.serve.session_settings import MAX_SETTINGS, asked_response, new_session, updated_session

REQUEST = TypeAdapter(published.RealtimeSessionCreateRequest)
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}}


def of_input(**fields) -> dict:
    return {"audio": {"input": fields}}


def of_output(**fields) -> dict:
    return {"audio": {"output": fields}}


def vad(**fields) -> dict:
    return of_input(turn_detection=fields)


GOOD = [
    {"instructions": "Be kind.", "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://tools.example"}]},
    {"tool_choice": {"type": "function", "name": "f"}},
    {"max_output_tokens": 4096, "output_modalities": ["text"], "include": ["item.input_audio_transcription.logprobs"]},
    {"tracing": "auto", "truncation": "disabled", "prompt": {"id": "p", "variables": {"a": "b"}}},
    {"tracing": {"group_id": "g"}, "truncation": {"type": "retention_ratio", "retention_ratio": 0.5}},
    of_input(format={"type": "audio/pcm", "rate": 24_000}, noise_reduction={"type": "near_field"}),
    of_input(format={"type": "audio/pcmu"}, transcription={"model": "whisper-1", "language": "de"}),
    vad(type="server_vad", threshold=0.7, prefix_padding_ms=100, silence_duration_ms=800, idle_timeout_ms=None),
    vad(type="semantic_vad", eagerness="low", create_response=False, interrupt_response=True),
    of_input(turn_detection=None, noise_reduction=None, transcription=None),
    of_output(format={"type": "audio/pcma"}, voice="marin", speed=1.5),
    of_output(voice={"id": "voice_1"}),
]


@pytest.mark.parametrize("changes", GOOD, ids=lambda changes: json.dumps(changes)[:60])
def test_what_the_protocol_allows_is_kept_and_shown_as_it_was_given(changes):
    REQUEST.validate_python({"type": "realtime", **changes})
    session = updated_session(new_session("s", "m"), {"type": "realtime", **changes})
    REQUEST.validate_python(session)

    def within(given, shown) -> bool:
        if isinstance(given, dict):
            return all(name in shown and within(value, shown[name]) for name, value in given.items())
        return given == shown

    assert within(changes, session)


BAD = [
    ({"instructions": 3}, "instructions"),
    ({"instructions": "x" * (2**16 + 1)}, "instructions"),
    ({"output_modalities": ["audio", "text"]}, "output_modalities"),
    ({"tools": {}}, "tools"),
    ({"tools": ["junk"]}, "tools[0]"),
    ({"tools": [TOOL, {**TOOL, "name": "no spaces"}]}, "tools[1].name"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [{**TOOL, "parameters": []}]}, "tools[0].parameters"),
    ({"tools": [{"type": "mcp"}]}, "tools[0].server_label"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tool_choice": "perhaps"}, "tool_choice"),
    ({"tool_choice": {"name": "f"}}, "tool_choice.type"),
    ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": 4097}, "max_output_tokens"),
    ({"max_output_tokens": 1.5}, "max_output_tokens"),
    ({"max_output_tokens": True}, "max_output_tokens"),
    ({"max_output_tokens": "many"}, "max_output_tokens"),
    ({"tracing": "sometimes"}, "tracing"),
    ({"truncation": {"type": "retention_ratio", "retention_ratio": 2}}, "truncation.retention_ratio"),
    ({"prompt": {}}, "prompt.id"),
    ({"include": ["all"]}, "include"),
    ({"model": 4}, "model"),
    ({"audio": ""}, "audio"),
    ({"audio": {"input": 0}}, "audio.input"),
    (of_input(format="audio/pcm"), "audio.input.format"),
    (of_input(format={"type": "mp3"}), "audio.input.format.type"),
    (of_input(format={"type": "audio/pcm", "rate": 16_000}), "audio.input.format.rate"),
    (of_input(noise_reduction={"type": "all"}), "audio.input.noise_reduction.type"),
    (of_input(transcription={"model": 3}), "audio.input.transcription.model"),
    (of_input(turn_detection="server_vad"), "audio.input.turn_detection"),
    (vad(type="magic"), "audio.input.turn_detection.type"),
    (vad(threshold=1.5), "audio.input.turn_detection.threshold"),
    (vad(threshold="loud"), "audio.input.turn_detection.threshold"),
    (vad(silence_duration_ms=-1), "audio.input.turn_detection.silence_duration_ms"),
    (vad(prefix_padding_ms=[]), "audio.input.turn_detection.prefix_padding_ms"),
    (vad(create_response="yes"), "audio.input.turn_detection.create_response"),
    (vad(type="semantic_vad", eagerness="very"), "audio.input.turn_detection.eagerness"),
    (of_output(voice=7), "audio.output.voice"),
    (of_output(voice=""), "audio.output.voice"),
    (of_output(speed=10), "audio.output.speed"),
    (of_output(speed="fast"), "audio.output.speed"),
    ({"type": "transcription"}, "type"),
]


@pytest.mark.parametrize(("changes", "param"), BAD, ids=[f"{param}-{n}" for n, (_, param) in enumerate(BAD)])
def test_nonsense_is_refused_by_name_and_nothing_of_it_is_kept(changes, param):
    client = Client()
    before = copy.deepcopy(client.dialogue.session)
    with pytest.raises(ProtocolError) as error:
        client.send("session.update", session={"instructions": "new", **changes})
    assert error.value.param == f"session.{param}" and error.value.event_id == "mine"
    assert error.value.event()["error"]["type"] == "invalid_request_error"
    assert error.value.code in ("invalid_type", "invalid_value", "missing_field")
    assert client.dialogue.session == before


def test_what_is_not_known_and_what_is_null_leaves_all_as_it_was():
    session = new_session("s", "m")
    unknown = {"temperature": 0.8, "reasoning": {"effort": "low"}, "id": "mine", "model": "other", "object": 3}
    assert updated_session(session, unknown | vad(hush=3) | {"speed": None}) == session
    nulls = {"instructions": None, "tools": None, "max_output_tokens": None, "audio": None}
    assert updated_session(session, nulls) == session
    assert updated_session(session, of_output(speed=None, voice=None)) == session


def test_every_field_that_a_session_shows_and_the_protocol_knows_has_a_check():
    shown = new_session("s", "m")
    odd = 3.5
    for name in set(published.RealtimeSessionCreateRequest.model_fields) & set(shown):
        with pytest.raises(ProtocolError):
            updated_session(shown, {name: odd})
    for side in ("input", "output"):
        for name in shown["audio"][side]:
            with pytest.raises(ProtocolError):
                updated_session(shown, {"audio": {side: {name: odd}}})


def test_settings_are_bounded_and_not_copied_deep():
    session = updated_session(new_session("s", "m"), {"tools": [TOOL]})
    assert updated_session(session, {"instructions": "new"})["tools"] is session["tools"]
    assert asked_response({"output_modalities": ["text"]}, session)[0]["tools"] is session["tools"]
    large = {"tools": [{**TOOL, "parameters": {"x": "y" * MAX_SETTINGS}}]}
    with pytest.raises(ProtocolError, match="expected at most") as error:
        updated_session(session, large)
    assert (error.value.code, error.value.param) == ("settings_too_large", "session")


@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({"type": "session.update", "session": {"instructions": "x" * MAX_PLAIN}}),
        json.dumps({"type": "response.create", "response": {}, "event_id": "x" * MAX_PLAIN}),
        json.dumps({"type": "session.update", "session": {"tools": [{}] * MAX_VALUES}}),
        "[" * MAX_VALUES + "," * 9,
    ],
    ids=["long text", "long id", "many values", "deep"],
)
def test_an_event_that_is_too_large_is_refused_before_anything_is_made_of_it(frame):
    with pytest.raises(ProtocolError) as error:
        parse_event(frame, REALTIME)
    assert error.value.code == "event_too_large"


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (3, "response"),
        ({"output_modalities": ["smell"]}, "response.output_modalities"),
        ({"instructions": 3}, "response.instructions"),
        ({"audio": {"output": {"voice": 3}}}, "response.audio.output.voice"),
        ({"metadata": []}, "response.metadata"),
        ({"metadata": {str(n): "" for n in range(17)}}, "response.metadata"),
        ({"metadata": {"a": 3}}, "response.metadata.a"),
        ({"metadata": {"a": "x" * 513}}, "response.metadata.a"),
    ],
)
def test_what_a_response_is_asked_to_be_is_checked_alike_and_asking_wrongly_changes_nothing(asked, param):
    client = Client()
    with pytest.raises(ProtocolError) as error:
        client.send("response.create", response=asked)
    assert error.value.param == param
    assert client.send("response.create")[0]["type"] == "response.created"


def test_all_settings_together_are_bounded_however_they_came():
    client, text = Client(), "x" * 2**16
    client.send("session.update", session={"instructions": text})
    before = copy.deepcopy(client.dialogue.session)
    tools = [{**TOOL, "description": "x" * 60_000}]
    prompt = of_input(transcription={"model": "m", "prompt": text})
    for more in ({"tools": [*tools, *tools]}, {"tracing": {"metadata": {"x": text}}}, prompt):
        assert client.refused("session.update", session=more) == "settings_too_large"
        assert client.refused("response.create", response=more) == "settings_too_large"
        assert client.dialogue.session == before
    client.send("session.update", session={"instructions": "", "tools": tools})  # what is less is taken


@pytest.mark.parametrize("letter", ["字", "я", '"', "\U0001f642"])
def test_a_text_may_have_as_many_characters_in_any_script(letter):
    client = Client()
    client.send("session.update", session={"instructions": letter * (2**16 - 100 if letter != '"' else 2**15)})
    assert client.dialogue.session["instructions"][-1] == letter
