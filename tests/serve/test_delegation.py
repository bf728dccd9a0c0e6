"""Tasks from end to end: the model's tokens, the scheduler, a real socket, and the embedded background."""

import itertools
import json
import logging

import numpy as np
import pytest
from scripted import Line, ScriptedEngine
from served import Served, receive, send
from small import small_config
from synthetic import tokenizer

from tml_jax.background.desk import Background
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner
from tml_jax.background.stepped import SteppedRunner
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import USER, Text
from tml_jax.serve.log import EVENTS
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.session import Talker
from tml_jax.serve.words import MAX_TASK, MicroTurn, Mouth, Span
from tml_jax.tokens import Control

CONFIG = small_config()
OPEN, SHOW, END = (CONFIG.model.text_vocab_size + c for c in (Control.DELEGATE, Control.DISPLAY, Control.END))


@pytest.fixture
def background():
    runner = Runner(LocalBackend(LocalTools()))
    runner.start()
    yield Background(runner, tokenizer(), CONFIG)
    runner.stop()


def words(text: str) -> list[int]:
    return tokenizer().encode_words(text)


def test_a_span_becomes_a_task_over_several_micro_turns_while_the_model_speaks():
    mouth = Mouth(tokenizer(), CONFIG)
    said = [mouth.words(tokens) for tokens in ([*words("here"), OPEN, *words("the red")], [*words("box"), END])]
    assert said == [(" here", ""), ("", "")]
    assert mouth.words(words("now")) == (" now", "")
    assert mouth.spans() == (Span("the red box"),) and mouth.spans() == ()


@pytest.mark.parametrize(
    ("tokens", "said", "spans"),
    [
        ([OPEN, *words("red"), OPEN, *words("blue"), END], ("", ""), (Span("red", "unclosed"), Span("blue"))),
        ([OPEN, *words("red"), SHOW, *words("blue"), END], ("", " blue"), (Span("red", "unclosed"),)),
        ([SHOW, *words("red"), OPEN, *words("blue"), END], ("", " red"), (Span("blue"),)),
        ([END, *words("red")], (" red", ""), (Span("", "stray"),)),
        ([OPEN, END], ("", ""), (Span(""),)),
        (
            [OPEN, *[72] * MAX_TASK, *words("red")],
            (" red", ""),
            (Span(tokenizer().decode([72] * MAX_TASK), "too_long"),),
        ),
    ],
)
def test_malformed_spans_cost_nothing_that_is_spoken(tokens, said, spans):
    mouth = Mouth(tokenizer(), CONFIG)
    assert mouth.words(tokens) == said and mouth.spans() == spans


def test_a_task_goes_out_and_its_result_comes_in_over_a_real_socket(background):
    read = []

    def script(index, arrived):
        """Asks at once, goes on speaking, and says the result once it has read it."""
        read.extend(arrived.results)
        if index == 0:
            return Line(np.zeros(4800, np.float32), " let me see", tasks=("6 times 7",))
        text = tokenizer().decode([token for token in read if token < tokenizer().size])
        return Line(np.ones(4800, np.float32), " 42") if "42" in text else Line()

    with Served(ScriptedEngine(script), background) as served:
        with served.socket("?model=small&duplex=1") as socket:
            words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "six times seven"}]}
            send(socket, type="conversation.item.create", item=words)
            events, results, said = [], [], ""
            while "42" not in said:
                turn = receive(socket, "duplex.micro_turn")
                events += turn["tasks"]
                results += turn["results"]
                said += turn["text"]
            assert [(event["what"], event["number"], event["text"]) for event in events] == [
                ("asked", 1, "6 times 7"),
                ("running", 1, "6 times 7"),
                ("done", 1, "6 times 7"),
            ]
            assert said == " let me see 42" and results == ["#1. 42"]
        status, metrics = served.get("/metrics")
        assert 'tml_background_events_total{what="done"} 1.0' in metrics
        assert 'tml_background_seconds_count{what="done"} 1.0' in metrics and "tml_background_tasks 0.0" in metrics
    tag = CONFIG.model.text_vocab_size + Control.FROM_BACKGROUND
    assert read[0] == tag and read.count(tag) == 1
    assert tokenizer().decode(read[1:]).strip().startswith("#1.")
    assert json.dumps(events)


