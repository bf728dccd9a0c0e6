"""One client of the OpenAI Realtime protocol: its events in, the model's input out, and the other way round.

Everything here happens at once, without waiting and without a socket. What the protocol has and this model has not is
said in the README ("Serving"): it decides by itself when to speak, and follows no instructions. Of tools it knows one:
the tasks that it hands over (`client_tasks`).
"""

import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tml_jax.config import INPUT_RATE, OUTPUT_RATE, Config
from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.serve.client_tasks import ClientCalls, output_text, task_tool
from tml_jax.serve.items import Items
from tml_jax.serve.pictures import image_frame
from tml_jax.serve.protocol import REALTIME, ClientEvent, ProtocolError
from tml_jax.serve.realtime_objects import checked_item, message_item, shown_parts
from tml_jax.serve.replies import Replies
from tml_jax.serve.scheduler import LiveSession
from tml_jax.serve.session_settings import Object, asked_response, new_session, updated_session
from tml_jax.serve.sound_formats import FORMATS, Decoder, Format, SoundError
from tml_jax.serve.speech import Endpointing, listen, without_pauses
from tml_jax.serve.windows import InputError
from tml_jax.serve.words import MicroTurn

LEAST_COMMIT = INPUT_RATE // 10  # samples
LONG_SOUND = 2**17  # characters of base64, about two seconds: more of it is decoded beside the loop
MAX_SECONDS = 60.0  # of sound in one event, as much as may wait to be heard
MAX_EDGES = 64  # beginnings and ends of speech in one event; where there are more, pauses are passed over


