"""The line before a full server: first come first, and nobody stands in his own way."""

from tml_jax.serve.admission import Line, Refusal, ask


def in_line(*tickets: str, **options) -> Line:
    """Everybody asked twice, in this order."""
    line = Line(**options)
    for time in (0.0, 1.0):
        for ticket in tickets:
            line, _ = ask(line, ticket, 0, time)
    return line


def test_who_is_refused_learns_the_position_and_comes_in_by_order():
    line = in_line("a", "b")
    line, refusal = ask(line, "b", 1, 2.0)  # the one place is for the first
    assert refusal == Refusal("b", 2)
    line, refusal = ask(line, "new", 1, 2.5)
    assert refusal == Refusal("new", 3)
    line, refusal = ask(line, "a", 1, 3.0)
    assert refusal is None and [waiting.ticket for waiting in line.waiting] == ["b", "new"]
    assert ask(line, "b", 1, 3.0)[1] is None


def test_with_enough_places_nobody_waits():
    assert ask(Line(), "a", 1, 0.0) == (Line(), None)
    assert ask(in_line("a"), "b", 2, 1.0)[1] is None  # the other place is still there for the first


def test_who_knows_no_tickets_does_not_stand_in_his_own_way():
    line = Line()
    for attempt in range(5):
        line, refusal = ask(line, f"new {attempt}", 0, float(attempt))
        assert refusal.position == 1
    assert ask(line, "new 5", 1, 6.0)[1] is None


def test_who_asked_first_comes_first_even_if_others_come_back_sooner():
    line = Line()
    for ticket, time in (("a", 0.0), ("b", 1.0), ("b", 2.0)):
        line, refusal = ask(line, ticket, 0, time)
    assert refusal.position == 1  # the first has not come back yet
    line, refusal = ask(line, "a", 0, 3.0)
    assert refusal.position == 1
    assert ask(line, "b", 1, 4.0)[1] == Refusal("b", 2)


def test_who_stays_away_loses_the_place():
    line = in_line("a", patience=10.0)
    line, _ = ask(line, "b", 0, 5.0)
    line, refusal = ask(line, "b", 1, 12.0)
    assert refusal is None and line.waiting == ()


def test_one_owner_gets_no_more_than_its_tickets_and_keeps_them():
    line = Line(most_of_one=2)
    for ticket in ("a", "b", "c"):
        line, refusal = ask(line, ticket, 0, 0.0, owner="me")
    assert refusal.ticket == "" and [waiting.ticket for waiting in line.waiting] == ["a", "b"]
    assert ask(line, "d", 0, 1.0, owner="you")[1].ticket == "d"
    line, refusal = ask(line, "b", 0, 1.0, owner="me")
    assert refusal.ticket == "b"
    assert ask(line, "c", 0, 31.5, owner="me")[1].ticket == "c"  # the others have stayed away


def test_there_are_not_endless_tickets():
    line = in_line("a", longest=1)
    assert ask(line, "b", 0, 2.0) == (line, Refusal("", 2))
