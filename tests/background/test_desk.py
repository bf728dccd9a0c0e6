"""A session and its tasks: what the model writes becomes work, what comes back is read, and no tick ever waits."""

import threading
import time

import numpy as np
import pytest
from backends import Scripted
from hypothesis import given, settings
from hypothesis import strategies as st
from small import small_config
from synthetic import tokenizer

from tml_jax.background.desk import Background, DeskOptions
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner, RunnerOptions
from tml_jax.background.tasks import Limits
from tml_jax.data.record import USER, Text
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn, Span

CONFIG = small_config(max_text_in=16)


def turn(*tasks: str, text: str = "", problem: str = "") -> MicroTurn:
    silence = np.zeros(4800, np.float32)
    spans = tuple(Span(task, problem) for task in tasks)
    return MicroTurn(0, 0.0, "LISTEN", text, "", np.zeros((20, 80)), silence, 0.0, spans=spans)


class Session:
    """A desk, micro-turn by micro-turn, and all that its model reads."""

    def __init__(self, backend, start: bool = True, limits: Limits | None = None, orders: int = 256) -> None:
        self.runner, self.seen = Runner(backend, RunnerOptions(backoff=0.01, orders=orders)), []
        if start:
            self.runner.start()
        options = DeskOptions(limits or Limits())
        self.background = Background(self.runner, tokenizer(), CONFIG, options, self.seen.append)
        self.desk, self.events, self.tokens = self.background.open(), [], []

    def step(self, *tasks: str, texts=(), **said) -> None:
        self.tokens += self.desk.take_in(Arrived(None, texts=texts)).results
        self.events += self.desk.put_out(turn(*tasks, **said)).tasks

    def until(self, what: str, number: int = 1) -> None:
        """Micro-turns until something has happened to a task; as fast as the other thread allows."""
        end = time.monotonic() + 20
        while (what, number) not in [(event.what, event.number) for event in self.events]:
            assert time.monotonic() < end, self.events
            self.step()
            time.sleep(0.005)

    @property
    def read(self) -> list[str]:
        """What the model has read: runs after the token of the source."""
        source, runs = CONFIG.model.text_vocab_size + 4, []
        for token in self.tokens:
            if token == source:
                runs.append([])
            else:
                runs[-1].append(token)
        return [tokenizer().decode(run).strip() for run in runs]

    def finish(self) -> None:
        for _ in range(40):
            self.step()
        self.runner.stop()


def test_a_task_is_done_while_the_model_goes_on_and_its_result_is_read():
    session = Session(LocalBackend(LocalTools()))
    session.step()
    session.step("6 times 7", text=" let me see")
    session.until("done")
    session.finish()
    assert session.read == ["#1. 42"]
    assert [(event.what, event.number) for event in session.events] == [("asked", 1), ("running", 1), ("done", 1)]
    assert session.events[0].micro_turn == 1 and session.seen == session.events


def test_several_at_once_refined_cancelled_and_failing():
    backend = Scripted(rain=[["yes ", 1000.0]], sun=[["no"]], tomorrow=[["dry tomorrow"]], tea=[[1000.0]])
    session = Session(backend)
    session.step("rain", "sun")
    session.step("#1 tomorrow", "tea", "#9 x")
    session.step("#3 stop")
    session.until("done", 1)
    session.until("done", 2)
    session.finish()
    assert sorted(session.read) == ["#1. dry tomorrow", "#2. no", "#9! unknown"]
    happened = [(event.what, event.number) for event in session.events]
    assert happened[:2] == [("asked", 1), ("asked", 2)] and ("refined", 1) in happened
    assert ("cancelled", 3) in happened and ("refused", 9) in happened
    assert sorted(backend.ended) == sorted(backend.begun)


LONG = " ".join(["the red box is here"] * 8)


@pytest.mark.parametrize("written", ["#1 stop", "stop", "#1 rain"])
def test_a_result_that_is_still_going_in_goes_no_further_once_it_is_cancelled_or_refined(written):
    session = Session(Scripted(tell=[[LONG]], rain=[[1000.0]]))
    session.step("tell")
    session.until("done")
    session.step()
    before = len(session.tokens)
    assert 0 < before < 60
    session.step(written)
    at_most = len(session.tokens)  # what it writes is known after what it reads in the same micro-turn
    session.finish()
    assert len(session.tokens) == at_most <= before + 8
    assert session.events[-1].what in ("cancelled", "refined", "running") and session.events[-1].number == 1


