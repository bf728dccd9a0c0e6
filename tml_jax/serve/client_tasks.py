"""Tasks of the model as function calls of the OpenAI Realtime protocol, for clients that declare a tool for them.

The model writes tasks in plain text, so there is one tool at most that gets them: the function named `delegate`, or the
only one that there is. Its first text parameter is the task. What the client answers is the task's whole result.
"""

import dataclasses
import json
from collections.abc import Callable

from tml_jax.background.tasks import TaskEvent
from tml_jax.serve.session_settings import Object

DELEGATE = "delegate"
MAX_CALLS = 100  # whose answers are waited for; older ones are forgotten, as their tasks are


@dataclasses.dataclass(frozen=True)
class ClientTool:
    """A function of a client: its name, and the parameter that a task is given in."""

    name: str
    argument: str


def task_tool(session: Object) -> ClientTool | None:
    """The tool of a session that tasks go to, if there is one.

    Args:
      session: with `tools` and `tool_choice` as the client declared them.

    Returns:
      The tool; None where there is none, or several of which none is named `delegate`, or tools are switched off.
    """
    if session["tool_choice"] == "none":
        return None
    tools = [tool for tool in session["tools"] if isinstance(tool, dict) and tool.get("type", "function") == "function"]
    named = {tool["name"]: tool for tool in tools if isinstance(tool.get("name"), str)}
    tool = named.get(DELEGATE, next(iter(named.values())) if len(named) == 1 else None)
    return None if tool is None else ClientTool(tool["name"], _argument(tool.get("parameters")))


def _argument(schema: object) -> str:
    """The first text among the required parameters, or among all."""
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties") if isinstance(schema.get("properties"), dict) else {}
    required = schema.get("required") if isinstance(schema.get("required"), list) else []
    texts = [
        name for name, kind in properties.items() if isinstance(kind, dict) and kind.get("type", "string") == "string"
    ]
    return next((name for name in texts if name in required), texts[0] if texts else "task")


def output_text(output: str) -> str:
    """What the output of a call says: some clients (Pipecat) give every result as JSON, a text too."""
    if not output.startswith('"'):
        return output
    try:
        return json.loads(output)
    except ValueError:
        return output


class ClientCalls:
    """The function calls of one conversation that wait for an answer."""

    def __init__(self, new_id: Callable[[str], str]) -> None:
        """With none yet; `new_id` makes ids of a prefix."""
        self._new_id = new_id
        self._open: dict[str, tuple[int, int]] = {}
        self.made = False  # whether there ever was one

    def call(self, event: TaskEvent, tool: ClientTool) -> Object:
        """The item of a task that was asked or refined."""
        call_id = self._new_id("call")
        self._open[call_id], self.made = (event.number, event.revision), True
        while len(self._open) > MAX_CALLS:
            del self._open[next(iter(self._open))]
        return {
            "id": self._new_id("item"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": tool.name,
            "arguments": json.dumps({tool.argument: event.text}, ensure_ascii=False),
        }

    def answered(self, call_id: str) -> tuple[int, int] | None:
        """Number and revision of the task that a call was for, once; None for a call that is not waited for."""
        return self._open.pop(call_id, None)
