"""Whoever comes back to a session gets each event once and in order, wherever the connection was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tml_jax.serve.outbox import Event, LostError, Outbox, put, rewind, send


def events(first: int, count: int) -> tuple[Event, ...]:
    return tuple(Event(f"id{n}", f"frame {n:04d}", n) for n in range(first, first + count))


SIZE = len("frame 0000")
# How many events come, how many of them are sent, and how many of those arrive before the connection is cut.
STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 6)), max_size=30)


@given(STEPS)
def test_cut_anywhere_the_client_has_every_event_once_and_in_order(steps):
    outbox, made, has = put(Outbox(room=10_000), events(0, 1)), 1, []
    outbox, frame = send(outbox)
    has.append(frame)
    for come, sent, arrive in steps:
        outbox, made = put(outbox, events(made, come)), made + come
        on_the_way = []
        for _ in range(sent):
            outbox, frame = send(outbox)
            on_the_way += [frame] if frame else []
        has += on_the_way[:arrive]
        outbox = put(outbox, events(made, 1), away=True)
        made += 1
        outbox = rewind(outbox, f"id{len(has) - 1}")
    while True:
        outbox, frame = send(outbox)
        if frame is None:
            break
        has.append(frame)
    assert has == [event.frame for event in events(0, made)]
    assert outbox.size == sum(len(event.frame) for event in outbox.events) and outbox.unsent_size == 0


def test_what_is_still_to_be_sent_is_kept_beside_what_was_and_forgotten_only_while_nobody_is_there():
    outbox = put(Outbox(room=3 * SIZE), events(0, 10))
    assert len(outbox.events) == 10
    for _ in range(8):
        outbox, _ = send(outbox)
    assert [event.id for event in outbox.events] == ["id7", "id8", "id9"]
    assert send(outbox)[1] == "frame 0008"
    outbox = put(outbox, events(10, 2), away=True)
    assert (outbox.size, outbox.unsent, outbox.unsent_size) == (3 * SIZE, 3, 3 * SIZE)
    assert send(outbox)[1] == "frame 0009"
    assert send(rewind(outbox, "id8"))[1] == "frame 0009"  # the one before the first that is kept will do
    with pytest.raises(LostError, match="id7"):
        rewind(outbox, "id7")


def test_without_room_nothing_is_kept_that_was_sent():
    outbox, frame = send(put(Outbox(), events(0, 2)))
    assert frame == "frame 0000" and [event.id for event in outbox.events] == ["id1"]
