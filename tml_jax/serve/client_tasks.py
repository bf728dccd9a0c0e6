"""Tasks of the model as function calls of the OpenAI Realtime protocol, for clients that declare a tool for them.

The model writes tasks in plain text, so there is one tool at most that gets them: the function named `delegate`, or the
only one that there is. Its first text parameter is the task. What the client answers is the task's whole result.
"""

import dataclasses
import json
from collections.abc import Callable

from tml_jax.background.tasks import State, TaskEvent
from tml_jax.serve.protocol import ProtocolError
from tml_jax.serve.session_settings import Object

DELEGATE = "delegate"
MAX_CALLS = 100  # whose answers are waited for; older ones are not any more, as their tasks are forgotten
MAX_ENDED = 1000  # calls that are known although nobody waits for their answers
_ENDS = (State.DONE, State.FAILED, State.EXPIRED, State.CANCELLED, "refined")


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
        self._ended: dict[str, None] = {}
        self.made = False  # whether there ever was one

    def call(self, event: TaskEvent, tool: ClientTool) -> Object:
        """The item of a task that was asked or refined."""
        call_id = self._new_id("call")
        self._open[call_id], self.made = (event.number, event.revision), True
        while len(self._open) > MAX_CALLS:
            self.end(next(iter(self._open)))
        return {
            "id": self._new_id("item"),
            "object": "realtime.item",
            "type": "function_call",
            "status": "completed",
            "call_id": call_id,
            "name": tool.name,
            "arguments": json.dumps({tool.argument: event.text}, ensure_ascii=False),
        }

    def follow(self, event: TaskEvent) -> None:
        """Takes in what became of a task: calls of one that has ended, or begins again, are not waited for."""
        if event.what in _ENDS:
            last = event.revision - (event.what == "refined")
            for call_id, (number, revision) in list(self._open.items()):
                if number == event.number and revision <= last:
                    self.end(call_id)

    def task(self, call_id: str) -> tuple[int, int] | None:
        """Number and revision of the task that a call is for; None for one that is waited for no longer.

        Raises:
          ProtocolError: it is none of this conversation.
        """
        if call_id not in self._open and call_id not in self._ended:
            message = f"no call {call_id[:100]!r} in the conversation; those that wait for an output: "
            message += ", ".join(list(self._open)[-10:]) or "none"
            raise ProtocolError("invalid_tool_call_id", message, "item.call_id")
        return self._open.get(call_id)

    def end(self, call_id: str) -> None:
        """Waits for a call no longer; what else is sent of it is not read."""
        if self._open.pop(call_id, None) is not None:
            self._ended[call_id] = None
        while len(self._ended) > MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def still_open(self, item: object) -> str:
        """What to say to a client whose item was refused: that the call which it is of, if so, goes on waiting."""
        call_id = item.get("call_id") if isinstance(item, dict) else None
        if not isinstance(call_id, str) or call_id not in self._open:
            return ""
        return f"; call {call_id!r} waits for another output until its task's deadline"
