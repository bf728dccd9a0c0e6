"""Items of the OpenAI Realtime protocol, always whole: some clients refuse one that lacks a field."""

from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.session_settings import Object, member

MAX_PICTURES = 4  # of an item
MAX_TEXT = 20_000  # characters of an item
MAX_PARTS = 64  # of an item


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
            _check_size(member(item.get(name), f"item.{name}", str), f"item.{name}")
        known = {name: item[name] for name in ("type", "call_id", "output")}
        return {**known, "id": item_id, "object": "realtime.item", "status": "completed"}
    if kind != "message":
        message = f"item.type = {repr(kind)[:100]}: expected message or function_call_output"
        raise ProtocolError("invalid_value", message, "item.type")
    if item.get("role") not in ("user", "assistant", "system"):
        message = f"item.role = {repr(item.get('role'))[:100]}: expected user, assistant or system"
        raise ProtocolError("invalid_value", message, "item.role")
    content = member(item.get("content"), "item.content", list)
    if len(content) > MAX_PARTS:
        message = f"an item of {len(content)} parts: expected at most {MAX_PARTS}"
        raise ProtocolError("invalid_value", message, "item.content")
    needs = {"input_text": "text", "output_text": "text", "input_audio": "audio", "input_image": "image_url"}
    for index, part in enumerate(content):
        path = f"item.content[{index}]"
        kind = member(part, path, dict).get("type")
        if not isinstance(kind, str) or (kind not in needs and kind != "output_audio"):
            raise ProtocolError("invalid_value", f"{path}.type = {repr(kind)[:100]}: expected {', '.join(needs)}", path)
        if kind in needs:
            member(part.get(needs[kind]), f"{path}.{needs[kind]}", str)
    pictures = sum(part["type"] == "input_image" for part in content)
    if pictures > MAX_PICTURES:  # each takes time, in which its session waits
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


def _check_size(text: str, path: str = "item") -> None:
    if len(text) > MAX_TEXT:
        raise ProtocolError("invalid_value", f"{path} has {len(text)} characters: expected at most {MAX_TEXT}", path)
