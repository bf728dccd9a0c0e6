"""The tasks of one session: who asked for what and when, how it stands, and which results the model may still hear.

A pure state machine; time is the number of the micro-turn. A task is RUNNING until it is DONE, FAILED, EXPIRED (its
deadline has passed) or CANCELLED. A task that is refined runs again, whatever became of it, under the same number and
the next revision. What arrives for another revision than the present one, or for a task that does not run, is dropped;
so is what still waits to be given when its task is cancelled, refined or expires.
"""

import dataclasses
import enum
import math
from collections.abc import Iterable

from tml_jax.background.grammar import MOST, Action, Mark, Request
from tml_jax.config import MICRO_TURN_SECONDS

LEAST_WORDS = 5  # words of a result that are worth a tag of their own
PATIENCE = 5  # micro-turns after which fewer are given
ELLIPSIS = "…"
MOST_REQUESTS = 10  # of a task that is refined again and again; older ones are forgotten


class State(enum.StrEnum):
    """How a task stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclasses.dataclass(frozen=True)
class Limits:
    """What one session may ask for.

    Attributes:
      open: tasks that may run at once.
      kept: tasks that are remembered.
      seconds: deadline of a task that does not say one.
      result: most characters of a result; the rest is cut off.
      soonest: seconds from a task until the model is told anything of it. A model that has only ever seen results
        come later than that says nothing of one that comes at once.
    """

    open: int = 4
    kept: int = 32
    seconds: float = 60.0
    result: int = 1000
    soonest: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "soonest" and not getattr(self, field.name) > 0:
                raise ValueError(f"{field.name} = {getattr(self, field.name)}: expected more than 0")
        if not self.soonest >= 0:
            raise ValueError(f"soonest = {self.soonest}: expected at least 0")
        if self.kept < self.open:
            raise ValueError(f"kept = {self.kept}: expected at least open = {self.open}")


@dataclasses.dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
      number: its name in the stream, from 1.
      revision: how often it has been asked, from 1.
      requests: what was asked, the newest last.
      began: micro-turn of the first request.
      asked: micro-turn of the last.
      deadline: micro-turn before which its result must have come whole; it is then given to its end.
      state: how it stands.
      received: characters of results so far.
      pending: what of them has not been given to the model, with spaces as they came.
      since: micro-turn in which the oldest of that came.
      released: whether the end of its result is on its way to the model.
      told: whether the model has been told the end.
    """

    number: int
    revision: int
    requests: tuple[str, ...]
    began: int
    asked: int
    deadline: int
    state: State = State.RUNNING
    received: int = 0
    pending: str = ""
    since: int = 0
    released: bool = False
    told: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """What the background sends: some more text of a task, and whether it is the `last`, or why it failed; or only
    that it has `begun` with it."""

    number: int
    revision: int
    text: str = ""
    last: bool = False
    failure: str = ""
    begun: bool = False


@dataclasses.dataclass(frozen=True)
class Start:
    """An order to begin a task, or its next revision."""

    task: Task


@dataclasses.dataclass(frozen=True)
class Stop:
    """An order to end a revision of a task; nothing of it is of use any more."""

    number: int
    revision: int


