"""The items of a conversation, and what else clients that people use read of it. `test_clients.py` runs them."""

import pytest
from dialogue_client import Client, kinds, loud, quiet

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
