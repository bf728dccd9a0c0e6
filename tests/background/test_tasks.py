"""The book of tasks: whatever is asked and whatever arrives, the model hears what is still of use and nothing else."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tml_jax.background.grammar import Action, Mark, Request
from tml_jax.background.tasks import (
    Limits,
    Result,
    Start,
    State,
    Stop,
    TaskBook,
    arrive,
    expire,
    release,
    request,
    told,
)

LIMITS = Limits(open=2, kept=4, seconds=2.0, result=60)  # ten micro-turns


def new(text: str = "rain", seconds: int | None = None) -> Request:
    return Request(Action.NEW, None, text, seconds)


def drain(book: TaskBook, now: int) -> tuple[TaskBook, list]:
    chunks = []
    while True:
        book, chunk = release(book, now)
        if chunk is None:
            return book, chunks
        chunks.append((chunk.number, chunk.mark, chunk.text))


def test_a_task_starts_its_words_come_whole_and_its_end_is_told():
    change = request(TaskBook(LIMITS), new(), 3)
    (start,) = change.orders
    assert isinstance(start, Start) and (start.task.number, start.task.revision, start.task.asked) == (1, 1, 3)
    book = arrive(change.book, Result(1, 1, "one two three four fi"), 4).book
    assert drain(book, 4)[1] == []  # too few for a tag of their own
    book = arrive(book, Result(1, 1, "ve six"), 5).book
    book, chunks = drain(book, 5)
    assert chunks == [(1, Mark.MORE, "one two three four five")]  # six may go on
    done = arrive(book, Result(1, 1, last=True), 6)
    assert done.events[0].what == State.DONE and done.orders == ()
    book, chunks = drain(done.book, 6)
    assert chunks == [(1, Mark.LAST, "six")]
    assert drain(book, 99)[1] == []


def test_nothing_is_told_sooner_than_the_model_expects_it():
    limits = Limits(open=1, soonest=1.0)  # five micro-turns
    book = arrive(request(TaskBook(limits), new(), 3).book, Result(1, 1, "seven", last=True), 4).book
    book = request(book, new("snow"), 4).book
    book = request(book, new("hail"), 5).book  # one too many
    assert drain(book, 7)[1] == []
    book, chunks = drain(book, 8)
    assert chunks == [(1, Mark.LAST, "seven")]
    assert drain(book, 9)[1] == [] and drain(book, 10)[1] == [(3, Mark.FAILED, "busy")]


def test_a_few_words_are_given_once_they_have_waited():
    book = arrive(request(TaskBook(LIMITS), new(), 0).book, Result(1, 1, "one two "), 1).book
    assert drain(book, 5)[1] == []
    assert drain(book, 6)[1] == [(1, Mark.MORE, "one two")]


def test_what_is_refined_starts_again_and_what_came_before_is_not_heard():
    book = request(TaskBook(LIMITS), new(), 0).book
    book = arrive(book, Result(1, 1, "old words that nobody wants any more"), 1).book
    change = request(book, Request(Action.REFINE, 1, "tomorrow"), 2)
    stop, start = change.orders
    assert stop == Stop(1, 1) and start.task.requests == ("rain", "tomorrow") and start.task.revision == 2
    assert start.task.deadline == 12
    book = arrive(change.book, Result(1, 1, "superseded", last=True), 3).book
    book = arrive(book, Result(1, 2, "new", last=True), 4).book
    assert drain(book, 4)[1] == [(1, Mark.LAST, "new")]


def test_what_is_done_can_be_refined():
    book = arrive(request(TaskBook(LIMITS), new(), 0).book, Result(1, 1, "dry", last=True), 1).book
    book = drain(book, 1)[0]
    change = request(book, Request(Action.REFINE, 1, "tomorrow"), 30)
    assert [type(order) for order in change.orders] == [Start]
    assert change.book.find(1).state == State.RUNNING


def test_what_is_cancelled_is_not_heard_even_where_it_had_come():
    book = arrive(request(TaskBook(LIMITS), new(), 0).book, Result(1, 1, "dry", last=True), 1).book
    change = request(book, Request(Action.CANCEL, 1), 2)
    assert change.orders == () and [event.what for event in change.events] == [State.CANCELLED]
    assert drain(change.book, 20)[1] == []
    running = request(request(TaskBook(LIMITS), new(), 0).book, new("two"), 0).book
    all_of_them = request(running, Request(Action.CANCEL), 1)
    assert all_of_them.orders == (Stop(1, 1), Stop(2, 1)) and drain(all_of_them.book, 20)[1] == []


def test_what_is_on_its_way_to_the_model_can_be_cancelled_until_it_is_told():
    book = arrive(request(TaskBook(LIMITS), new(), 0).book, Result(1, 1, "dry", last=True), 1).book
    book = drain(book, 1)[0]
    assert [event.what for event in request(book, Request(Action.CANCEL), 2).events] == [State.CANCELLED]
    assert request(told(book, 1), Request(Action.CANCEL), 2).events == ()
    assert told(TaskBook(LIMITS), 1) == TaskBook(LIMITS)


def test_a_deadline_ends_a_task_and_the_model_hears_that():
    book = request(request(TaskBook(LIMITS), new(seconds=1), 0).book, new(), 0).book
    assert expire(book, 4).events == ()
    change = expire(book, 5)
    assert change.orders == (Stop(1, 1),) and [event.what for event in change.events] == [State.EXPIRED]
    book = arrive(change.book, Result(1, 1, "too late", last=True), 6).book
    book, chunks = drain(book, 6)
    assert chunks == [(1, Mark.FAILED, "late")]
    late = arrive(book, Result(2, 1, "too late", last=True), 10)  # its deadline, although nobody has looked yet
    assert drain(late.book, 10)[1] == [(2, Mark.FAILED, "late")]


def test_too_many_at_once_an_unknown_number_and_a_failure_are_told():
    book = request(request(TaskBook(LIMITS), new(), 0).book, new(), 0).book
    busy = request(book, new("third"), 0)
    assert busy.orders == () and [event.what for event in busy.events] == ["asked", State.FAILED]
    assert busy.book.given == 3  # the model counts it, too
    book, chunks = drain(busy.book, 0)
    assert chunks == [(3, Mark.FAILED, "busy")]
    unknown = request(book, Request(Action.REFINE, 9, "x"), 0)
    assert [event.what for event in unknown.events] == ["refused"]
    assert drain(unknown.book, 0)[1] == [(9, Mark.FAILED, "unknown")]
    failed = arrive(book, Result(1, 1, "half of a sen"), 1).book
    failed = arrive(failed, Result(1, 1, failure="unavailable"), 1)
    assert failed.orders == () and drain(failed.book, 9)[1] == [(1, Mark.FAILED, "unavailable")]


def test_what_cannot_be_refined_stays_as_it_is_and_the_refusal_is_said_after_its_result():
    book = arrive(request(TaskBook(LIMITS), new(), 0).book, Result(1, 1, "dry", last=True), 1).book
    book = request(request(book, new(), 1).book, new(), 1).book
    refused = request(book, Request(Action.REFINE, 1, "tomorrow"), 2)
    assert [(event.what, event.reason) for event in refused.events] == [("refused", "busy")] and refused.orders == ()
    assert drain(refused.book, 2)[1] == [(1, Mark.LAST, "dry"), (1, Mark.FAILED, "busy")]


def test_a_result_without_end_is_cut_and_ended():
    book = request(TaskBook(LIMITS), new(), 0).book
    change = arrive(book, Result(1, 1, "word " * 1000), 1)
    assert change.orders == (Stop(1, 1),) and change.book.find(1).state == State.DONE
    ((_, mark, text),) = drain(change.book, 1)[1]
    assert mark == Mark.LAST and text.endswith("…") and len(text) <= LIMITS.result + 1


def test_what_is_no_character_is_not_passed_on():
    book = request(TaskBook(LIMITS), new(), 0).book
    book = arrive(book, Result(1, 1, "a\x00b\ud800c\u202e d", last=True), 1).book
    assert drain(book, 1)[1] == [(1, Mark.LAST, "a b?c d")]


def test_limits_that_are_none_are_refused():
    with pytest.raises(ValueError, match="soonest = -1"):
        Limits(soonest=-1)
    with pytest.raises(ValueError, match="open = 0"):
        Limits(open=0)
    with pytest.raises(ValueError, match="kept = 1"):
        Limits(open=2, kept=1)


class Book(RuleBasedStateMachine):
    """Any order of requests, results and time, beside a plain account of what may be heard."""

    def __init__(self):
        super().__init__()
        self.book, self.now = TaskBook(LIMITS), 0
        self.wanted = {}  # number → (revision, deadline) of what runs, by the orders alone
        self.owed = {}  # number → text that arrived in time and has not been given

    def follow(self, change):
        for order in change.orders:
            if isinstance(order, Start):
                self.wanted[order.task.number] = order.task.revision, order.task.deadline
                self.owed[order.task.number] = ""
            else:
                assert self.wanted.pop(order.number, (None,))[0] == order.revision
        for event in change.events:
            if event.what in (State.CANCELLED, State.EXPIRED, State.FAILED):
                self.wanted.pop(event.number, None)
                self.owed.pop(event.number, None)
            if event.what == State.DONE:
                self.wanted.pop(event.number, None)
        self.book = change.book

    @rule(text=st.sampled_from(["rain", "tea"]), seconds=st.one_of(st.none(), st.integers(1, 3)))
    def ask(self, text, seconds):
        before = self.book.given
        self.follow(request(self.book, new(text, seconds), self.now))
        assert self.book.given == before + 1

    @rule(number=st.integers(1, 8), cancel=st.booleans())
    def change(self, number, cancel):
        asked = Request(Action.CANCEL, number) if cancel else Request(Action.REFINE, number, "more")
        self.follow(request(self.book, asked, self.now))
        assert not cancel or number not in self.wanted

    @rule(
        number=st.integers(1, 8),
        revision=st.integers(1, 3),
        text=st.sampled_from(["", "a b ", "word", " c d e f g h "]),
        end=st.sampled_from(["", "last", "failure"]),
    )
    def come(self, number, revision, text, end):
        due = self.wanted.get(number)
        counts = due is not None and due[0] == revision and self.now < due[1] and end != "failure"
        result = Result(number, revision, text, end == "last", "broken" if end == "failure" else "")
        if counts:
            self.owed[number] += text
        self.follow(arrive(self.book, result, self.now))

    @rule(turns=st.integers(1, 8))
    def pass_time(self, turns):
        self.now += turns
        self.follow(expire(self.book, self.now))

    @rule()
    def give(self):
        self.book, chunk = release(self.book, self.now)
        if chunk is None or chunk.mark == Mark.FAILED:
            return
        owed = " ".join(self.owed[chunk.number].split())
        given = chunk.text.rstrip("…")
        assert owed.startswith(given), "given is what came, in order"
        self.owed[chunk.number] = owed[len(given) :]

    @invariant()
    def bounded(self):
        assert len(self.book.running) <= LIMITS.open
        assert len(self.book.tasks) <= LIMITS.kept and len(self.book.notices) <= LIMITS.kept
        assert {task.number for task in self.book.running} == set(self.wanted)
        assert all(len(task.pending) <= LIMITS.result + 1 for task in self.book.tasks)
        assert not any(task.pending for task in self.book.tasks if task.state not in (State.RUNNING, State.DONE))


TestBook = Book.TestCase
TestBook.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
