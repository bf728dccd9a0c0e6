"""What the model says, as responses of the OpenAI Realtime protocol.

The model has no turns: it speaks in some micro-turns and is silent in others. A response is a run of micro-turns in
which it speaks or writes. It is `completed` when the model falls silent by itself, and `cancelled` (`turn_detected`)
when it falls silent while the user speaks: it was interrupted. One that has gone on for `LONGEST` is `incomplete`, and
another follows. Replies are remembered for as long together, so that a client can say how much of one was heard.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tml_jax.config import AUDIO_ELEMENTS
from tml_jax.data.layout import OUTPUT_SAMPLES
from tml_jax.serve.realtime_objects import message_item
from tml_jax.serve.session_settings import Object
from tml_jax.serve.sound_formats import FORMATS, Encoder
from tml_jax.serve.words import MicroTurn

PATIENCE = 25  # silent micro-turns that a response a client asked for waits for the model to speak
LONGEST = 3000  # micro-turns of a response, ten minutes
REMEMBERED = 100  # replies that can be truncated, of the last `LONGEST` micro-turns


@dataclasses.dataclass(frozen=True)
class Heard:
    """What was heard of an item: its `words`, and the micro-turns that were `cut`, (number, samples heard of it)."""

    words: str
    cut: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class _Said:
    """What one micro-turn said in an item, from sample `start` of it on."""

    index: int
    start: int
    words: str


@dataclasses.dataclass
class _Response:
    id: str
    item_id: str
    session: Object
    metadata: Any
    asked: bool
    encoder: Encoder
    silent: int = 0
    opened: bool = False
    turns: int = 0
    previous: str | None = None
    transcript: str = ""
    calls: tuple[Object, ...] = ()  # function calls in it, after its message
    elements_out: int = 0
    sound_out: int = 0


class Replies:
    """The responses of one conversation, one at a time."""

    def __init__(self, new_id: Callable[[str], str]) -> None:
        """With no response yet.

        Args:
          new_id: prefix → an id that has not been given out before.
        """
        self._new_id = new_id
        self._conversation = new_id("conv")
        self._now: _Response | None = None
        self.muted = False
        self._elements_in = 0
        self._said: dict[str, list[_Said]] = {}  # item → its micro-turns; forgotten whole
        self._turns_said = 0  # in all of them

    @property
    def active(self) -> str | None:
        """The response that is not done, if there is one."""
        return None if self._now is None else self._now.id

    @property
    def item(self) -> str:
        """The item that is being said; empty where none is."""
        return self._now.item_id if self._now is not None and self._now.opened else ""

    def spoken(self, item_id: str) -> int | None:
        """Samples of sound in an item; None for one that is not the model's, or forgotten."""
        return OUTPUT_SAMPLES * len(self._said[item_id]) if item_id in self._said else None

    def heard(self, item_id: str, samples: int) -> Heard:
        """What was heard of an item, when its sound was heard up to some sample. Words belong to the micro-turn in
        whose sound they begin, and are taken for heard where half of that was."""
        said = self._said.get(item_id, [])
        words = "".join(part.words for part in said if samples - part.start >= OUTPUT_SAMPLES // 2)
        cut = [(part.index, max(0, samples - part.start)) for part in said if samples - part.start < OUTPUT_SAMPLES]
        return Heard(words, tuple(cut))

    def begin(self, session: Object, asked: bool, metadata: Any = None) -> list[Object]:
        """Opens a response: because the model speaks, or because the client asked."""
        form = FORMATS[session["audio"]["output"]["format"]["type"]]
        response_id, item_id = self._new_id("resp"), self._new_id("item")
        self._now = _Response(response_id, item_id, session, metadata, asked, Encoder(form))
        self.muted = False
        return [{"type": "response.created", "response": self._object("in_progress", None, [])}]

    def cancel(self) -> list[Object]:
        """Ends the response because the client says so; what the model goes on to say is not heard until it pauses."""
        self.muted = True
        return self._end("cancelled", "client_cancelled")

    def call(self, item: Object, session: Object, last: str | None) -> list[Object]:
        """Makes a function call: in the response that speaks now, or else in one that ends with it.

        Args:
          item: the call, whole.
          session: as it stands.
          last: the last item of the conversation.

        Returns:
          Events, without their ids.
        """
        events, muted = [], self.muted
        if self._now is None:
            events += self.begin(session, asked=False)
            self.muted = muted
        now = self._now
        place = {"response_id": now.id, "output_index": now.opened + len(now.calls)}
        now.calls += (item,)
        begun = {**item, "status": "in_progress", "arguments": ""}
        call = {**place, "item_id": item["id"], "call_id": item["call_id"]}
        events += [
            {"type": "response.output_item.added", **place, "item": begun},
            {"type": "conversation.item.added", "previous_item_id": last, "item": begun},
            {"type": "response.function_call_arguments.delta", **call, "delta": item["arguments"]},
            {
                "type": "response.function_call_arguments.done",
                **call,
                "name": item["name"],
                "arguments": item["arguments"],
            },
            {"type": "response.output_item.done", **place, "item": item},
            {"type": "conversation.item.done", "previous_item_id": last, "item": item},
        ]
        return events if now.opened else events + self._end("completed", None)

    def micro_turn(self, turn: MicroTurn, session: Object, user_speaks: bool, last: str | None) -> list[Object]:
        """Goes on by 200 ms.

        Args:
          turn: what the model put out.
          session: as it stands.
          user_speaks: whether the user is speaking over it.
          last: the last item of the conversation.

        Returns:
          Events, without their ids.
        """
        self._elements_in += turn.elements_in
        says = turn.gate == "SPEAK" or bool(turn.text or turn.display)
        if self.muted:
            self.muted = says
            return []
        events = []
        if self._now is None:
            if not says:
                return []
            events += self.begin(session, asked=False)
        now = self._now
        now.turns += now.opened
        now.elements_out += turn.elements_out
        now.sound_out += AUDIO_ELEMENTS * (turn.gate == "SPEAK")
        if not says and not now.opened:  # asked for, and the model is still silent
            now.silent += 1
            return events + (self._end("completed", None) if now.silent >= PATIENCE else [])
        if says and not now.opened:
            events += self._open(last)
        events += self._say(turn)
        if not says:
            events += self._end("cancelled", "turn_detected") if user_speaks else self._end("completed", None)
        elif now.turns >= LONGEST:
            events += self._end("incomplete", "max_output_tokens")
        return events

    def _place(self) -> Object:
        now = self._now
        return {"response_id": now.id, "item_id": now.item_id, "output_index": 0, "content_index": 0}

    @property
    def _speaks(self) -> bool:
        return self._now.session["output_modalities"] == ["audio"]

    def _open(self, last: str | None) -> list[Object]:
        now = self._now
        now.opened, now.previous = True, last
        item = message_item(now.item_id, "assistant", "in_progress", [])
        part = {"type": "audio", "transcript": ""} if self._speaks else {"type": "text", "text": ""}
        return [
            {"type": "response.output_item.added", "response_id": now.id, "output_index": 0, "item": item},
            {"type": "conversation.item.added", "previous_item_id": last, "item": item},
            {"type": "response.content_part.added", **self._place(), "part": part},
        ]

    def _say(self, turn: MicroTurn) -> list[Object]:
        now, place, events = self._now, self._place(), []
        words = turn.text + turn.display
        words = words if now.transcript else words.lstrip()
        now.transcript += words
        if not self._speaks:
            return [{"type": "response.output_text.delta", **place, "delta": words}] if words else []
        self._remember(turn, words)
        sound = now.encoder.encode(turn.samples)
        if sound:
            events.append({"type": "response.output_audio.delta", **place, "delta": sound})
        if words:
            events.append({"type": "response.output_audio_transcript.delta", **place, "delta": words})
        return events

    def _remember(self, turn: MicroTurn, words: str) -> None:
        said = self._said.setdefault(self._now.item_id, [])
        said.append(_Said(turn.index, OUTPUT_SAMPLES * len(said), words))
        self._turns_said += 1
        while len(self._said) > REMEMBERED or (self._turns_said > LONGEST and len(self._said) > 1):
            self._turns_said -= len(self._said.pop(next(iter(self._said))))

    def _end(self, status: str, reason: str | None) -> list[Object]:
        now, events = self._now, []
        output = list(now.calls)
        if now.opened:
            place, text = self._place(), now.transcript
            item_status = "completed" if status == "completed" else "incomplete"
            if self._speaks:
                content, part = {"type": "output_audio", "transcript": text}, {"type": "audio", "transcript": text}
                events.append({"type": "response.output_audio.done", **place})
                events.append({"type": "response.output_audio_transcript.done", **place, "transcript": text})
            else:
                content, part = {"type": "output_text", "text": text}, {"type": "text", "text": text}
                events.append({"type": "response.output_text.done", **place, "text": text})
            item = message_item(now.item_id, "assistant", item_status, [content])
            output = [item, *now.calls]
            events += [
                {"type": "response.content_part.done", **place, "part": part},
                {"type": "response.output_item.done", "response_id": now.id, "output_index": 0, "item": item},
                {"type": "conversation.item.done", "previous_item_id": now.previous, "item": item},
            ]
        events.append({"type": "response.done", "response": self._object(status, reason, output)})
        self._now, self._elements_in = None, 0
        return events

    def _object(self, status: str, reason: str | None, output: list[Object]) -> Object:
        now = self._now
        usage = None
        if status != "in_progress":
            given, made = self._elements_in, now.elements_out
            usage = {
                "total_tokens": given + made,
                "input_tokens": given,
                "output_tokens": made,
                "input_token_details": {},
                "output_token_details": {"audio_tokens": now.sound_out, "text_tokens": made - now.sound_out},
            }
        details = None if status in ("in_progress", "completed") else {"type": status, "reason": reason}
        return {
            "object": "realtime.response",
            "id": now.id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": self._conversation,
            "output_modalities": now.session["output_modalities"],
            "max_output_tokens": now.session["max_output_tokens"],
            "audio": {"output": {name: now.session["audio"]["output"][name] for name in ("format", "voice")}},
            "usage": usage,
            "metadata": now.metadata,
        }
