"""The objects of the OpenAI Realtime protocol, always whole: some clients refuse one that lacks a field."""

import base64
import binascii
import copy
import io
from typing import Any

import numpy as np
from PIL import Image

from tml_jax.config import PATCH, Config
from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.sound_formats import FORMATS, PCM

Object = dict[str, Any]
MAX_PIXELS = 4096 * 2160
MAX_PICTURES = 4  # of an item
MAX_TEXT = 20_000  # characters of an item
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


def _format(name: str) -> Object:
    return {"type": name, "rate": PCM.rate} if name == PCM.name else {"type": name}


def new_session(session_id: str, model: str) -> Object:
    """A session as `session.created` shows it."""
    hears = {"format": _format(PCM.name), "transcription": None, "noise_reduction": None}
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
            "output": {"format": _format(PCM.name), "voice": "model", "speed": 1.0},
        },
    }


def _member(value: Any, name: str, allowed: tuple[type, ...]) -> Any:
    if not isinstance(value, allowed):
        expected = " or ".join(kind.__name__ for kind in allowed)
        raise ProtocolError("invalid_type", f"{name} is a {type(value).__name__}: expected {expected}", name)
    return value


def updated_session(session: Object, changes: Object) -> Object:
    """The session after a `session.update`. What this model does not follow, such as instructions, is kept and shown.

    Raises:
      ProtocolError: a value is of the wrong type, or none of those allowed.
    """
    new = copy.deepcopy(session)
    if changes.get("type", "realtime") != "realtime":
        raise ProtocolError("invalid_value", f"session.type = {changes['type']!r}: expected 'realtime'", "session.type")
    for name in ("instructions", "tools", "tool_choice", "max_output_tokens", "tracing", "truncation", "prompt"):
        if name in changes:
            new[name] = changes[name]
    _member(new["instructions"], "session.instructions", (str,))
    _member(new["tools"], "session.tools", (list,))
    if "output_modalities" in changes:
        new["output_modalities"] = changes["output_modalities"]
        if new["output_modalities"] not in (["audio"], ["text"]):
            given = repr(new["output_modalities"])[:100]
            message = f"session.output_modalities = {given}: expected ['audio'] or ['text']"
            raise ProtocolError("invalid_value", message, "session.output_modalities")
    audio = _member(changes.get("audio") or {}, "session.audio", (dict,))
    for side in ("input", "output"):
        given = _member(audio.get(side) or {}, f"session.audio.{side}", (dict,))
        for name in set(given) & set(new["audio"][side]):
            path = f"session.audio.{side}.{name}"
            if name == "format":
                kind = _member(given[name], path, (dict,)).get("type")
                if not isinstance(kind, str) or kind not in FORMATS:
                    message = f"{path}.type = {kind!r}: expected one of {', '.join(FORMATS)}"
                    raise ProtocolError("invalid_value", message, path)
                new["audio"][side][name] = _format(kind)
            elif name == "turn_detection":
                vad = _member(given[name], path, (dict, type(None)))
                if vad is not None:
                    vad = _turn_detection(new["audio"][side][name] or {}, vad, path)
                new["audio"][side][name] = vad
            else:
                new["audio"][side][name] = given[name]
    return new


def _turn_detection(before: Object, changes: Object, path: str) -> Object:
    """What is changed of the same kind of it; another kind starts with its own fields, which clients read."""
    kind = changes.get("type", before.get("type", "server_vad"))
    if not isinstance(kind, str) or kind not in _TURN_DETECTION:
        message = f"{path}.type = {repr(kind)[:100]}: expected one of {', '.join(_TURN_DETECTION)}"
        raise ProtocolError("invalid_value", message, path)
    return {**(before if before.get("type") == kind else _TURN_DETECTION[kind]), **changes}


def message_item(item_id: str, role: str, status: str, content: list[Object]) -> Object:
    """A message of the conversation."""
    return {
        "id": item_id,
        "object": "realtime.item",
        "type": "message",
        "status": status,
        "role": role,
        "content": content,
    }