@dataclasses.dataclass(frozen=True)
class TaskEvent:
    """What happened, for metrics and clients.

    Attributes:
      what: `asked`, `refined`, a `State`, `malformed`, or `refused` (it could not be refined, and stays as it is). It
        is asked or refined first, and `running` once the background has begun with it.
      micro_turn: when.
      number: of the task; 0 where it is about none.
      revision: of the task.
      text: what was asked for.
      reason: why it failed or was refused, or what is malformed.
      seconds: since its task was asked or refined.
    """

    what: str
    micro_turn: int
    number: int = 0
    revision: int = 0
    text: str = ""
    reason: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Words to give to the model, about one task."""

    number: int
    mark: Mark
    text: str = ""


@dataclasses.dataclass(frozen=True)
class TaskBook:
    """All tasks of a session.

    Attributes:
      limits: what it may ask for.
      given: numbers given so far.
      tasks: remembered tasks, by number.
      notices: failures that the model has not been told of, (number, reason).
    """

    limits: Limits = Limits()
    given: int = 0
    tasks: tuple[Task, ...] = ()
    notices: tuple[tuple[int, str], ...] = ()

    def find(self, number: int) -> Task | None:
        """The task of a number, if it is remembered."""
        return next((task for task in self.tasks if task.number == number), None)

    @property
    def running(self) -> tuple[Task, ...]:
        """Tasks whose results are waited for."""
        return tuple(task for task in self.tasks if task.state == State.RUNNING)


@dataclasses.dataclass(frozen=True)
class Change:
    """A book after something happened, the orders that follow from it, and what happened."""

    book: TaskBook
    orders: tuple[Start | Stop, ...] = ()
    events: tuple[TaskEvent, ...] = ()


def request(book: TaskBook, asked: Request, now: int) -> Change:
    """Acts on what the model asked for.

    Args:
      book: the session's tasks.
      asked: what it asked for.
      now: micro-turn.

    Returns:
      The change. A task that may not begin is failed at once, and the model is told.
    """
    if asked.action == Action.CANCEL:
        numbers = [task.number for task in book.tasks] if asked.number is None else [asked.number]
        return _cancel(book, numbers, now)
    if asked.action == Action.REFINE:
        return _refine(book, asked, now)
    number = book.given + 1
    if number > MOST:
        return Change(book, (), (TaskEvent("malformed", now, text=asked.text, reason="too_many"),))
    task = Task(number, 1, (asked.text,), now, now, _deadline(book, asked, now))
    events = (_event("asked", task, now),)
    book = dataclasses.replace(book, given=number)
    if len(book.running) >= book.limits.open:
        book = _forget(dataclasses.replace(book, tasks=(*book.tasks, task)))
        failed = fail(book, task, "busy", now)
        return dataclasses.replace(failed, orders=(), events=events + failed.events)
    return Change(_forget(dataclasses.replace(book, tasks=(*book.tasks, task))), (Start(task),), events)


def _refine(book: TaskBook, asked: Request, now: int) -> Change:
    before = book.find(asked.number)
    if before is None or (before.state != State.RUNNING and len(book.running) >= book.limits.open):
        reason = "unknown" if before is None else "busy"
        event = TaskEvent("refused", now, asked.number, text=asked.text, reason=reason)
        return Change(_notice(book, asked.number, reason), (), (event,))
    again = Task(
        before.number,
        before.revision + 1,
        (before.requests + (asked.text,))[-MOST_REQUESTS:],
        before.began,
        now,
        _deadline(book, asked, now),
    )
    stops = (Stop(before.number, before.revision),) if before.state == State.RUNNING else ()
    return Change(_put(book, again), (*stops, Start(again)), (_event("refined", again, now),))


def _cancel(book: TaskBook, numbers: Iterable[int], now: int) -> Change:
    orders, events = [], []
    for number in numbers:
        task = book.find(number)
        if task is None or task.state == State.CANCELLED:
            continue
        if task.state == State.RUNNING:
            orders.append(Stop(number, task.revision))
        if task.state == State.RUNNING or not task.told:
            events.append(_event(State.CANCELLED, task, now))
        book = _put(book, dataclasses.replace(task, state=State.CANCELLED, pending="", told=True))
    return Change(_forget(book), tuple(orders), tuple(events))


def end(book: TaskBook, now: int) -> Change:
    """Ends all that runs: the session is over."""
    return _cancel(book, [task.number for task in book.running], now)


def arrive(book: TaskBook, result: Result, now: int) -> Change:
    """Takes in a result; one that nobody waits for any more changes nothing.

    Args:
      book: the session's tasks.
      result: what came.
      now: micro-turn.

    Returns:
      The change.
    """
    task = book.find(result.number)
    if task is None or task.revision != result.revision or task.state != State.RUNNING:
        return Change(book)
    if now >= task.deadline:
        return expire(book, now)
    if result.begun:
        return Change(book, (), (_event(State.RUNNING, task, now),))
    if result.failure:
        failed = fail(book, task, result.failure, now)
        return dataclasses.replace(failed, orders=())  # it has ended by itself
    room = book.limits.result - task.received
    over = len(result.text) > room
    text = printable(result.text[:room]) + ELLIPSIS * over
    done = result.last or over
    since = now if not task.pending and text else task.since
    state = State.DONE if done else State.RUNNING
    task = dataclasses.replace(
        task, state=state, received=task.received + len(text), pending=task.pending + text, since=since
    )
    orders = (Stop(task.number, task.revision),) if over and not result.last else ()
    return Change(_put(book, task), orders, (_event(State.DONE, task, now),) if done else ())


def fail(book: TaskBook, task: Task, reason: str, now: int) -> Change:
    """Ends a task without a result, and tells the model."""
    return _end(book, task, State.FAILED, reason, now)


def expire(book: TaskBook, now: int) -> Change:
    """Ends the tasks whose deadline has passed, and tells the model."""
    orders, events = (), ()
    for task in book.running:
        if now >= task.deadline:
            change = _end(book, task, State.EXPIRED, "late", now)
            book, orders, events = change.book, orders + change.orders, events + change.events
    return Change(book, orders, events)


def release(book: TaskBook, now: int) -> tuple[TaskBook, Chunk | None]:
    """The next words that the model may hear, if there are any: failures first, then what has waited longest.

    Args:
      book: the session's tasks.
      now: micro-turn.

    Returns:
      The book without them, and the words; None where none are ready. The caller says when a task is `told`.
    """
    early = {task.number for task in book.tasks if now - task.asked < _windows(book.limits.soonest)}
    # That a task cannot be refined is said after its result.
    owed = {task.number for task in book.tasks if task.state == State.DONE and not task.released}
    for place, (number, reason) in enumerate(book.notices):
        if number not in early | owed:
            notices = book.notices[:place] + book.notices[place + 1 :]
            return dataclasses.replace(book, notices=notices), Chunk(number, Mark.FAILED, reason)
    ready = [task for task in book.tasks if task.number not in early and _ready(task, now)]
    if not ready:
        return book, None
    task = min(ready, key=lambda task: (task.since, task.number))
    whole, rest = (task.pending, "") if task.state == State.DONE else _whole_words(task.pending)
    mark = Mark.LAST if task.state == State.DONE else Mark.MORE
    after = dataclasses.replace(task, pending=rest, since=now, released=task.state == State.DONE)
    return _with(book, after), Chunk(task.number, mark, " ".join(whole.split()))


def told(book: TaskBook, number: int) -> TaskBook:
    """The book once the model has been given the end of a task's result; until then it can still be cancelled."""
    task = book.find(number)
    told = task is not None and task.released
    return _forget(_with(book, dataclasses.replace(task, told=True))) if told else book


