"""Delegation: does the model hand over what it should, in the right words, and say what came of it?

A held-out scene is streamed with a session's own desk in the loop (`rehearse`): what the model asks for is done by the
embedded backend, as `launch.serve --background=local` does it, and comes back after the record's delay. Where the
record has a background that fails, this one fails as well.

Metrics, over sets of conversations. Those that need no task count too, as what they hand over is false.

- precision, recall: of the tasks that were asked for, new or refined. One of the record is found by the first of its
  kind that the model asks for between the end of the user's request (0.2 s before, the grid of the gates) and the next
  request.
- unasked: share of conversations in which a task was handed over that was not asked for.
- text: share of the found tasks with the record's very words.
- result: share of scenes with tasks in which the numbers and apologies spoken after the first task are the record's, in
  its order, and no others.
- faithful: the same, against the results that this model read: what it asked for may have been wrong.
- cancelled: share of the record's cancellations that the model wrote, in time and of the right task.
"""

import asyncio
import collections
import dataclasses
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from tml_jax.background.backend import BackendError
from tml_jax.background.context import Package, Privacy
from tml_jax.background.desk import Background, Desk, DeskOptions
from tml_jax.background.grammar import Action, MalformedError, Mark, Request, parse_request, parse_result
from tml_jax.background.history import Budget
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.stepped import USUAL_DELAY, SteppedRunner
from tml_jax.config import MICRO_TURN_SECONDS, Config
from tml_jax.data.record import BACKGROUND, TASK, Conversation
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.eval.estimates import Estimate, pooled
from tml_jax.eval.interactivity import EARLY_SECONDS, split_words
from tml_jax.scenes import scripts
from tml_jax.scenes.delegation import FILLER, SORRY, VARIANTS, PlannedTask, spoken_result
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn

NO_TASK = "no task due"  # the row of conversations without one
_REPORTED = {*scripts.NUMBERS, SORRY}


def planned(conversation: Conversation) -> tuple[PlannedTask, ...]:
    """The tasks that a record foresees, in the order of asking."""
    return tuple(PlannedTask(**task) for task in conversation.meta.get("tasks", ()))


def _by_revision(tasks: Sequence[PlannedTask]) -> Mapping[tuple[int, int], PlannedTask]:
    """The tasks of a record by number and revision, as a session counts them."""
    revisions: dict[int, int] = {}
    found = {}
    for task in tasks:
        number = parse_request(task.text).number or len(revisions) + 1
        revisions[number] = revisions.get(number, 0) + 1
        found[number, revisions[number]] = task
    return found


class _PlannedBackend:
    """The embedded backend, but for the tasks that go wrong in the record."""

    def __init__(self, tasks: Mapping[tuple[int, int], PlannedTask]) -> None:
        self._tasks, self._local = tasks, LocalBackend(LocalTools(), sleep=lambda seconds: asyncio.sleep(0))

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        plan = self._tasks.get((package.number, package.revision))
        if plan is None or not plan.faulty:
            async for piece in self._local.run(package):
                yield piece
        elif plan.failed:
            raise BackendError(plan.result)
        else:
            yield plan.result

    async def close(self) -> None:
        """See `Backend`."""


def desk_of(conversation: Conversation, tokenizer: Tokenizer, config: Config) -> Desk:
    """A session's desk whose results come as late, and fail, as in a record."""
    tasks = _by_revision(planned(conversation))

    def delay(number: int, revision: int) -> float:
        task = tasks.get((number, revision))
        return USUAL_DELAY if task is None else task.delay

    runner = SteppedRunner(_PlannedBackend(tasks), delay)
    options = DeskOptions(budget=Budget(audio=0, frames=0), privacy=Privacy(audio=False, frames=False))
    return Background(runner, tokenizer, config, options).open()


def rehearse(desk: Desk, windows: Iterable[Arrived]) -> Iterator[Arrived]:
    """What arrives in each window, with the results of the desk in place of those of the record.

    `Desk.put_out` must be given each micro-turn before the next window is taken.
    """
    for arrived in windows:
        texts = [text for text in arrived.texts if text.speaker != BACKGROUND]
        yield desk.take_in(dataclasses.replace(arrived, texts=texts))


@dataclasses.dataclass(frozen=True)
class Delegation:
    """What was observed in one conversation.

    Attributes:
      id: of the conversation.
      variant: of the scene; its family where it has none.
      due: tasks of the record, new or refined.
      asked: spans of the model but for cancellations, malformed ones included.
      found: of those due, how many were asked for.
      right: of those found, how many in the record's words.
      result: whether what was due was said, one entry where there are tasks.
      faithful: whether what was read was said, one entry where the model asked for anything and there are tasks.
      cancelled: for each cancellation due, whether it was written.
    """

    id: str
    variant: str
    due: int
    asked: int
    found: int
    right: int
    result: tuple[bool, ...]
    faithful: tuple[bool, ...]
    cancelled: tuple[bool, ...]