def watched(background, plan, seconds):
    """What a client is told of the tasks that a model asks for as in `plan` (micro-turn → tasks), and what it reads."""

    def script(index, arrived):
        return Line(np.ones(4800, np.float32), " on", tasks=plan.get(index, ()))

    with Served(ScriptedEngine(script), background) as served, served.socket("?model=small&duplex=1") as socket:
        words = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
        send(socket, type="conversation.item.create", item=words)
        turns = [receive(socket, "duplex.micro_turn") for _ in range(round(seconds / MICRO_TURN_SECONDS))]
    assert {turn["text"] for turn in turns} == {" on"}  # it talks all the while
    events = [task for turn in turns for task in turn["tasks"] if task["what"] != "running"]  # when is by chance
    told = [(task["what"], task["number"], task["revision"], task["text"]) for task in events]
    return told, [text for turn in turns for text in turn["results"]]


def test_of_a_refined_task_the_new_result_alone_comes_in_over_a_real_socket(background):
    told, read = watched(background, {0: ("timer 1 second",), 2: ("#1 6 times 7",)}, 3.0)
    assert told == [
        ("asked", 1, 1, "timer 1 second"),
        ("refined", 1, 2, "6 times 7"),
        ("done", 1, 2, "6 times 7"),
    ]
    assert read == ["#1. 42"]  # and at no time that the time is up


def test_a_task_that_is_done_can_be_refined_and_its_second_result_comes_too(background):
    told, read = watched(background, {0: ("3 + 4",), 6: ("#1 3 + 5",)}, 3.0)
    assert told == [
        ("asked", 1, 1, "3 + 4"), ("done", 1, 1, "3 + 4"), ("refined", 1, 2, "3 + 5"), ("done", 1, 2, "3 + 5"),
    ]  # fmt: skip
    assert read == ["#1. 7", "#1. 8"]


def test_clients_are_told_the_state_of_every_task_and_the_model_of_those_that_end_without_it(background):
    plan = {0: ("timer 1 second", "timer 50 seconds"), 1: ("no such thing", "#9 more"), 3: ("#1 stop",), 4: ("#2",)}
    told, read = watched(background, plan, 3.0)
    assert sorted(told) == [
        ("asked", 1, 1, "timer 1 second"),
        ("asked", 2, 1, "timer 50 seconds"),
        ("asked", 3, 1, "no such thing"),
        ("cancelled", 1, 1, "timer 1 second"),
        ("failed", 3, 1, "no such thing"),
        ("malformed", 0, 0, "#2"),
        ("refused", 9, 0, "more"),
    ]
    assert read == ["#9! unknown", "#3! nothing found"]  # nothing of the first, and the second goes on


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_a_session_with_a_background_and_no_task_gives_the_same_bits(engine, background):
    def play(background):
        clock, turns = Clock(), []
        scheduler = Scheduler(engine, delay=0.0, clock=clock, background=background)
        session = scheduler.join(turns.append, 7, stamped=False)
        session.hear((0.1 * np.random.default_rng(0).standard_normal(3200 * 8)).astype(np.float32), clock.now)
        session.read(Text(USER, "red box", 0.0), clock.now)
        for _ in range(8):
            clock.now += MICRO_TURN_SECONDS
            scheduler.run_tick(clock.now)
        scheduler.leave(session)
        scheduler.run_tick(clock.now)
        return turns

    for ours, theirs in zip(play(background), play(None), strict=True):
        assert (ours.gate, ours.text, ours.display) == (theirs.gate, theirs.text, theirs.display)
        np.testing.assert_array_equal(ours.samples, theirs.samples)


