from tml_jax.serve.admission import Line, Refusal, ask


def test_who_is_refused_learns_the_position_and_comes_in_by_order():
    line, refusal = ask(Line(), "a", 0, 0.0)
    assert refusal == Refusal("a", 1)
    line, refusal = ask(line, "b", 0, 1.0)
    assert refusal == Refusal("b", 2)
    line, refusal = ask(line, "b", 1, 2.0)  # the one place is for the first
    assert refusal == Refusal("b", 2)
    line, refusal = ask(line, "new", 1, 2.5)
    assert refusal == Refusal("new", 3)
    line, refusal = ask(line, "a", 1, 3.0)
    assert refusal is None and [ticket for ticket, _ in line.waiting] == ["b", "new"]
    assert ask(line, "b", 1, 3.0)[1] is None


def test_with_enough_places_nobody_waits():
    assert ask(Line(), "a", 1, 0.0) == (Line(), None)
    line, _ = ask(Line(), "a", 0, 0.0)
    assert ask(line, "b", 2, 1.0)[1] is None  # the other place is still there for the first


def test_who_stays_away_loses_the_place():
    line, _ = ask(Line(patience=10.0), "a", 0, 0.0)
    line, _ = ask(line, "b", 0, 5.0)
    line, refusal = ask(line, "b", 1, 12.0)
    assert refusal is None and line.waiting == ()


def test_the_line_itself_has_an_end():
    line, _ = ask(Line(longest=1), "a", 0, 0.0)
    assert ask(line, "b", 0, 1.0) == (Line((("a", 0.0),), longest=1), Refusal("", 2))
