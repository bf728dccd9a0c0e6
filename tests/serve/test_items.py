"""The items of a conversation, and what else clients that people use read of it. `test_clients.py` runs them."""

import pytest
from dialogue_client import Client, kinds, loud, quiet

from tml_jax.serve import items as items_module
from tml_jax.serve import replies as replies_module
from tml_jax.serve.items import Items, characters
from tml_jax.serve.protocol import ProtocolError


@pytest.fixture
def client():
    return Client()


def test_items_are_kept_truncated_and_deleted(client):
    words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "red"}], "id": "mine_1"}
    client.send("conversation.item.create", item=words)
    assert client.refused("conversation.item.create", item=words) == "item_create_duplicate_item_id"
    client.turn(True, " blue")
    item = client.turn(False)[-1]["response"]["output"][0]["id"]
    assert client.refused("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=401)
    assert client.refused("conversation.item.truncate", item_id="mine_1", content_index=0, audio_end_ms=0)
    cut = client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=400)
    assert cut[0]["audio_end_ms"] == 400
    (found,) = client.send("conversation.item.retrieve", item_id="mine_1")
    assert found["item"]["content"][0]["text"] == "red"
    client.send("conversation.item.delete", item_id="mine_1")
    assert client.refused("conversation.item.retrieve", item_id="mine_1") == "item_retrieve_invalid_item_id"


def test_clients_truncate_and_delete_what_the_model_is_still_saying(client):
    opened = client.turn(True, " blue")
    item = opened[1]["item"]["id"]
    client.turn(True, " sky")
    assert client.refused("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=401)
    client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=300)
    ended = client.turn(False)
    assert ended[-1]["response"]["output"][0]["content"][0]["transcript"] == "blue sky"
    (kept,) = client.send("conversation.item.retrieve", item_id=item)
    assert kept["item"] == ended[-2]["item"] and kept["item"]["status"] == "completed"
    assert kept["item"]["content"] == [{"type": "output_audio", "transcript": "blue sky"}]
    other = client.turn(True, " red")[1]["item"]["id"]
    client.send("conversation.item.delete", item_id=other)
    assert kinds(client.turn(False))[-1] == "done"
    assert client.refused("conversation.item.retrieve", item_id=other) == "item_retrieve_invalid_item_id"


def test_an_item_is_put_where_its_client_wants_it(client):
    def create(item_id: str, **place) -> str | None:
        item = {"type": "message", "role": "user", "id": item_id, "content": [{"type": "input_text", "text": "a"}]}
        return client.send("conversation.item.create", item=item, **place)[0]["previous_item_id"]

    assert (create("b"), create("d"), create("a", previous_item_id="root")) == (None, "b", None)
    assert create("c", previous_item_id="b") == "b"
    assert list(client.dialogue._items) == ["a", "b", "c", "d"]
    item = {"type": "message", "role": "user", "content": []}
    unknown = {"item": item, "previous_item_id": "x"}
    assert client.refused("conversation.item.create", **unknown) == "item_create_invalid_previous_item_id"
    assert len(client.live.texts) == 4  # heard in the order in which they came


def test_what_clients_read_of_sound_errors_and_turn_detection_is_there(client):
    client.send("input_audio_buffer.append", audio=loud(0.5))
    added = client.send("input_audio_buffer.append", audio=quiet(1.0))[2]
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]  # or @openai/agents ends
    with pytest.raises(ProtocolError, match="^Cancellation failed"):  # which LiveKit passes over
        client.send("response.cancel")
    client.turn(True, " one")
    assert client.refused("response.cancel", response_id="resp_other") == "response_cancel_not_active"
    for before, vad in (({}, {"type": "semantic_vad"}), (None, {"type": "server_vad"})):
        for given_ in (before, vad):
            changes = {"audio": {"input": {"turn_detection": given_}}}
            (updated,) = client.send("session.update", session=changes)
        shown = updated["session"]["audio"]["input"]["turn_detection"]
        assert shown["type"] == vad["type"] and shown["interrupt_response"] is True
        assert ("threshold" in shown) == (vad["type"] == "server_vad")