def checked_item(item: Object, item_id: str) -> Object:
    """An item that a client creates, whole.

    Raises:
      ProtocolError: its type, role or content is none that exists.
    """
    kind = item.get("type")
    if kind == "function_call_output":
        for name in ("call_id", "output"):
            _member(item.get(name), f"item.{name}", (str,))
        _check_size(item["output"] + item["call_id"])
        known = {name: item[name] for name in ("type", "call_id", "output")}
        return {**known, "id": item_id, "object": "realtime.item", "status": "completed"}
    if kind != "message":
        message = f"item.type = {repr(kind)[:100]}: expected message or function_call_output"
        raise ProtocolError("invalid_value", message, "item.type")
    if item.get("role") not in ("user", "assistant", "system"):
        message = f"item.role = {repr(item.get('role'))[:100]}: expected user, assistant or system"
        raise ProtocolError("invalid_value", message, "item.role")
    content = _member(item.get("content"), "item.content", (list,))
    needs = {"input_text": "text", "output_text": "text", "input_audio": "audio", "input_image": "image_url"}
    for index, part in enumerate(content):
        path = f"item.content[{index}]"
        kind = _member(part, path, (dict,)).get("type")
        if not isinstance(kind, str) or (kind not in needs and kind != "output_audio"):
            raise ProtocolError("invalid_value", f"{path}.type = {repr(kind)[:100]}: expected {', '.join(needs)}", path)
        if kind in needs:
            _member(part.get(needs[kind]), f"{path}.{needs[kind]}", (str,))
    pictures = sum(part["type"] == "input_image" for part in content)
    if pictures > MAX_PICTURES:  # each takes time, in which nobody else is served
        message = f"an item with {pictures} pictures: expected at most {MAX_PICTURES}"
        raise ProtocolError("invalid_value", message, "item.content")
    _check_size("".join(text for part in shown_parts(content) for text in part.values() if text))
    return message_item(item_id, item["role"], "completed", content)


def shown_parts(content: list[Object]) -> list[Object]:
    """The parts of a message as they are kept and shown: without the bytes of sound and pictures, or a session that
    lasts would fill the memory. Sound always has a transcript, if only None: @openai/agents fails without it."""
    names = ("type", "text", "transcript")
    shown = [{name: part[name] for name in names if isinstance(part.get(name), str)} for part in content]
    return [{"transcript": None, **part} if part["type"] == "input_audio" else part for part in shown]


def _check_size(text: str) -> None:
    if len(text) > MAX_TEXT:
        message = f"an item with {len(text)} characters: expected at most {MAX_TEXT}"
        raise ProtocolError("invalid_value", message, "item")


def image_frame(url: str, config: Config) -> np.ndarray:
    """A `data:` URL of a picture as a frame of the model's grid, (rows, columns, 3) uint8.

    Raises:
      ProtocolError: it is no picture in a `data:` URL, or too large.
    """
    head, comma, data = url.partition(",")
    if not head.startswith("data:image/") or not head.endswith(";base64") or not comma:
        raise ProtocolError("invalid_image", "image_url: expected data:image/png;base64,… (or jpeg)", "image_url")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=("PNG", "JPEG", "WEBP"))
        if picture.width * picture.height > MAX_PIXELS:
            message = f"image of {picture.width} × {picture.height}: expected at most {MAX_PIXELS} pixels"
            raise ProtocolError("invalid_image", message, "image_url")
        rows, columns = (cells * size for cells, size in zip(config.data.video_grid, PATCH[1:3]))
        return np.asarray(picture.convert("RGB").resize((columns, rows), Image.Resampling.BOX))
    except (binascii.Error, OSError, ValueError, SyntaxError) as error:
        if isinstance(error, ProtocolError):
            raise
        raise ProtocolError("invalid_image", "image_url holds no PNG, JPEG or WebP picture", "image_url") from error
