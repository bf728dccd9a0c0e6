"""What the model writes and reads: every text means something or nothing, and never breaks anything."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tml_jax.background.grammar import (
    Action,
    MalformedError,
    Mark,
    Request,
    parse_request,
    parse_result,
    request_text,
    result_text,
)

MARKS = st.sampled_from(["#1", "#27", "#0", "#12345", "@5", "@0", "stop", "Stop.", "rain", "#2nd", "\n"])
SPANS = st.one_of(st.text(), st.lists(st.one_of(MARKS, st.text(max_size=5))).map(" ".join))


@pytest.mark.parametrize(
    ("span", "request_"),
    [
        (" weather in paris", Request(Action.NEW, None, "weather in paris")),
        ("@5 weather", Request(Action.NEW, None, "weather", 5)),
        (" #2 tomorrow instead", Request(Action.REFINE, 2, "tomorrow instead")),
        ("#2 @5 tomorrow", Request(Action.REFINE, 2, "tomorrow", 5)),
        ("@5 #2 tomorrow", Request(Action.REFINE, 2, "tomorrow", 5)),
        ("#2 stop", Request(Action.CANCEL, 2)),
        ("#2 Stop.", Request(Action.CANCEL, 2)),
        (" stop", Request(Action.CANCEL)),
        ("stop the music", Request(Action.NEW, None, "stop the music")),
        ("#2nd street", Request(Action.NEW, None, "#2nd street")),
        ("#0 x", Request(Action.NEW, None, "#0 x")),
        ("#2 #3 x", Request(Action.REFINE, 2, "#3 x")),
        ("a \n\t b", Request(Action.NEW, None, "a b")),
    ],
)
def test_a_span_asks_for(span, request_):
    assert parse_request(span) == request_


@pytest.mark.parametrize("span", ["", "  \n", "#2", "#2 ", "@5", "@5 #2 "])
def test_a_span_that_asks_for_nothing_says_so(span):
    with pytest.raises(MalformedError, match="empty"):
        parse_request(span)


@given(SPANS)
@example("#1 #1 stop")
@example("@1 @1 x")
def test_any_text_is_a_request_that_is_written_as_it_is_read_or_malformed(span):
    try:
        request = parse_request(span)
    except MalformedError:
        return
    assert parse_request(request_text(request)) == request
    assert (request.action == Action.CANCEL) == (request.text == "")
    assert request.action != Action.NEW or request.number is None


@given(st.integers(1, 9999), st.sampled_from(Mark), st.text())
def test_a_result_is_read_as_it_is_written(number, mark, text):
    text = " ".join(text.split())
    assert parse_result(result_text(number, mark, text)) == (number, mark, text)


@given(st.text())
def test_any_other_text_is_no_result(text):
    try:
        number, mark, said = parse_result(text)
    except MalformedError:
        return
    assert result_text(number, mark, said).split() == text.split()
