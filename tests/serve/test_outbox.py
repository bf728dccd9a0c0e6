"""Whoever comes back to a session gets each event once and in order, wherever the connection was cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tml_jax.serve.outbox import Event, LostError, Outbox


def events(first: int, count: int) -> tuple[Event, ...]:
    return tuple(Event(f"id{n}", f"frame {n:04d}", n) for n in range(first, first + count))


SIZE = len("frame 0000")
# How many events come, how many of them are sent, and how many of those arrive before the connection is cut.
STEPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 6)), max_size=30)


@given(STEPS)
def test_cut_anywhere_the_client_has_every_event_once_and_in_order(steps):
    outbox, made = Outbox(room=10_000), 1
    outbox.put(events(0, 1))
    has = [outbox.send()]
    for come, sent, arrive in steps:
        outbox.put(events(made, come))
        made += come
        on_the_way = [frame for frame in (outbox.send() for _ in range(sent)) if frame]
        has += on_the_way[:arrive]
        outbox.put(events(made, 1), away=True)
        made += 1
        outbox.rewind(f"id{len(has) - 1}")
    while (frame := outbox.send()) is not None:
        has.append(frame)
    assert has == [event.frame for event in events(0, made)]
    assert outbox.size == sum(len(event.frame) for event in outbox.events) and outbox.unsent_size == 0


def test_what_is_still_to_be_sent_is_kept_beside_what_was_and_forgotten_only_while_nobody_is_there():
    outbox = Outbox(room=3 * SIZE)
    outbox.put(events(0, 10))
    assert len(outbox.events) == 10
    for _ in range(8):
        outbox.send()
    assert [event.id for event in outbox.events] == ["id7", "id8", "id9"]
    assert outbox.send() == "frame 0008"
    outbox.put(events(10, 2), away=True)
    assert (outbox.size, outbox.unsent, outbox.unsent_size) == (3 * SIZE, 3, 3 * SIZE)
    assert outbox.send() == "frame 0009"
    outbox.rewind("id8")  # the one before the first that is kept will do
    assert outbox.send() == "frame 0009"
    with pytest.raises(LostError, match="id7"):
        outbox.rewind("id7")


def test_without_room_nothing_is_kept_that_was_sent():
    outbox = Outbox()
    outbox.put(events(0, 2))
    assert outbox.send() == "frame 0000" and [event.id for event in outbox.events] == ["id1"]


def test_to_send_one_costs_no_copy_of_those_that_wait():
    """Counted by how often an event is touched, which is what made a long line cost its square."""
    touched = []

    class Frame(str):
        def __len__(self):
            touched.append(self)
            return super().__len__()

    outbox = Outbox(room=50)
    outbox.put(Event(f"id{n}", Frame("frame"), n) for n in range(1000))
    touched.clear()
    waiting = outbox._waiting
    for _ in range(1000):
        outbox.send()
    assert outbox._waiting is waiting and len(touched) <= 3000