@dataclasses.dataclass(frozen=True)
class DelegationScore:
    """The metrics of a set of conversations, as the head of this file defines them. Shares lie in 0 … 1."""

    conversations: int
    precision: Estimate
    recall: Estimate
    unasked: Estimate
    text: Estimate
    result: Estimate
    faithful: Estimate
    cancelled: Estimate


def score_delegation(conversation: Conversation, micro_turns: Sequence[MicroTurn]) -> Delegation:
    """Compares the tasks that a model asked for, and what it said of them, with a record.

    Args:
      conversation: the record.
      micro_turns: what the model put out, from the first, with `spans` and `given` as a desk leaves them.

    Returns:
      The observations.
    """
    turns = micro_turns[: conversation.micro_turns]
    made = [(_heard(turn), _request(span.text)) for turn in turns for span in turn.spans]
    due = [(text.time, _request(text.text)) for text in conversation.texts if text.kind == TASK]
    due = [(time, wanted) for time, wanted in due if wanted is not None]
    starts = [_request_end(conversation, time) - EARLY_SECONDS for time, _ in due]
    found = right = 0
    cancelled = []
    for (_, wanted), start, end in zip(due, starts, [*starts[1:], float("inf")]):
        kind = wanted.action
        inside = [got for time, got in made if start <= time < end and got is not None and got.action == kind]
        if kind == Action.CANCEL:
            cancelled.append(any(got.number in (wanted.number, None) for got in inside))
        elif inside:
            found += 1
            right += inside[0] == wanted
    tasks = planned(conversation)
    said = _reported(turns, starts[0]) if due else []
    read = _read(turns)
    asked = [got for _, got in made if got is None or got.action != Action.CANCEL]
    return Delegation(
        id=conversation.id,
        variant=conversation.meta.get("variant", conversation.family),
        due=sum(wanted.action != Action.CANCEL for _, wanted in due),
        asked=len(asked),
        found=found,
        right=right,
        result=(said == [task.due for task in tasks if task.due],) if tasks else (),
        faithful=(said == read,) if tasks and asked else (),
        cancelled=tuple(cancelled),
    )


def aggregate(scored: Sequence[Delegation]) -> DelegationScore:
    """Sums up a set of conversations, whole ones drawn for the intervals."""

    def share(hits: str, cases: str) -> Estimate:
        return pooled([getattr(item, hits) for item in scored], [getattr(item, cases) for item in scored])

    def shares(name: str) -> Estimate:
        rows = [getattr(item, name) for item in scored]
        return pooled([sum(row) for row in rows], [len(row) for row in rows])

    return DelegationScore(
        conversations=len(scored),
        precision=share("found", "asked"),
        recall=share("found", "due"),
        unasked=pooled([item.asked > item.found for item in scored], [1] * len(scored)),
        text=share("right", "found"),
        result=shares("result"),
        faithful=shares("faithful"),
        cancelled=shares("cancelled"),
    )


def by_variant(scored: Sequence[Delegation]) -> Mapping[str, DelegationScore]:
    """`aggregate` of each variant of the family, of the other conversations, of those families among them in which any
    task was handed over, and of all."""
    variants, others = collections.defaultdict(list), collections.defaultdict(list)
    for item in scored:
        (variants if item.due or item.variant in VARIANTS else others)[item.variant].append(item)
    rows = dict(sorted(variants.items()))
    if others:
        rows[NO_TASK] = sum(others.values(), [])
    for family, items in sorted(others.items()):
        if any(item.asked for item in items):
            rows[f"{NO_TASK}: {family}"] = items
    return {name: aggregate(items) for name, items in {**rows, "all": list(scored)}.items()}


def _heard(turn: MicroTurn) -> float:
    return MICRO_TURN_SECONDS * (turn.index + 1)


def _request(span: str) -> Request | None:
    try:
        return parse_request(span)
    except MalformedError:
        return None


def _request_end(conversation: Conversation, time: float) -> float:
    """When the request was over that a task answers: the latest start of a `respond` cue before it."""
    return max(
        (cue.start for cue in conversation.cues if cue.kind == "respond" and cue.start <= time + 1e-6), default=time
    )


def _reported(turns: Sequence[MicroTurn], start: float) -> list[str]:
    """The numbers and apologies said from a time on, without the filler, which has a number in it."""
    text = " ".join(split_words("".join(turn.text for turn in turns if _heard(turn) >= start)))
    return [word for word in re.sub(rf"\b{FILLER}\b", " ", text).split() if word in _REPORTED]


def _read(turns: Sequence[MicroTurn]) -> list[str]:
    """What the results that the model was given would be spoken as, in their order."""
    pieces: dict[int, list[str]] = collections.defaultdict(list)
    ended = []
    for given in (given for turn in turns for given in turn.given):
        try:
            number, mark, text = parse_result(given)
        except MalformedError:  # of a recording; a desk tags what it gives
            continue
        pieces[number].append(text)
        if mark != Mark.MORE:
            whole = " ".join(pieces.pop(number))  # a refined task has another result
            ended.append(spoken_result("" if mark == Mark.FAILED else whole))
    return ended
