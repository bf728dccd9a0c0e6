"""Frames that no decent client sends: valid events, bent at a random place; and sound that makes much work."""

import base64
import copy
import functools
import json
import random
from typing import Any

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EVENTS: list[dict[str, Any]] = [
    {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcmu"}}}}},
    {
        "type": "session.update",
        "session": {"output_modalities": ["text"], "audio": {"input": {"turn_detection": {"silence_duration_ms": 40}}}},
    },
    {"type": "session.update", "session": {"tools": [{"type": "function", "name": "f", "parameters": {}}]}},
    {"type": "input_audio_buffer.append", "audio": "AAAAAAAA"},
    {"type": "input_audio_buffer.commit"},
    {"type": "input_audio_buffer.clear"},
    {
        "type": "conversation.item.create",
        "previous_item_id": "root",
        "item": {"id": "a", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "red box"}]},
    },
    {
        "type": "conversation.item.create",
        "item": {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}],
        },
    },
    {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "{}"}},
    {"type": "conversation.item.truncate", "item_id": "a", "content_index": 0, "audio_end_ms": 10},
    {"type": "conversation.item.delete", "item_id": "a"},
    {"type": "conversation.item.retrieve", "item_id": "a"},
    {"type": "response.create", "response": {"metadata": {"a": "b"}}},
    {"type": "response.cancel"},
    {"type": "duplex.input", "offset": 0, "audio": "AAAA"},
]
VALUES = (
    None, True, -1, 0, 2**63, 1e308, "", "a", "\u0000", "\ud800", "x" * 5000, [], [[]], {}, {"type": "a"}, "audio/pcm",
    "data:image/png;base64,AAAA", "data:,", "////", 10**400, [None] * 50,
)  # fmt: skip


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) below a value."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in ((value, key), *_places(value[key]))]


def hostile_frame(draw: random.Random) -> str:
    """A frame: an event with up to three of its values replaced, removed or doubled, or its text cut or torn."""
    event = copy.deepcopy(draw.choice(EVENTS))
    for _ in range(draw.randrange(4)):
        places = _places(event)
        if not places:
            break
        container, key = draw.choice(places)
        way = draw.randrange(4)
        if way == 0:
            del container[key]
        elif way == 1 and isinstance(container, dict):
            container[draw.choice(("id", "type", "audio", "content", "format", "a"))] = container[key]
        else:
            container[key] = copy.deepcopy(draw.choice(VALUES))
    frame = json.dumps(event)
    way = draw.randrange(12)
    if way == 0:
        return frame[: draw.randrange(len(frame) + 1)]
    if way == 1:
        at = draw.randrange(len(frame) + 1)
        return frame[:at] + draw.choice(("NaN", "[" * 2000, "\\", "\u2028", "1e999")) + frame[at:]
    return frame


@functools.cache
def heavy_frames() -> tuple[str, ...]:
    """As much sound as one event may have, and speech that begins and ends in it as often as it can."""
    vad = {"type": "server_vad", "silence_duration_ms": 0}
    hears = {"format": {"type": "audio/pcmu"}, "turn_detection": vad}
    update = {"type": "session.update", "session": {"audio": {"input": hears}}}
    codes = (b"\x00" * 480 + b"\xff" * 320) * 600
    sounds = codes, codes[:4000], bytes(range(256)) * 11_000, codes * 2  # the last is too long
    appends = [{"type": "input_audio_buffer.append", "audio": base64.b64encode(sound).decode()} for sound in sounds]
    return tuple(map(json.dumps, (update, *appends)))