def printable(text: str) -> str:
    """Text without characters that are none, so that it can be tokens, JSON and a line on a screen."""
    text = text.encode("utf-8", "replace").decode()
    return "".join(character if character.isprintable() or character.isspace() else " " for character in text)


def _ready(task: Task, now: int) -> bool:
    if task.state == State.DONE:
        return not task.released
    if task.state != State.RUNNING:
        return False
    words = len(_whole_words(task.pending)[0].split())
    return words >= LEAST_WORDS or (words > 0 and now - task.since >= PATIENCE)


def _whole_words(text: str) -> tuple[str, str]:
    """Text up to its last space, and the word after it that may still grow."""
    cut = next((i for i in range(len(text), 0, -1) if text[i - 1].isspace()), 0)
    return text[:cut], text[cut:]


def _deadline(book: TaskBook, asked: Request, now: int) -> int:
    seconds = book.limits.seconds if asked.seconds is None else asked.seconds
    return now + _windows(seconds)


def _windows(seconds: float) -> int:
    return math.ceil(round(seconds / MICRO_TURN_SECONDS, 6))


def _event(what: str, task: Task, now: int, reason: str = "") -> TaskEvent:
    seconds = round((now - task.asked) * MICRO_TURN_SECONDS, 6)
    return TaskEvent(what, now, task.number, task.revision, task.requests[-1], reason, seconds)


def _end(book: TaskBook, task: Task, state: State, reason: str, now: int) -> Change:
    reason = " ".join(printable(reason).split())[:100]
    book = _notice(_put(book, dataclasses.replace(task, state=state, pending="", told=True)), task.number, reason)
    return Change(_forget(book), (Stop(task.number, task.revision),), (_event(state, task, now, reason),))


def _notice(book: TaskBook, number: int, reason: str) -> TaskBook:
    return dataclasses.replace(book, notices=(*book.notices, (number, reason))[-book.limits.kept :])


def _put(book: TaskBook, task: Task) -> TaskBook:
    """The book with another state of a task; what was to be said of the one before is not said any more."""
    notices = tuple(notice for notice in book.notices if notice[0] != task.number)
    return dataclasses.replace(_with(book, task), notices=notices)


def _with(book: TaskBook, task: Task) -> TaskBook:
    tasks = tuple(task if other.number == task.number else other for other in book.tasks)
    return dataclasses.replace(book, tasks=tasks)


def _forget(book: TaskBook) -> TaskBook:
    """Drops the oldest tasks that are over, as far as there are too many; first those that have been told."""
    over = sorted((task for task in book.tasks if task.state != State.RUNNING), key=lambda task: not task.told)
    dropped = {task.number for task in over[: max(0, len(book.tasks) - book.limits.kept)]}
    return dataclasses.replace(book, tasks=tuple(task for task in book.tasks if task.number not in dropped))
