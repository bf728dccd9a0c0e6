"""Frames that no decent client sends: valid events, bent at a random place."""

import copy
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
