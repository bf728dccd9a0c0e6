"""Interactivity metrics: does the model speak the right words, at the right time, and keep quiet otherwise?

A conversation's record says what was due (words, cues, reference gates); the streamed micro-turns say what the model
did. `measure` compares the two for one conversation, `aggregate` sums up a set of them with bootstrap intervals.

Time. What micro-turn t puts out is heard from 0.2 (t + 1) s on, its *heard time*. An *onset* is a SPEAK micro-turn
that follows a LISTEN one (or is the first). All times below are heard times.

Metrics. A metric for which a set of conversations has no case is undefined (NaN, printed as a dash).

- gate: share of micro-turns whose gate equals the reference gate. Balanced: mean of that share over micro-turns with
  reference LISTEN and over those with reference SPEAK, where they occur.
- words: 1 − word error rate, not below 0. Word errors of all spoken text of a conversation against all words due (the
  texts of its `respond` cues, or the model's words in the record if it has no such cue), pooled over conversations
  with words due.
- keyword: share of `respond` cues whose keyword was said from the cue until the next. The keyword of a reply is its
  rarest word among all replies of the scored set, so that a stock phrase does not earn it.
- on time, latency: for each `respond` cue, the first onset from 0.2 s before the cue until 0.2 s before the next such
  cue, or until half-way between the recorded replies where the first has not begun by then. Latency is that onset
  minus the cue's start (negative within the micro-turn that the cue falls into, and never clamped). On time: within
  0.4 s of the onset of the reference gates; no onset is not on time. Latency is the median over cues that were
  answered, so read it beside the share on time. Cues at which the reference does not begin to speak (it speaks
  already) are left out.
- timely: on time, the words due and no others until the next cue (of a reply that may be cut short, its first), and the
  first of them written within 0.4 s and a micro-turn of the onset of the reference.
- take-over: share of `hold` cues during which the model spoke, judged on micro-turns that lie wholly inside.
- stop: a silence of more than 0.4 s, or one that lasts to the end; shorter ones are pauses, as between numbers when
  counting. `yield` and `keep` are judged by stops.
- yielded, silence: share of `yield` cues for which the model stopped, at the latest with the first micro-turn that
  begins at or after the cue's end. A model that had been silent since more than 0.4 s before the user's interrupting
  words (those that lead up to the cue; else before the cue) had nothing to yield, which counts as not yielded.
  Silence is the median time from the cue's start to the stop, in time or late, negative for a stop before the cue.
- kept: share of `keep` cues during which the model spoke and did not stop, judged on micro-turns wholly inside.
- false start: share of conversations with an all-silent reference in which the model spoke at all.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.layout import gates
from tml_jax.data.record import MODEL, USER, Conversation, Cue
from tml_jax.eval.activity import (
    EPSILON,
    PAUSE_SECONDS,
    Activity,
    first_onset,
    inside,
    kept,
    of_gates,
    of_sound,
    stop,
    stopped_in_time,
)
from tml_jax.eval.baselines import output_windows
from tml_jax.eval.estimates import Estimate, estimate, medians, ratio, resample_weights
from tml_jax.eval.suites.numbers import numbers_said
from tml_jax.markdown import markdown_table

if TYPE_CHECKING:
    from tml_jax.serve.words import MicroTurn

EARLY_SECONDS = 0.2  # an onset up to this long before a cue answers it: one micro-turn, the grid of the gates
ON_TIME_SECONDS = 0.4
NEVER_SECONDS = 10.0  # what a reply that never comes counts as


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was observed in one conversation. Tuples hold one entry for each cue that the metric judges.

    Attributes:
      id: of the conversation.
      family: of the conversation.
      gate_counts: micro-turns by (reference SPEAK, gate SPEAK): ((listened rightly, spoke wrongly), (listened
        wrongly, spoke rightly)).
      word_errors: substitutions, deletions and insertions; 0 where no words are due.
      words_due: number of words due.
      keywords: whether the keyword was said.
      on_time: whether the reply began on time.
      latencies: seconds, of the answered `respond` cues.
      take_overs: whether the model spoke during a `hold`.
      yields: whether it had been speaking at a `yield` and stopped in time.
      silences: seconds from a `yield` to the stop, where there was one.
      keeps: whether it spoke throughout a `keep`.
      false_starts: one entry if no speech was due: whether the model spoke.
      timely: whether the reply began on time and said what was due and nothing else, see the head of this file.
      responses: seconds from the end of what the user said to the reply, `NEVER_SECONDS` without one.
      counts: one entry if numbers are due and nobody cuts them short: the last one due, and the last one said, or None
        where none was said once something was to be counted.
      sounding: micro-turns whose gate is SPEAK, and those of them that have sound.
    """

    id: str
    family: str
    gate_counts: tuple[tuple[int, int], tuple[int, int]]
    word_errors: int
    words_due: int
    keywords: tuple[bool, ...]
    on_time: tuple[bool, ...]
    latencies: tuple[float, ...]
    take_overs: tuple[bool, ...]
    yields: tuple[bool, ...]
    silences: tuple[float, ...]
    keeps: tuple[bool, ...]
    false_starts: tuple[bool, ...]
    timely: tuple[bool, ...]
    responses: tuple[float, ...]
    counts: tuple[tuple[int, int | None], ...]
    sounding: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Score:
    """The metrics of a set of conversations, as the head of this file defines them. Shares lie in 0 … 1."""

    conversations: int
    gate: Estimate
    balanced_gate: Estimate
    words: Estimate
    keyword: Estimate
    on_time: Estimate
    latency: Estimate
    take_over: Estimate
    yielded: Estimate
    silence: Estimate
    kept: Estimate
    false_start: Estimate