def test_what_was_heard_of_a_reply_is_its_transcript_and_told_to_the_background(client):
    """Micro-turns of 200 ms; the fourth says nothing new, and a later one goes on after the client has cut it off."""
    item = client.turn(True, " one")[1]["item"]["id"]
    for words in (" two", " three", ""):
        client.turn(True, words)
    client.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=310)
    assert client.live.unheard == [(1, 2640), (2, 0), (3, 0)]
    (kept,) = client.send("conversation.item.retrieve", item_id=item)
    assert kept["item"]["content"] == [{"type": "output_audio", "transcript": "one two"}]
    client.turn(True, " four")
    assert client.live.unheard[3:] == [(4, 0)]
    client.turn(False)
    client.turn(True, " five")
    client.send("response.cancel")
    client.turn(True, " six")  # muted
    client.turn(False)
    client.turn(True, " seven")
    assert client.live.unheard[4:] == [(7, 0)]


def test_a_reply_that_can_be_truncated_still_has_all_its_words(client, monkeypatch):
    monkeypatch.setattr(replies_module, "LONGEST", 7)
    items = []
    for _ in range(3):
        items.append(client.turn(True, " one")[1]["item"]["id"])
        client.turn(True, " two")
        client.turn(False)
    truncated = {"content_index": 0, "audio_end_ms": 400}
    assert client.refused("conversation.item.truncate", item_id=items[0], **truncated) == "invalid_value"
    client.send("conversation.item.truncate", item_id=items[1], **truncated)
    (kept,) = client.send("conversation.item.retrieve", item_id=items[1])
    assert kept["item"]["content"] == [{"type": "output_audio", "transcript": "one two"}]


def test_an_hour_of_replies_and_items_takes_no_more_room_than_minutes(monkeypatch):
    """With small bounds, so that an hour's worth is soon said: what a session keeps does not grow beyond them."""
    for module, name, most in (
        (replies_module, "REMEMBERED", 10),
        (replies_module, "LONGEST", 50),
        (items_module, "MAX_ITEMS", 20),
    ):
        monkeypatch.setattr(module, name, most)
    client, speaks, falls_silent = Client(), loud(0.3), quiet(1.0)

    def lengths() -> tuple[int, ...]:
        replies = client.dialogue._replies
        return len(client.dialogue._items), len(replies._said), replies._turns_said, len(client.dialogue._calls._open)

    def talk(replies: int) -> None:
        for number in range(replies):
            client.send("input_audio_buffer.append", audio=speaks)
            for _ in range(3):
                client.turn(True, f" word{number}")
            client.turn(False)
            client.send("input_audio_buffer.append", audio=falls_silent)

    talk(20)
    after_minutes = lengths()
    assert after_minutes == (20, 10, 40, 0)
    talk(60)
    assert lengths() == after_minutes


def test_items_are_bounded_by_their_text_too_and_counted_right(monkeypatch):
    monkeypatch.setattr(items_module, "MAX_CHARACTERS", 1000)
    items = Items()
    for number in range(100):
        items.put({"id": str(number), "content": [{"text": "x" * (number % 7) * 10}]})
        items.put({"id": str(number), "content": [{"text": "x" * (number % 5) * 10}]})
        if number % 3 == 0:
            items.insert({"id": f"first {number}", "content": []}, None)
        if number % 4 == 0:
            items.remove(str(number))
        assert items.characters == sum(characters(items.get(item)) for item in items) <= 1000
    assert 10 < len(items) < 100 and items.last == "99"


def test_a_response_that_never_ends_is_cut_into_responses(client, monkeypatch):
    monkeypatch.setattr(replies_module, "LONGEST", 5)
    events = [event for turn in range(12) for event in client.turn(True, f" {turn}")]
    ended = [event["response"] for event in events if event["type"] == "response.done"]
    assert [response["status"] for response in ended] == ["incomplete"] * 2
    assert ended[0]["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    said = [response["output"][0]["content"][0]["transcript"] for response in ended]
    assert said[0].split() + said[1].split() == [str(turn) for turn in range(len(said[0].split()) * 2)]
