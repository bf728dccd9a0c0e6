"""What a session of the OpenAI Realtime protocol is set to: as it begins, and after changes, which are checked.

Every field that a session shows has a check here, by the protocol's own types and ranges. Fields that are not known are
passed over, so that a newer client can be served; so is a null where the protocol has none, which some clients send for
"as it is". What this model does not follow, such as instructions, is kept and shown.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tml_jax.serve.protocol import ProtocolError, json_type
from tml_jax.serve.sound_formats import FORMATS, PCM

Object = dict[str, Any]

MAX_SETTINGS = 2**17  # characters of JSON, escapes counted as what they stand for: all is told again after a change
MAX_TOOLS = 128
MAX_METADATA = 16  # pairs
_MAX_TEXT = 2**16  # characters of one text
_NAME = re.compile("[A-Za-z0-9_-]{1,64}")


@dataclasses.dataclass(frozen=True)
class _Field:
    """A field: `keep` makes what is kept of a value and its path, or raises a ProtocolError; `null`: may be null."""

    keep: Callable[[Any, str], Any]
    null: bool = False


def _wrong(value: Any, path: str, expected: str, code: str = "invalid_value") -> ProtocolError:
    return ProtocolError(code, f"{path} = {repr(value)[:100]}: expected {expected}", path)


def member(value: Any, path: str, *allowed: type) -> Any:
    """The value, where it is of an allowed type; an `invalid_type` ProtocolError where not. True is no number."""
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        given, expected = json_type(type(value)), " or ".join(map(json_type, allowed))
        raise ProtocolError("invalid_type", f"{path} is of type {given}: expected {expected}", path)
    return value


def _text(most: int = 200) -> _Field:
    def keep(value: Any, path: str) -> str:
        if len(member(value, path, str)) > most:
            raise _wrong(value, path, f"at most {most} characters, not {len(value)}")
        return value

    return _Field(keep)


def _name(value: Any, path: str) -> str:
    if not _NAME.fullmatch(member(value, path, str)):
        raise _wrong(value, path, "1 to 64 letters, digits, - and _")
    return value


def _one_of(*allowed: Any, null: bool = False) -> _Field:
    def keep(value: Any, path: str) -> Any:
        if not any(type(value) is type(other) and value == other for other in allowed):
            raise _wrong(value, path, ", ".join(map(repr, allowed)))
        return value

    return _Field(keep, null)


def _number(least: float, most: float, *kinds: type, null: bool = False) -> _Field:
    def keep(value: Any, path: str) -> float:
        if not least <= member(value, path, *kinds) <= most:
            raise _wrong(value, path, f"{least:g} to {most:g}")
        return value

    return _Field(keep, null)


def _checked(changes: Mapping[str, Any], fields: Mapping[str, _Field], path: str) -> Object:
    """The known fields of an object."""
    return {
        name: None if changes[name] is None else field.keep(changes[name], f"{path}.{name}")
        for name, field in fields.items()
        if name in changes and (field.null or changes[name] is not None)
    }


def _object(fields: Mapping[str, _Field], *needed: str, null: bool = False) -> _Field:
    def keep(value: Any, path: str) -> Object:
        for name in needed:
            if name not in member(value, path, dict):
                raise ProtocolError("missing_field", f"{path} without {name}", f"{path}.{name}")
        return _checked(member(value, path, dict), fields, path)

    return _Field(keep, null)


def _either(words: tuple[str, ...], other: _Field, null: bool = False) -> _Field:
    """One of some words, or an object."""

    def keep(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return other.keep(value, path)
        return _one_of(*words).keep(member(value, path, str, dict), path)

    return _Field(keep, null)


_ANY_OBJECT = _Field(lambda value, path: member(value, path, dict))


def _tools(value: Any, path: str) -> list[Object]:
    if len(member(value, path, list)) > MAX_TOOLS:
        raise ProtocolError("invalid_value", f"{path} has {len(value)} tools: expected at most {MAX_TOOLS}", path)
    return [_tool(tool, f"{path}[{index}]") for index, tool in enumerate(value)]


def _tool(value: Any, path: str) -> Object:
    kind = _one_of("function", "mcp").keep(member(value, path, dict).get("type", "function"), f"{path}.type")
    if kind == "mcp":  # of which this model knows nothing: kept as it is
        return value | _object({"server_label": _text()}, "server_label").keep(value, path)
    fields = {"name": _Field(_name), "description": _text(_MAX_TEXT), "parameters": _ANY_OBJECT}
    return {"type": kind} | _object(fields, "name").keep(value, path)


def _texts_of(allowed: str) -> Callable[[Any, str], list[str]]:
    return lambda value, path: [_one_of(allowed).keep(entry, path) for entry in member(value, path, list)]


def _max_output_tokens(value: Any, path: str) -> int | str:
    field = _one_of("inf") if isinstance(value, str) else _number(1, 4096, int)
    return field.keep(value, path)


def _format(value: Any, path: str) -> Object:
    kind = member(value, path, dict).get("type")
    _one_of(*FORMATS).keep(kind, f"{path}.type")
    rate = value.get("rate")
    if rate not in (None, FORMATS[kind].rate) or isinstance(rate, bool):
        raise _wrong(rate, f"{path}.rate", f"{FORMATS[kind].rate} for {kind}")
    return {"type": kind, "rate": PCM.rate} if kind == PCM.name else {"type": kind}


def _voice(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return _object({"id": _text()}, "id").keep(value, path)
    if not member(value, path, str, dict):
        raise _wrong(value, path, "the name of a voice")
    return _text().keep(value, path)


_FLAG = _Field(lambda value, path: member(value, path, bool))
_MILLISECONDS = _number(0, 60_000, int)
_RESPONDS = {"create_response": True, "interrupt_response": True}
_TURN_DETECTION = {
    "server_vad": {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 500,
        **_RESPONDS,
        "idle_timeout_ms": None,
    },
    "semantic_vad": {"type": "semantic_vad", "eagerness": "auto", **_RESPONDS},
}
_TURN_DETECTION_FIELDS = {
    "threshold": _number(0, 1, int, float),
    "prefix_padding_ms": _MILLISECONDS,
    "silence_duration_ms": _MILLISECONDS,
    "create_response": _FLAG,
    "interrupt_response": _FLAG,
    "idle_timeout_ms": _number(0, 60_000, int, null=True),
    "eagerness": _one_of("low", "medium", "high", "auto"),
}
_SIDES = {
    "input": {
        "format": _Field(_format),
        "transcription": _object(
            {"model": _text(), "language": _text(), "prompt": _text(_MAX_TEXT), "delay": _text()}, null=True
        ),
        "noise_reduction": _object({"type": _one_of("near_field", "far_field")}, null=True),
        "turn_detection": _Field(lambda value, path: member(value, path, dict), null=True),
    },
    "output": {"format": _Field(_format), "voice": _Field(_voice), "speed": _number(0.25, 1.5, int, float)},
}
_FIELDS = {
    "model": _text(),
    "output_modalities": _one_of(["audio"], ["text"]),
    "instructions": _text(_MAX_TEXT),
    "tools": _Field(_tools),
    "tool_choice": _either(
        ("none", "auto", "required"),
        _object({"type": _one_of("function", "mcp"), "name": _text(), "server_label": _text()}, "type"),
    ),
    "parallel_tool_calls": _FLAG,
    "max_output_tokens": _Field(_max_output_tokens),
    "tracing": _either(
        ("auto",), _object({"group_id": _text(), "workflow_name": _text(), "metadata": _ANY_OBJECT}), null=True
    ),
    "truncation": _either(
        ("auto", "disabled"),
        _object(
            {
                "type": _one_of("retention_ratio"),
                "retention_ratio": _number(0, 1, int, float),
                "token_limits": _ANY_OBJECT,
            },
            "type",
            "retention_ratio",
        ),
    ),
    "prompt": _object({"id": _text(), "version": _text(), "variables": _ANY_OBJECT}, "id", null=True),
    "include": _Field(_texts_of("item.input_audio_transcription.logprobs"), null=True),
}


def new_session(session_id: str, model: str) -> Object:
    """A session as `session.created` shows it: always whole, as some clients refuse one that lacks a field."""
    form = {"type": PCM.name, "rate": PCM.rate}
    hears = {"format": form, "transcription": None, "noise_reduction": None}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": session_id,
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "tracing": None,
        "truncation": "auto",
        "prompt": None,
        "include": None,
        "audio": {
            "input": {**hears, "turn_detection": _TURN_DETECTION["server_vad"]},
            "output": {"format": form, "voice": "model", "speed": 1.0},
        },
    }


def updated_session(session: Object, changes: Object, name: str = "session") -> Object:
    """The session after a `session.update`; the one before is not changed, nor copied deep.

    Args:
      session: so far.
      changes: what the client wants changed.
      name: of the changes, as errors show it.

    Returns:
      The new one.

    Raises:
      ProtocolError: a value is of the wrong type or none of those allowed, or all of it is too large.
    """
    _check_size(changes, name)
    _one_of("realtime").keep(changes.get("type", "realtime"), f"{name}.type")
    new = session | _checked(changes, _FIELDS, name) | {"model": session["model"]}
    given, new["audio"] = _inner(changes, "audio", name), {}
    for side, fields in _SIDES.items():
        path, before = f"{name}.audio.{side}", session["audio"][side]
        now = _checked(_inner(given, side, f"{name}.audio"), fields, path)
        if now.get("turn_detection") is not None:
            vad = _turn_detection(before["turn_detection"] or {}, now["turn_detection"], f"{path}.turn_detection")
            now["turn_detection"] = vad
        new["audio"][side] = before | now
    if new != session:
        _check_size(new, f"{name} with what was set before it")
    return new


def _check_size(settings: Object, name: str) -> None:
    size = len(json.dumps(settings, ensure_ascii=False))
    if size > MAX_SETTINGS:
        message = f"{name} has {size} characters: expected at most {MAX_SETTINGS}"
        raise ProtocolError("settings_too_large", message, name.partition(" ")[0])


def _inner(changes: Object, name: str, path: str) -> Object:
    """An object in another; empty where it is missing or null."""
    return {} if changes.get(name) is None else member(changes[name], f"{path}.{name}", dict)


def _turn_detection(before: Object, changes: Object, path: str) -> Object:
    """What is changed of the same kind of it; another kind starts with its own fields, which clients read."""
    kind = changes.get("type", before.get("type", "server_vad"))
    _one_of(*_TURN_DETECTION).keep(kind, f"{path}.type")
    start = before if before.get("type") == kind else _TURN_DETECTION[kind]
    fields = {field: check for field, check in _TURN_DETECTION_FIELDS.items() if field in _TURN_DETECTION[kind]}
    return start | _checked(changes, fields, path)


def asked_response(asked: Any, session: Object) -> tuple[Object, Object | None]:
    """What a `response.create` asks for: the session as this response has it, and its metadata.

    Args:
      asked: the client's `response`, or None.
      session: as it stands.

    Returns:
      A session that differs in `output_modalities` and `max_output_tokens`, and the metadata, if there are any.

    Raises:
      ProtocolError: as `updated_session`, of all fields that a session has, too.
    """
    asked = {} if asked is None else member(asked, "response", dict)
    changed = updated_session(session, {name: value for name, value in asked.items() if name != "type"}, "response")
    followed = {name: changed[name] for name in ("output_modalities", "max_output_tokens")}
    metadata = asked.get("metadata")
    if metadata is None:
        return session | followed, None
    if len(member(metadata, "response.metadata", dict)) > MAX_METADATA:
        raise _wrong(metadata, "response.metadata", f"at most {MAX_METADATA} pairs")
    for key, value in metadata.items():
        _text(64).keep(key, "response.metadata")
        _text(512).keep(value, f"response.metadata.{key[:64]}")
    return session | followed, metadata