def test_the_time_of_a_task_goes_on_in_windows_that_are_passed_over(background):
    engine = ScriptedEngine(lambda index, arrived: Line(tasks=("@10 timer 9 seconds",) if index in (0, 1) else ()))
    clock, turns = Clock(), []
    scheduler = Scheduler(engine, delay=0.0, clock=clock, background=background)
    scheduler.join(turns.append, 7, stamped=False).begin(clock.now)

    def tick(late: float = 0.0) -> None:
        clock.now += MICRO_TURN_SECONDS
        scheduled, clock.now = clock.now, clock.now + late
        scheduler.run_tick(scheduled)

    tick()
    tick(late=4.0)
    while scheduler.tasks:
        tick()
    events = [(event.what, event.micro_turn, turn.index) for turn in turns for event in turn.tasks]
    assert all(of == index for _, of, index in events)
    due = [of for what, of, _ in events if what == "expired"]
    assert due == [50, turns[1].index + 50] and turns[1].index > 15


def test_a_session_that_leaves_ends_its_tasks(background):
    engine = ScriptedEngine(lambda index, arrived: Line(tasks=("timer 50 seconds",) if index == 0 else ()))
    clock, turns = Clock(), []
    scheduler = Scheduler(engine, delay=0.0, clock=clock, background=background)
    session = scheduler.join(turns.append, 7, stamped=False)
    session.begin(clock.now)
    clock.now += MICRO_TURN_SECONDS
    scheduler.run_tick(clock.now)
    assert [event.what for event in turns[0].tasks] == ["asked"] and scheduler.tasks == 1
    jobs = background.runner._jobs
    scheduler.leave(session)
    from served import wait_until

    wait_until(lambda: not jobs)


def test_a_session_that_leaves_says_what_became_of_the_tasks_that_ran_and_of_one_half_written(background, caplog):
    caplog.set_level(logging.INFO, EVENTS)
    seen = []
    background.observe = seen.append
    engine = ScriptedEngine(lambda index, arrived: Line(tasks=("timer 50 seconds",) if index == 0 else ()))
    engine.unfinished = (Span("and", "unclosed"),)
    clock = Clock()
    scheduler = Scheduler(engine, delay=0.0, clock=clock, background=background)
    session = scheduler.join(lambda turn: None, 7, stamped=False)
    session.begin(clock.now)
    for _ in range(5):
        clock.now += MICRO_TURN_SECONDS
        scheduler.run_tick(clock.now)
    scheduler.leave(session)
    scheduler.run_tick(clock.now)
    told = [(event.what, event.number, event.reason) for event in seen if event.what != "running"]
    assert told == [("asked", 1, ""), ("malformed", 0, "unclosed"), ("cancelled", 1, "")]
    assert seen[-1].seconds == 1.0
    (line,) = [record for record in caplog.records if record.getMessage() == "tasks_left"]
    assert line.fields == {"running": 1, "malformed": 1}


def test_a_talk_of_arrays_tells_at_its_end_what_was_half_written_and_what_still_ran():
    """Also where nobody listens to the end."""
    said = {0: [OPEN, *words("red box"), END], 2: [OPEN, *words("blue")]}

    class Scripted(Talker):
        def __init__(self):
            self.config, self.tokenizer, self.seed = CONFIG, tokenizer(), 0

        def talk_together(self, sessions, seeds, mouths):
            for index, _ in enumerate(zip(*sessions)):
                text, display = mouths[0].words(said.get(index, []))
                silent = np.zeros((20, 80), np.float32), np.zeros(4800, np.float32)
                yield [MicroTurn(index, 0.2 * index, "LISTEN", text, display, *silent, 0.01, spans=mouths[0].spans())]

    for length in (3, 4):
        late, seen = SteppedRunner(LocalBackend(LocalTools()), lambda number, revision: 50.0), []
        desk = Background(late, tokenizer(), CONFIG, observe=seen.append).open()
        talking = Scripted().talk(None, micro_turns=4, desk=desk)
        assert len(list(itertools.islice(talking, length))) == length
        talking.close()
        assert [(event.what, event.number, event.text) for event in desk.left] == [
            ("malformed", 0, "blue"),
            ("cancelled", 1, "red box"),
        ]
        assert tuple(seen[-2:]) == desk.left
        desk.close()


def test_a_span_that_is_open_at_the_end_is_unclosed():
    mouth = Mouth(tokenizer(), CONFIG)
    mouth.words([OPEN, *words("red box")])
    assert mouth.left() == (Span("red box", "unclosed"),) and mouth.left() == ()