def test_a_result_that_has_been_read_is_not_cancelled_and_one_that_came_in_time_is_read_to_its_end():
    session = Session(Scripted(tell=[[LONG]]))
    session.step("@2 tell")
    session.until("done")
    for _ in range(30):  # its deadline passes while it is read
        session.step()
    assert session.read == [f"#1. {LONG}"]
    session.step("#1 stop")
    session.finish()
    assert session.events[-1].what == "done"


def test_a_task_that_cannot_be_refined_is_read_to_its_end():
    session = Session(Scripted(tell=[[LONG]], wait=[[1000.0]]), limits=Limits(open=1))
    session.step("tell")
    session.until("done")
    session.step("wait")
    assert 0 < len(session.tokens) < 60
    session.step("#1 rain")
    session.finish()
    assert session.read == [f"#1. {LONG}", "#1! busy"]


def test_answers_and_what_was_played_wait_in_bounded_queues():
    session = Session(Scripted(), start=False)
    for _ in range(5000):
        session.desk.answer(1, 1, "x")
        session.desk.played(1, 1)
    assert session.desk._answers.qsize() == session.desk._played.qsize() == 1000
    session.step()
    assert session.desk._answers.empty() and session.desk._played.empty()


def test_a_task_is_given_the_conversation_up_to_itself():
    packages = []

    class Keeps(Scripted):
        async def run(self, package):
            packages.append(package)
            yield "ok"

    session = Session(Keeps())
    session.step(texts=[Text(USER, "will it rain", 0.0)])
    session.step("rain in paris", text=" one moment")
    session.until("done")
    session.step("#1 tomorrow")
    session.events.clear()
    session.until("done")
    session.finish()
    told = lambda package: [part["text"] for turn in package.turns for part in turn.parts]  # noqa: E731
    assert told(packages[0]) == ["(typed) will it rain", "one moment", "(to the background) rain in paris"]
    assert packages[1].requests == ("rain in paris", "tomorrow")
    assert "#1. ok" in told(packages[1])


def test_what_is_malformed_is_reported_and_as_much_of_it_done_as_can_be():
    session = Session(Scripted(rain=[["ok"]]))
    session.step("", "#4")
    session.step("rain", problem="unclosed")
    session.step("", problem="stray")
    session.until("done")
    session.finish()
    malformed = [(event.reason, event.text) for event in session.events if event.what == "malformed"]
    assert malformed == [("empty", ""), ("empty", "#4"), ("unclosed", "rain"), ("stray", "")]
    assert session.read == ["#1. ok"]


def test_no_tick_waits_for_a_backend_that_holds_its_thread():
    """The backend goes on only after all ticks: if any of them waited for it, this would never end."""
    ticked = threading.Event()
    session = Session(Scripted(hold=[[lambda: ticked.wait(60), "too late"]]), limits=Limits(seconds=2.0))
    for index in range(100):
        session.step(*["hold"] * (index % 7 == 0))
    happened = [event.what for event in session.events]
    ticked.set()
    assert happened.count("asked") == 15 and happened.count("expired") >= 12
    assert session.read[0] == "#1! late"
    session.finish()


def test_no_tick_waits_for_a_runner_that_does_not_run():
    session = Session(Scripted(), start=False, limits=Limits(open=8, seconds=1.0), orders=4)
    session.step(*["x"] * 6)
    assert [event.what for event in session.events].count("failed") == 2  # as many orders wait as may
    for _ in range(40):
        session.step()
    assert sorted(session.read) == ["#1! late", "#2! late", "#3! late", "#4! late", "#5! busy", "#6! busy"]
    session.desk.close()


@pytest.fixture(scope="module")
def idle():
    session = Session(Scripted(), start=False)
    return session.background


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=20), st.sampled_from(["", "unclosed", "too_long", "stray"])), max_size=20))
def test_nothing_that_a_model_writes_makes_a_tick_fail(idle, spans):
    desk = idle.open()
    for text, problem in spans:
        arrived = desk.take_in(Arrived(None))
        assert len(arrived.results) <= 8
        desk.put_out(turn(text, problem=problem))
    assert len(desk.book.tasks) <= Limits().kept