class Dialogue:
    """The state of the protocol on one connection."""

    known = REALTIME

    def __init__(
        self, live: LiveSession, model: str, config: Config, delayed: Callable[[float], None] = lambda seconds: None
    ) -> None:
        """At the start of a connection.

        Args:
          live: the model's input.
          model: name to show.
          config: of the model.
          delayed: told how many seconds after its micro-turn's input the model is heard, where the client says so.
        """
        self._live, self._config, self._delayed = live, config, delayed
        self.session = new_session(_new_id("sess"), model)
        self._items = Items()
        self._replies = Replies(_new_id)
        self._calls, self._tool = ClientCalls(_new_id), None
        self._answered, self._wanted = False, None  # a call since the last response; a response that is to follow
        self._heard, self._committed = 0, 0  # samples
        self._hear_as("audio/pcm")
        self._user_item = _new_id("item")

    def opening(self) -> list[Object]:
        """The first events."""
        return [{"type": "session.created", "session": self.session}]

    def is_long(self, event: ClientEvent) -> bool:
        """Whether an event takes so long to decode that others should not wait for it."""
        if event.decoded:
            return False
        if event.type == "conversation.item.create":
            content = event.fields["item"].get("content")
            kinds = (
                [part.get("type") for part in content if isinstance(part, dict)] if isinstance(content, list) else []
            )
            return "input_image" in kinds or "input_audio" in kinds
        return "audio" in self.known[event.type] and len(event.fields["audio"]) > LONG_SOUND

    def decoded(self, event: ClientEvent) -> ClientEvent:
        """An event with its sound and pictures as arrays. One that is long may run beside the loop, and may be
        abandoned there: nothing has changed before `client` is given what came of it.

        Raises:
          ProtocolError: what it holds is no sound, no picture or no item.
        """
        with self._named_errors(event):
            fields = self._decoded(event)
        return dataclasses.replace(event, fields=fields, decoded=True)

    def _decoded(self, event: ClientEvent) -> Object:
        fields = event.fields
        if event.type == "input_audio_buffer.append":
            check_length(FORMATS[self._format], fields["audio"])
            decoder = self._decoder.copy() if self.is_long(event) else self._decoder
            return fields | {"audio": decoder.decode(fields["audio"]), "decoder": decoder}
        if event.type != "conversation.item.create":
            return fields
        item = checked_item(fields["item"], fields["item"].get("id"))
        if item.get("role") == "user":
            sounds = [part["audio"] for part in item["content"] if part["type"] == "input_audio"]
            check_length(FORMATS[self._format], *sounds)
            item["content"] = [self._decoded_part(part) for part in item["content"]]
        return fields | {"item": item}

    def _decoded_part(self, part: Object) -> Object:
        if part["type"] == "input_image":
            return part | {"image_url": image_frame(part["image_url"], self._config)}
        if part["type"] == "input_audio":
            return part | {"audio": Decoder(FORMATS[self._format]).decode(part["audio"], last=True)}
        return part

    def client(self, event: ClientEvent, now: float) -> list[Object]:
        """Acts on an event of the client.

        Args:
          event: checked by `protocol.parse_event`, and perhaps `decoded`.
          now: seconds, of the scheduler's clock.

        Returns:
          Events to answer with, without their ids.

        Raises:
          ProtocolError: the event cannot be followed; nothing has changed.
        """
        event = event if event.decoded else self.decoded(event)
        with self._named_errors(event):
            return getattr(self, "_" + event.type.replace(".", "_"))(event.fields, now)

    def micro_turn(self, turn: MicroTurn) -> list[Object]:
        """Events of what the model put out."""
        self._note_unheard(turn)
        events = self._replies.micro_turn(turn, self.session, self._speech.speaking, self._items.last)
        events = [self._kept(event) for event in events]
        for event in turn.tasks:
            self._calls.follow(event)
            if self._tool is not None and event.what in ("asked", "refined"):
                item = self._calls.call(event, self._tool)
                events += [self._kept(made) for made in self._replies.call(item, self.session, self._items.last)]
        if self._wanted is not None and self._replies.active is None:
            session, metadata = self._wanted
            self._wanted = None
            events += self._replies.begin(session, asked=True, metadata=metadata)
        return events

    @contextlib.contextmanager
    def _named_errors(self, event: ClientEvent) -> Iterator[None]:
        """Makes of what is wrong with an event an error that names it, and a call that goes on waiting."""
        try:
            yield
        except (SoundError, InputError) as error:
            message = str(error) + self._calls.still_open(event.fields.get("item"))
            raise ProtocolError("invalid_input", message, None, event.event_id) from error
        except ProtocolError as error:
            error.event_id = event.event_id
            error.message += self._calls.still_open(event.fields.get("item"))
            raise

    def _note_unheard(self, turn: MicroTurn) -> None:
        """What the client has muted, or goes on of an item that it has truncated, is not heard."""
        item = self._items.get(self._replies.item)
        if turn.gate == "SPEAK" and (self._replies.muted or (item is not None and item["content"])):
            self._live.played(turn.index, 0)

    def _kept(self, event: Object) -> Object:
        """Keeps the model's own items, as its client left them: it may truncate or delete one that still goes on."""
        if event["type"] == "conversation.item.done":
            left = self._items.get(event["item"]["id"])
            if left is None:
                return event
            if left.get("content"):
                event = event | {"item": event["item"] | {"content": left["content"]}}
        if event["type"] in ("conversation.item.added", "conversation.item.done"):
            self._items.put(event["item"])
        return event

    def _hear_as(self, kind: str) -> None:
        self._decoder = Decoder(FORMATS[kind])
        self._format, self._speech = kind, self._endpointing()

    def _endpointing(self) -> Endpointing:
        vad = self.session["audio"]["input"]["turn_detection"] or {}
        hangover = max(1, vad.get("silence_duration_ms", 500) // 20)
        return Endpointing(hangover=hangover, frames=self._heard // (INPUT_RATE // 50))

    def _add(self, item: Object, previous: str | None) -> list[Object]:
        if item["type"] == "message":
            item = {**item, "content": shown_parts(item["content"])}
        added = {"previous_item_id": previous, "item": item}
        self._items.insert(item, previous)
        return [{"type": "conversation.item.added", **added}, {"type": "conversation.item.done", **added}]

    def _item(self, fields: Object) -> Object:
        item = self._items.get(fields["item_id"])
        if item is None:
            code = f"item_{fields['type'].rpartition('.')[2]}_invalid_item_id"
            raise ProtocolError(code, f"no item {fields['item_id'][:100]!r} in the conversation", "item_id")
        return item

    def _session_update(self, fields: Object, now: float) -> list[Object]:
        before = self.session["audio"]["input"]["turn_detection"]
        self.session = updated_session(self.session, fields["session"])
        self._tool = task_tool(self.session)
        self._live.tasks_by_client(self._tool is not None)
        kind = self.session["audio"]["input"]["format"]["type"]
        if kind != self._format:
            self._hear_as(kind)
        elif self.session["audio"]["input"]["turn_detection"] != before:
            self._speech = self._endpointing()
        return [{"type": "session.updated", "session": self.session}]

    def _input_audio_buffer_append(self, fields: Object, now: float) -> list[Object]:
        self._decoder = fields["decoder"]
        return self._hear(fields["audio"], now)

    def _hear(self, samples: np.ndarray, now: float, lost: int = 0) -> list[Object]:
        events = self._fit(self._live.hear(samples, now, lost=lost), "audio")
        self._heard += len(samples)
        if self.session["audio"]["input"]["turn_detection"] is not None:
            before = self._speech
            self._speech, edges = listen(before, samples)
            for edge in edges if len(edges) <= MAX_EDGES else without_pauses(before, edges):
                events += self._edge(edge.speaking, edge.milliseconds)
        return events

    def _fit(self, beyond: int, param: str) -> list[Object]:
        """Says how many samples were too far ahead, if any were."""
        if not beyond:
            return []
        message = f"{beyond / INPUT_RATE:.1f} s of audio are too far ahead of what is heard and were dropped"
        return [ProtocolError("input_audio_buffer_full", f"{message}: send it as it is spoken", param).event()]

    def _edge(self, speaking: bool, milliseconds: int) -> list[Object]:
        if speaking:
            started = {"audio_start_ms": milliseconds, "item_id": self._user_item}
            return [{"type": "input_audio_buffer.speech_started", **started}]
        stopped = {"audio_end_ms": milliseconds, "item_id": self._user_item}
        return [{"type": "input_audio_buffer.speech_stopped", **stopped}, *self._commit()]

    def _commit(self) -> list[Object]:
        item_id, self._user_item, self._committed = self._user_item, _new_id("item"), self._heard
        committed = {"type": "input_audio_buffer.committed", "previous_item_id": self._items.last, "item_id": item_id}
        content = [{"type": "input_audio"}]
        return [committed, *self._add(message_item(item_id, "user", "completed", content), self._items.last)]

    def _input_audio_buffer_commit(self, fields: Object, now: float) -> list[Object]:
        waiting = self._heard - self._committed
        if waiting < LEAST_COMMIT:
            message = f"{1000 * waiting // INPUT_RATE} ms of audio since the last commit: expected at least 100 ms"
            raise ProtocolError("input_audio_buffer_commit_empty", message)
        return self._commit()

    def _input_audio_buffer_clear(self, fields: Object, now: float) -> list[Object]:
        self._live.clear()
        self._committed = self._heard
        self._hear_as(self._format)
        return [{"type": "input_audio_buffer.cleared"}]

    def _conversation_item_create(self, fields: Object, now: float) -> list[Object]:
        item_id = fields["item"].get("id") or _new_id("item")
        if not isinstance(item_id, str) or len(item_id) > 100:
            message = f"item.id = {repr(item_id)[:100]}: expected a string of up to 100 characters"
            raise ProtocolError("invalid_value", message, "item.id")
        if item_id in self._items:
            raise ProtocolError("item_create_duplicate_item_id", f"there is an item {item_id!r} already", "item.id")
        previous = self._previous(fields.get("previous_item_id"))
        item = fields["item"] | {"id": item_id}
        left_out = []
        if item["type"] == "function_call_output":
            self._answer(item, now)
        elif item["role"] == "user":
            left_out = self._show(item["content"], now)
        return self._add(item, previous) + left_out

    def _answer(self, item: Object, now: float) -> None:
        """Gives the output of a call to the model, as the result of its task.

        One that nobody waits for any longer is not read. Where the session has made no call it can be of none, and
        is read as it stands.
        """
        call_id, text = item["call_id"], output_text(item["output"])
        if not self._calls.made:
            self._live.read(Text(BACKGROUND, text, 0.0), now)
        elif (task := self._calls.task(call_id)) is not None:
            self._live.answer(*task, text, now)
            self._calls.end(call_id)  # now, as what is refused is not its answer
        self._answered = True

    def _previous(self, given: Any) -> str | None:
        """The item that a new one comes after, None where it is the first. The model hears it last in any case."""
        if given is None:
            return self._items.last
        if given == "root":
            return None
        if not isinstance(given, str) or given not in self._items:
            message = f"previous_item_id = {repr(given)[:100]}: expected an item of the conversation, or 'root'"
            raise ProtocolError("item_create_invalid_previous_item_id", message, "previous_item_id")
        return given

    def _show(self, content: list[Object], now: float) -> list[Object]:
        """Gives the parts of a user's message to the model; returns what is to be said of those that do not fit."""
        text = " ".join(part["text"] for part in content if part["type"] == "input_text")
        if text.strip():
            self._live.read(Text(USER, text, 0.0), now)
        events = []
        for part in content:
            if part["type"] == "input_image":
                self._live.see(part["image_url"], now)
            elif part["type"] == "input_audio":
                events += self._fit(self._live.hear(part["audio"], now), "item.content")
        return events

    def _conversation_item_truncate(self, fields: Object, now: float) -> list[Object]:
        item = self._item(fields)
        spoken = self._replies.spoken(item["id"])
        if spoken is None or fields["content_index"] != 0:
            raise ProtocolError("invalid_value", "only sound of the model can be truncated", "item_id")
        length = 1000 * spoken // OUTPUT_RATE
        if not 0 <= fields["audio_end_ms"] <= length:
            message = f"audio_end_ms = {fields['audio_end_ms']}: expected 0 to {length}, the length of the item"
            raise ProtocolError("invalid_value", message, "audio_end_ms")
        heard = self._replies.heard(item["id"], fields["audio_end_ms"] * OUTPUT_RATE // 1000)
        for index, samples in heard.cut:
            self._live.played(index, samples)
        self._items.put({**item, "content": [{"type": "output_audio", "transcript": heard.words}]})
        names = ("item_id", "content_index", "audio_end_ms")
        return [{"type": "conversation.item.truncated", **{name: fields[name] for name in names}}]

    def _conversation_item_delete(self, fields: Object, now: float) -> list[Object]:
        self._items.remove(self._item(fields)["id"])
        return [{"type": "conversation.item.deleted", "item_id": fields["item_id"]}]

    def _conversation_item_retrieve(self, fields: Object, now: float) -> list[Object]:
        return [{"type": "conversation.item.retrieved", "item": self._item(fields)}]

    def _response_create(self, fields: Object, now: float) -> list[Object]:
        session, metadata = asked_response(fields.get("response"), self.session)
        answered, self._answered = self._answered, False
        if self._replies.active is not None and not answered:
            message = "there is a response already: wait for its response.done, or cancel it"
            raise ProtocolError("conversation_already_has_active_response", message)
        self._live.begin(now)
        if self._replies.active is not None:  # the model went on talking while the client did its task
            self._wanted = session, metadata
            return []
        return self._replies.begin(session, asked=True, metadata=metadata)

    def _response_cancel(self, fields: Object, now: float) -> list[Object]:
        if self._replies.active is None or fields.get("response_id") not in (None, self._replies.active):
            # LiveKit takes errors for harmless that begin so.
            message = "Cancellation failed: no such response is active"
            raise ProtocolError("response_cancel_not_active", message)
        return [self._kept(event) for event in self._replies.cancel()]


def check_length(form: Format, *sounds: str) -> None:
    """Nothing, where the sounds of one event, base64, are together not too long.

    Raises:
      ProtocolError: they are.
    """
    seconds = form.seconds(sum(map(len, sounds)))
    if seconds > MAX_SECONDS:
        message = f"{seconds:.1f} s of sound in one event: expected at most {MAX_SECONDS:g}; send it as it is spoken"
        raise ProtocolError("event_too_large", message, "audio")


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(10)}"
