"""What clients of the OpenAI Realtime protocol send, checked before anything acts on it."""

import dataclasses
import json
import math
from typing import Any, NoReturn


@dataclasses.dataclass
class ProtocolError(ValueError):
    """What a client sent and should not have: becomes an `error` event, and the session goes on.

    Attributes:
      code: short name, the same for the same mistake.
      message: what was given, what was expected.
      param: the field it is about.
      event_id: of the client's event, if it had one.
    """

    code: str
    message: str
    param: str | None = None
    event_id: str | None = None

    def __str__(self) -> str:
        return self.message

    def event(self) -> dict[str, Any]:
        """The `error` event, without its id."""
        error = {"type": "invalid_request_error", "code": self.code, "message": self.message}
        return {"type": "error", "error": {**error, "param": self.param, "event_id": self.event_id}}


@dataclasses.dataclass(frozen=True)
class ClientEvent:
    """One event: its `type`, its `event_id` if it has one, and all its fields; `decoded`: its sound and pictures are
    arrays (`Dialogue.decoded`)."""

    type: str
    event_id: str | None
    fields: dict[str, Any]
    decoded: bool = False


# Type → fields that it must have, and their types.
REALTIME = {
    "session.update": {"session": dict},
    "input_audio_buffer.append": {"audio": str},
    "input_audio_buffer.commit": {},
    "input_audio_buffer.clear": {},
    "conversation.item.create": {"item": dict},
    "conversation.item.truncate": {"item_id": str, "content_index": int, "audio_end_ms": int},
    "conversation.item.delete": {"item_id": str},
    "conversation.item.retrieve": {"item_id": str},
    "response.create": {},
    "response.cancel": {},
}
DUPLEX = {
    "duplex.input": {"offset": int, "audio": str},
    "duplex.played": {"index": int, "samples": int},
    "conversation.item.create": {"item": dict},
}
MAX_PLAIN = 2**20  # characters of an event that holds no sound and no item: what settings may be, all escaped
MAX_VALUES = 2**16  # objects, lists and commas of a frame: what they become takes far more room and time than text


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # 1e999
        raise ValueError(f"{text[:20]} is too large a number")
    return value


_JSON = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


def json_type(kind: type) -> str:
    """What JSON calls a type of Python's."""
    names = {dict: "object", list: "array", str: "string", int: "integer", float: "number", bool: "boolean"}
    return names.get(kind, "null")


def parse_event(frame: str, known: dict[str, dict[str, type]]) -> ClientEvent:
    """One text frame as an event.

    Args:
      frame: what came.
      known: types of events and their fields.

    Returns:
      The event.

    Raises:
      ProtocolError: the frame is no JSON object or too large, its type is unknown, or a field is missing or of
        another type.
    """
    values = sum(map(frame.count, ",[{"))
    if values > MAX_VALUES:
        raise ProtocolError("event_too_large", f"a frame of about {values} values: expected at most {MAX_VALUES}")
    try:
        fields = _JSON.decode(frame)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ProtocolError("invalid_json", f"the frame is not JSON: {why}") from error
    if not isinstance(fields, dict):
        raise ProtocolError("invalid_event", f"the frame is of type {json_type(type(fields))}: expected an object")
    event_id = fields.get("event_id")
    if event_id is not None and not isinstance(event_id, str):
        raise ProtocolError("invalid_type", "event_id is no string", "event_id")
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in known:
        expected = ", ".join(known)
        shown = repr(kind)[:100]
        raise ProtocolError("unknown_event", f"type = {shown}: expected one of {expected}", "type", event_id)
    if len(frame) > MAX_PLAIN and not {"audio", "item"} & set(known[kind]):
        message = f"{kind} of {len(frame)} characters: expected at most {MAX_PLAIN}"
        raise ProtocolError("event_too_large", message, None, event_id)
    for name, expected in known[kind].items():
        if name not in fields:
            raise ProtocolError("missing_field", f"{kind} without {name}", name, event_id)
        if not isinstance(fields[name], expected) or isinstance(fields[name], bool):
            message = f"{name} is of type {json_type(type(fields[name]))}: expected {json_type(expected)}"
            raise ProtocolError("invalid_type", message, name, event_id)
    return ClientEvent(kind, event_id, fields)
