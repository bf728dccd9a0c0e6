"""Where a session meets the background, twice in every tick: results go in before it, tasks come out after it.

Nothing here waits, and no text of a model or of a backend makes it fail.
"""

import contextlib
import dataclasses
import queue
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tml_jax.background import meter as meters
from tml_jax.background import tasks
from tml_jax.background.context import Privacy
from tml_jax.background.grammar import MalformedError, parse_request, result_text
from tml_jax.background.history import Budget, History, Note, heard, noted, spoken, unheard
from tml_jax.background.runner import Job, RunsTasks
from tml_jax.background.tasks import Change, Limits, Result, Start, State, TaskBook, TaskEvent
from tml_jax.config import Config
from tml_jax.data.record import BACKGROUND, Text
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn, Span

_T = TypeVar("_T")
_MOST_WAITING = 1000  # answers, and micro-turns played, until the next micro-turn
_MOST_PLAYED = 1000  # micro-turns that spoke, of which word may still come how much of their sound was heard


@dataclasses.dataclass(frozen=True)
class DeskOptions:
    """What sessions may ask for, what of them is remembered, and what of that may leave them."""

    limits: Limits = Limits()
    budget: Budget = Budget()
    privacy: Privacy = Privacy()


class Background:
    """The background of a server. Its sessions have a `Desk` each."""

    def __init__(
        self,
        runner: RunsTasks,
        tokenizer: Tokenizer,
        config: Config,
        options: DeskOptions = DeskOptions(),
        observe: Callable[[TaskEvent], None] = lambda event: None,
    ) -> None:
        """Over a runner, which the caller starts and stops.

        Args:
          runner: does the tasks.
          tokenizer: of the model's text.
          config: of the model.
          options: of every session.
          observe: told of every event of a task, from the thread of the ticks.
        """
        self.runner, self.tokenizer, self.config, self.options, self.observe = (
            runner,
            tokenizer,
            config,
            options,
            observe,
        )

    def open(self) -> "Desk":
        """For a new session."""
        return Desk(self)


class Desk:
    """One session's tasks. For the thread of the ticks alone, but for `answer`, `played` and `by_client`."""

    def __init__(self, background: Background) -> None:
        """With no task yet."""
        self._background = background
        self._channel = background.runner.open()
        self._history = History(background.options.budget)
        self._book = TaskBook(background.options.limits)
        self._meter = meters.meter_of(background.config)
        self._events: list[TaskEvent] = []
        self._given: tuple[str, ...] = ()
        self._answers: queue.Queue[Result] = queue.Queue(_MOST_WAITING)
        self._played: queue.Queue[tuple[int, int]] = queue.Queue(_MOST_WAITING)
        self._spoke: dict[int, int] = {}  # number of a micro-turn that spoke → the same in the history
        self.by_client = False  # whether the client does the tasks that begin from now on; set from any thread
        self.left: tuple[TaskEvent, ...] = ()  # what `end` told

    @property
    def book(self) -> TaskBook:
        """The tasks as they stand."""
        return self._book

    def answer(self, number: int, revision: int, text: str) -> None:
        """Takes the whole result of a task from the client. From any thread; once for each task and revision.

        Where too many wait it is lost, and the task's deadline tells the model.
        """
        with contextlib.suppress(queue.Full):
            self._answers.put_nowait(Result(number, revision, text, last=True))

    def played(self, index: int, samples: int) -> None:
        """Takes in how much of the sound of micro-turn `index` was heard. From any thread; once for each.

        Where too many wait, all of it counts as heard.
        """
        with contextlib.suppress(queue.Full):
            self._played.put_nowait((index, samples))

    def take_in(self, arrived: Arrived, window: int | None = None) -> Arrived:
        """What arrived in the window of a micro-turn, with the results that fit in beside it.

        Args:
          arrived: in the window.
          window: its number, where windows may have been passed over; by default the one after the last.

        Returns:
          The same with results.
        """
        if window is not None:
            self._history = dataclasses.replace(self._history, micro_turns=window)
        now = self._history.micro_turns
        for index, samples in _emptied(self._played):
            if index in self._spoke:
                self._history = unheard(self._history, self._spoke.pop(index), samples)
        for result in (*self._background.runner.collect(self._channel), *_emptied(self._answers)):
            self._follow(tasks.arrive(self._book, result, now))
        self._follow(tasks.expire(self._book, now))
        background = self._background
        self._meter, self._book, tokens, chunks = meters.give(
            self._meter, self._book, tuple(arrived.texts), arrived.lost, now, background.tokenizer, background.config
        )
        self._given = tuple(result_text(chunk.number, chunk.mark, chunk.text) for chunk in chunks)
        self._history = heard(self._history, arrived, tuple(Text(BACKGROUND, text, 0.0) for text in self._given))
        return dataclasses.replace(arrived, results=tokens)

    def put_out(self, turn: MicroTurn) -> MicroTurn:
        """What the model put out, with what became of its tasks since the last time, and what it read of them."""
        now = self._history.micro_turns
        for span in turn.spans:
            if span.text:
                self._history = noted(self._history, (Note(now, "asked", span.text),))
        if turn.gate == "SPEAK":
            self._spoke[turn.index] = now
            while len(self._spoke) > _MOST_PLAYED:
                del self._spoke[next(iter(self._spoke))]
        # Tasks begin with a conversation that ends with this micro-turn.
        self._history = spoken(self._history, turn)
        for span in turn.spans:
            self._ask(span, now)
        events, self._events = tuple(self._events), []
        for event in events:
            self._background.observe(event)
        return dataclasses.replace(turn, tasks=events, given=self._given)

    def close(self) -> None:
        """Ends all tasks: the session is over. From any thread."""
        self._background.runner.close(self._channel)

    def end(self, spans: Iterable[Span] = ()) -> None:
        """Tells who observes, and keeps in `left`, what became of tasks that still ran when the session was over.

        Args:
          spans: that the model was in the midst of.
        """
        now = self._history.micro_turns
        broken = [TaskEvent("malformed", now, text=span.text, reason=span.problem) for span in spans]
        ended = tasks.end(self._book, now)
        self._book = ended.book
        self.left = (*broken, *ended.events)
        for event in (*self._events, *self.left):
            self._background.observe(event)
        self._events = []

    def _ask(self, span: Span, now: int) -> None:
        if span.problem:
            self._events.append(TaskEvent("malformed", now, text=span.text, reason=span.problem))
        if span.problem == "stray":
            return
        try:
            asked = parse_request(span.text)
        except MalformedError as error:
            self._events.append(TaskEvent("malformed", now, text=span.text, reason=str(error)))
            return
        self._follow(tasks.request(self._book, asked, now))

    def _follow(self, change: Change) -> None:
        """Takes over a change of the book, and gives its orders."""
        self._book = change.book
        self._note(change.events)
        for order in change.orders:
            if not isinstance(order, Start):
                self._background.runner.end(self._channel, order.number, order.revision)
                continue
            if self.by_client:  # whose connection reads of it in the events
                continue
            job = Job(self._channel, order.task, self._history, self._background.options.privacy)
            if not self._background.runner.begin(job):
                failed = tasks.fail(self._book, order.task, "busy", order.task.asked)
                self._book = failed.book
                self._note(failed.events)

    def _note(self, events: Iterable[TaskEvent]) -> None:
        self._events += events
        for event in events:
            if event.what in ("refined", State.FAILED, State.EXPIRED, State.CANCELLED):
                self._meter = meters.drop(self._meter, event.number)


def _emptied(waiting: queue.Queue[_T]) -> Iterator[_T]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield waiting.get_nowait()