def split_words(text: str) -> list[str]:
    """The words of `text` as they are compared: lower case, without punctuation other than apostrophes."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("’", "'"))


def word_errors(reference: Sequence[str], said: Sequence[str]) -> int:
    """Levenshtein distance between two lists of words: the numerator of the word error rate."""
    row = np.arange(len(said) + 1)
    for count, word in enumerate(reference, start=1):
        differs = np.asarray([word != other for other in said], np.int64)
        kept_or_changed = np.minimum(row[:-1] + differs, row[1:] + 1)
        # An insertion costs 1 from the cell to the left: a running minimum once each column's own cost is taken off.
        columns = np.arange(len(said) + 1)
        row = np.minimum.accumulate(np.concatenate([[count], kept_or_changed]) - columns) + columns
    return int(row[-1])


def reply_frequency(conversations: Iterable[Conversation]) -> Mapping[str, int]:
    """In how many `respond` texts of `conversations` each word occurs; the rarest word of a reply is its keyword."""
    frequency: collections.Counter[str] = collections.Counter()
    for conversation in conversations:
        for cue in _cues(conversation, "respond"):
            frequency.update(set(split_words(cue.text)))
    return frequency


def measure(
    conversation: Conversation, micro_turns: Sequence["MicroTurn"], frequency: Mapping[str, int], sound: bool = False
) -> Measurement:
    """Compares what the model did with what was due.

    Args:
      conversation: the record, with cues and model words.
      micro_turns: what the model put out, in order; those past the end of the conversation are not judged.
      frequency: `reply_frequency` of the whole scored set.
      sound: both sides speak when they are heard (`activity.of_sound`) and to 10 ms, whatever their gates say, and a
        reply may begin 0.4 s early. `gate_counts` are those of the gates all the same.

    Returns:
      The observations, which `aggregate` sums up.

    Raises:
      ValueError: there are fewer micro-turns than the conversation has, or they are out of order.
    """
    count = conversation.micro_turns
    micro_turns = micro_turns[:count]
    if [turn.index for turn in micro_turns] != list(range(count)):
        raise ValueError(
            f"conversation {conversation.id!r} has {count} micro-turns, got {len(micro_turns)} "
            f"({[turn.index for turn in micro_turns[:3]]}, …): stream the whole conversation, in order from 0"
        )
    due_gates = np.asarray(gates(conversation), bool)
    speak = np.asarray([turn.gate == "SPEAK" for turn in micro_turns], bool)
    heard = of_sound(np.stack([turn.samples for turn in micro_turns]))
    recorded = output_windows(conversation, 1, count) * due_gates[:, None]
    reference = of_sound(recorded) if sound else of_gates(due_gates)
    spoke, early = (heard, ON_TIME_SECONDS) if sound else (of_gates(speak), EARLY_SECONDS)
    pieces = [turn.text for turn in micro_turns]

    responds, cut_short = _cues(conversation, "respond"), bool(_cues(conversation, "yield"))
    typed = {text.time for text in conversation.texts if text.speaker == USER}
    due = [word for cue in responds for word in split_words(cue.text)]
    if not responds:
        due = [part for word in conversation.words if word.speaker == MODEL for part in split_words(word.text)]
    keywords, on_time, latencies, timely, responses = [], [], [], [], []
    starts = _reply_windows(conversation, responds, early)
    for cue, start, until in zip(responds, starts, [*starts[1:], np.inf]):
        wanted, written = split_words(cue.text), _written(pieces, spoke, start, until)
        said = split_words("".join(piece for _, piece in written))
        if wanted:
            # Ties go to the last word: English sentences end on what is new.
            keyword = min(reversed(wanted), key=lambda word: frequency.get(word, 0))
            keywords.append(keyword in said)
        expected = first_onset(reference, start, until)
        if expected is None:
            continue
        onset = first_onset(spoke, start, until)
        on_time.append(onset is not None and abs(onset - expected) <= ON_TIME_SECONDS + EPSILON)
        if onset is not None:
            latencies.append(onset - cue.start)
        if wanted:
            in_place = bool(written) and abs(written[0][0] - expected) <= ON_TIME_SECONDS + MICRO_TURN_SECONDS + EPSILON
            timely.append(
                on_time[-1] and bool(in_place) and _says(said, wanted[:1] if cut_short else wanted, cut_short)
            )
        if cue.start not in typed:
            responses.append(NEVER_SECONDS if onset is None else onset - cue.start)

    yields, silences = [], []
    for cue in _cues(conversation, "yield"):
        silence = stop(spoke, cue, _interrupted(conversation, cue) - PAUSE_SECONDS)
        yields.append(stopped_in_time(silence, spoke, cue))
        if silence is not None:
            silences.append(silence)

    holds = [inside(spoke, cue).active for cue in _cues(conversation, "hold")]
    confusion = tuple(
        tuple(int(np.sum((due_gates == wanted) & (speak == got))) for got in (False, True)) for wanted in (False, True)
    )
    return Measurement(
        id=conversation.id,
        family=conversation.family,
        gate_counts=confusion,
        word_errors=word_errors(due, split_words("".join(pieces))) if due else 0,
        words_due=len(due),
        keywords=tuple(keywords),
        on_time=tuple(on_time),
        latencies=tuple(latencies),
        take_overs=tuple(bool(during.any()) for during in holds if during.size),
        yields=tuple(yields),
        silences=tuple(silences),
        keeps=tuple(kept(spoke, cue) for cue in _cues(conversation, "keep")),
        false_starts=() if reference.active.any() else (bool(spoke.active.any()),),
        timely=tuple(timely),
        responses=tuple(responses),
        counts=() if cut_short else _counts(responds, _written(pieces, spoke, starts[0] if starts else 0.0, np.inf)),
        sounding=(int(speak.sum()), int((speak & heard.active).sum())),
    )


def aggregate(measurements: Sequence[Measurement], seed: int = 0, resamples: int = 1000) -> Score:
    """Sums up a set of conversations.

    Args:
      measurements: at least one.
      seed: of the bootstrap, which draws whole conversations.
      resamples: of the bootstrap.

    Returns:
      The metrics with percentile intervals at 95%.

    Raises:
      ValueError: there is nothing to sum up.
    """
    if not measurements:
        raise ValueError("no measurements to aggregate: measure at least one conversation")
    total = len(measurements)
    weights = resample_weights(total, seed, resamples)

    def share(cases: str) -> Estimate:
        rows = [getattr(measurement, cases) for measurement in measurements]
        hits = np.asarray([sum(row) for row in rows])
        counts = np.asarray([len(row) for row in rows])
        return estimate(ratio(weights @ hits, weights @ counts), int(counts.sum()))

    def median(cases: str) -> Estimate:
        rows = [getattr(measurement, cases) for measurement in measurements]
        owner = np.repeat(np.arange(total), [len(row) for row in rows])
        return estimate(medians(np.asarray([value for row in rows for value in row]), weights[:, owner]), len(owner))

    confusion = np.asarray([measurement.gate_counts for measurement in measurements])  # (conversations, 2, 2)
    counts = np.einsum("rc,cij->rij", weights, confusion)
    right = np.einsum("rii->ri", counts)
    recall = ratio(right, counts.sum(axis=2))
    defined = ~np.isnan(recall)
    balanced = ratio(np.where(defined, recall, 0).sum(axis=1), defined.sum(axis=1))

    errors = weights @ np.asarray([measurement.word_errors for measurement in measurements])
    due = weights @ np.asarray([measurement.words_due for measurement in measurements])
    return Score(
        conversations=total,
        gate=estimate(ratio(right.sum(axis=1), counts.sum(axis=(1, 2))), int(confusion.sum())),
        balanced_gate=estimate(balanced, int(confusion.sum())),
        words=estimate(np.maximum(1 - ratio(errors, due), 0), int(due[0])),
        keyword=share("keywords"),
        on_time=share("on_time"),
        latency=median("latencies"),
        take_over=share("take_overs"),
        yielded=share("yields"),
        silence=median("silences"),
        kept=share("keeps"),
        false_start=share("false_starts"),
    )


def by_family(measurements: Sequence[Measurement], seed: int = 0, resamples: int = 1000) -> dict[str, Score]:
    """`aggregate` of each family, in alphabetical order, and of all conversations, under `all`."""
    families = sorted({measurement.family for measurement in measurements})
    rows = {name: [item for item in measurements if item.family == name] for name in families}
    return {name: aggregate(items, seed, resamples) for name, items in {**rows, "all": list(measurements)}.items()}


def table(rows: Mapping[str, Any]) -> str:
    """A Markdown table, a row for each score; columns undefined in every row are left out.

    Args:
      rows: name of the row → score: a dataclass of `conversations` and of estimates.

    Returns:
      The table, cells such as `97% (95–99)` or `0.20 s (0.15–0.25)`, ending with a newline.
    """
    kind = type(next(iter(rows.values())))
    fields = [field.name for field in dataclasses.fields(kind) if field.name != "conversations"]
    fields = [name for name in fields if any(getattr(score, name).count for score in rows.values())]
    lines = [["", "conversations", *(name.replace("_", " ") for name in fields)]]
    for name, score in rows.items():
        cells = [_cell(getattr(score, field), seconds=field in ("latency", "silence")) for field in fields]
        lines.append([name, score.conversations, *cells])
    return markdown_table(lines, left=1)


def _cues(conversation: Conversation, kind: str) -> list[Cue]:
    return sorted((cue for cue in conversation.cues if cue.kind == kind), key=lambda cue: cue.start)


def _reply_windows(conversation: Conversation, responds: Sequence[Cue], early: float) -> list[float]:
    """From when on what the model says answers each cue: `early` seconds before it.

    Where the recorded reply to the cue before has not begun by then, from half-way between the two replies on.
    """
    said = sorted(word.start for word in conversation.words if word.speaker == MODEL)
    replies = [next((start for start in said if start >= cue.start - EPSILON), cue.start) for cue in responds]
    starts = [cue.start - early for cue in responds]
    for index in range(1, len(responds)):
        if replies[index - 1] > starts[index] - EPSILON:
            starts[index] = (replies[index - 1] + replies[index]) / 2
    return starts


def _written(pieces: Sequence[str], side: Activity, start: float, end: float) -> list[tuple[float, str]]:
    """The text between two times, (seconds at which its micro-turn is heard, piece) where there is any."""
    return [
        (time, piece) for piece, time in zip(pieces, side.heard) if piece and start - EPSILON <= time < end - EPSILON
    ]


def _says(said: Sequence[str], wanted: Sequence[str], cut_short: bool) -> bool:
    """Whether a reply says the words due and no other; where the user may cut it short, whether it begins with them."""
    return list(said[: len(wanted)] if cut_short else said) == list(wanted)


def _counts(responds: Sequence[Cue], written: Sequence[tuple[float, str]]) -> tuple[tuple[int, int | None], ...]:
    """The last number due and the last one said, where numbers are due."""
    wanted = numbers_said(" ".join(cue.text for cue in responds))
    said = numbers_said("".join(piece for _, piece in written))
    return ((wanted[-1], said[-1] if said else None),) if wanted else ()


def _interrupted(conversation: Conversation, cue: Cue) -> float:
    """When the user's words begin that a `yield` cue ends; its start, where none lead up to it."""
    begins = cue.start
    words = [word for word in conversation.words if word.speaker == USER and word.start < cue.start]
    for word in sorted(words, key=lambda word: word.start, reverse=True):
        if word.end < begins - PAUSE_SECONDS:
            break
        begins = word.start
    return begins


def _cell(estimate: Estimate, seconds: bool) -> str:
    if estimate.count == 0:
        return "–"
    if seconds:
        return f"{estimate.value:.2f} s ({estimate.low:.2f} to {estimate.high:.2f})"
    value, low, high = 100 * estimate.value, 100 * estimate.low, 100 * estimate.high
    return f"{value:.1f}% ({low:.1f}–{high:.1f})"
