import dataclasses
import math

import numpy as np
import pytest

from tml_jax.data.record import MODEL, USER, Conversation, Cue, Word
from tml_jax.eval import interactivity
from tml_jax.serve.words import MicroTurn


def micro_turn(index, gate, text=""):
    return MicroTurn(
        index=index,
        start=0.2 * index,
        gate="SPEAK" if gate else "LISTEN",
        text=text,
        display="",
        mel=np.zeros((20, 80), np.float32),
        samples=np.zeros(4800, np.float32),
        compute_seconds=0.0,
    )


def question(family="question", answer="it is seven", at=3.0):
    """The user asks until 2.4 s; the answer is heard from `at` for 0.3 s a word."""
    words = [Word(USER, "how", 0.4, 1.0), Word(USER, "many", 1.9, 2.4)]
    said = [Word(MODEL, word, at + 0.3 * i, at + 0.3 * (i + 1)) for i, word in enumerate(answer.split())]
    cues = (Cue("hold", 1.0, 1.8), Cue("respond", at, said[-1].end, answer))
    return Conversation(family, 6.0, words=(*words, *said), cues=cues, family=family)


def interruption():
    """The model counts from 1.0 s; the user interrupts at 3.1 s; it must be silent by 3.9 s and is by 3.6 s."""
    said = [Word(MODEL, str(i), 1.0 + 0.4 * i, 1.4 + 0.4 * i) for i in range(6)] + [Word(MODEL, "6", 3.4, 3.6)]
    cues = (Cue("keep", 1.6, 2.6), Cue("yield", 3.1, 3.9))
    return Conversation("interruption", 6.0, words=tuple(said), cues=cues, family="interruption")


def silence():
    return Conversation("silence", 3.0, words=(Word(USER, "hm", 1.0, 1.4),), family="silence")


def perfect(conversation, delay=0):
    """The record played back, `delay` micro-turns late."""
    count = conversation.micro_turns
    speaks = np.zeros(count, bool)
    pieces = [""] * count
    for word in conversation.words:
        if word.speaker == MODEL:
            first, last = round(word.start / 0.2 + 1e-6 - 0.5), math.ceil(word.end / 0.2 - 1e-6)
            speaks[first - 1 + delay : last - 1 + delay] = True
            pieces[first - 1 + delay] += f" {word.text}"
    return [micro_turn(t, speaks[t], pieces[t]) for t in range(count)]


def constant(conversation, speaks, text=""):
    return [micro_turn(t, speaks, text if t == 0 else "") for t in range(conversation.micro_turns)]


def score(conversations, policy):
    frequency = interactivity.reply_frequency(conversations)
    return interactivity.aggregate([interactivity.measure(item, policy(item), frequency) for item in conversations])


ALL = [question(), interruption(), silence()]


def test_a_perfect_policy_gets_everything_right():
    result = score(ALL, perfect)
    for name in ("gate", "balanced_gate", "words", "keyword", "on_time", "yielded", "kept"):
        assert getattr(result, name).value == 1.0, name
    assert result.take_over.value == 0.0
    assert result.false_start.value == 0.0
    assert result.latency.value == pytest.approx(0.0)
    assert result.silence.value == pytest.approx(0.5)  # interrupted at 3.1 s, silent from 3.6 s


@pytest.mark.parametrize(("delay", "on_time"), [(1, 1.0), (2, 1.0), (3, 0.0)])
def test_a_delayed_policy_shows_its_delay_as_latency(delay, on_time):
    result = score([question()], lambda item: perfect(item, delay))
    assert result.latency.value == pytest.approx(0.2 * delay)
    assert result.on_time.value == on_time
    assert result.words.value == 1.0
    assert result.gate.value == 1 - 2 * delay / 30  # as many micro-turns missed at the start as added at the end


def test_a_policy_that_always_listens_earns_only_the_silent_micro_turns():
    result = score(ALL, lambda item: constant(item, False))
    assert result.balanced_gate.value == 0.5
    assert result.words.value == result.keyword.value == result.on_time.value == 0.0
    assert result.latency.count == 0 and math.isnan(result.latency.value)
    assert result.yielded.value == result.kept.value == 0.0  # it never spoke, so it neither yields nor keeps
    assert result.take_over.value == result.false_start.value == 0.0


def test_a_policy_that_always_speaks_takes_over_and_never_yields():
    result = score(ALL, lambda item: constant(item, True))
    assert result.balanced_gate.value == 0.5
    assert result.take_over.value == result.false_start.value == 1.0
    assert result.on_time.value == 0.0
    assert result.kept.value == 1.0
    assert result.yielded.value == 0.0 and result.silence.count == 0


def test_falling_silent_after_the_deadline_is_not_yielding_but_its_time_counts():
    late = interruption()
    turns = perfect(late)
    turns = [dataclasses.replace(turn, gate="SPEAK") if 4 <= turn.index < 20 else turn for turn in turns]
    result = score([late], lambda item: turns)
    assert result.yielded.value == 0.0
    assert result.silence.value == pytest.approx(4.2 - 3.1)


def test_a_single_micro_turn_of_speech_in_a_hold_is_a_take_over():
    turns = [dataclasses.replace(turn, gate="SPEAK") if turn.index == 6 else turn for turn in perfect(question())]
    assert score([question()], lambda item: turns).take_over.value == 1.0  # heard in 1.4 … 1.6 s, hold 1.0 … 1.8 s


def test_a_reply_that_begins_in_the_micro_turn_where_the_hold_ends_is_no_take_over():
    item = Conversation(
        "edge",
        3.0,
        words=(Word(MODEL, "yes", 1.3, 1.7),),
        cues=(Cue("hold", 0.4, 1.3), Cue("respond", 1.3, 1.7, "yes")),
    )
    turns = [micro_turn(t, 5 <= t < 8, " yes" if t == 5 else "") for t in range(15)]
    result = score([item], lambda _: turns)
    assert result.take_over.value == 0.0
    assert result.latency.value == pytest.approx(-0.1)
    assert result.gate.value == 1.0


@pytest.mark.parametrize(("pause", "kept"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.0), (4, 0.0)])
def test_pausing_for_breath_keeps_and_stopping_does_not(pause, kept):
    turns = perfect(interruption())
    turns = [dataclasses.replace(turn, gate="LISTEN") if 7 <= turn.index < 7 + pause else turn for turn in turns]
    assert score([interruption()], lambda item: turns).kept.value == kept


def counting(until):
    """Counts every 0.6 s from 1.0 s, 0.2 s a number, until micro-turn `until`; the user says stop from 2.4 to 3.1 s."""
    words = (Word(MODEL, "one", 1.0, 1.2), Word(USER, "please", 2.4, 2.7), Word(USER, "stop", 2.8, 3.1))
    item = Conversation("counting", 6.0, words=words, cues=(Cue("yield", 3.1, 3.5),))
    return item, [micro_turn(t, 4 <= t < until and t % 3 == 1) for t in range(30)]


@pytest.mark.parametrize(
    ("until", "yielded", "silence"),
    [
        (14, 1.0, 2.8 + 0.2 - 3.1),  # last number in 2.8 … 3.0 s: silent when the user has finished
        (17, 1.0, 3.4 + 0.2 - 3.1),  # and in 3.4 … 3.6 s, which begins before the deadline of 3.5 s
        (20, 0.0, 4.0 + 0.2 - 3.1),  # one number too many
        (30, 0.0, 5.8 + 0.2 - 3.1),  # counting to the end of the conversation
        (11, 1.0, 2.2 + 0.2 - 3.1),  # stops at once when the user begins
        (8, 0.0, None),  # had stopped by itself at 1.8 s
        (5, 0.0, None),  # and at 1.2 s
        (0, 0.0, None),  # never spoke
    ],
)
def test_a_pause_between_numbers_is_not_yielding(until, yielded, silence):
    item, turns = counting(until)
    result = score([item], lambda _: turns)
    assert result.yielded.value == yielded
    if silence is None:
        assert result.silence.count == 0
    else:
        assert result.silence.value == pytest.approx(silence)


def test_each_respond_cue_is_timed_by_the_first_onset_before_the_next_cue():
    said = (Word(MODEL, "one", 1.0, 1.4), Word(MODEL, "two", 4.0, 4.4))
    item = Conversation("two", 6.0, words=said, cues=(Cue("respond", 1.0, 1.4, "one"), Cue("respond", 4.0, 4.4, "two")))
    turns = [micro_turn(t, t in (20, 21), " two" if t == 20 else "") for t in range(30)]
    measurement = interactivity.measure(item, turns, interactivity.reply_frequency([item]))
    assert measurement.on_time == (False, True)  # the answer to the second is not taken for one to the first
    assert measurement.latencies == pytest.approx((0.2,))
    assert measurement.keywords == (False, True)


@pytest.mark.parametrize(
    ("said", "errors"),
    [("it is seven", 0), ("It is, SEVEN!", 0), ("it is eight", 1), ("it seven", 1), ("well it is seven", 1), ("", 3)],
)
def test_word_errors_are_substitutions_deletions_and_insertions(said, errors):
    words = interactivity.split_words
    assert interactivity.word_errors(words("it is seven"), words(said)) == errors
    assert interactivity.word_errors(words(said), words("it is seven")) == errors


def test_word_errors_agree_with_the_textbook_recursion():
    def recursion(left, right):
        if not left or not right:
            return len(left) + len(right)
        same = left[-1] == right[-1]
        return min(
            recursion(left[:-1], right) + 1,
            recursion(left, right[:-1]) + 1,
            recursion(left[:-1], right[:-1]) + (not same),
        )

    rng = np.random.default_rng(0)
    for _ in range(30):
        left, right = (list(rng.choice(list("abc"), rng.integers(0, 6))) for _ in range(2))
        assert interactivity.word_errors(left, right) == recursion(left, right)


def test_saying_too_much_cannot_make_word_accuracy_negative():
    assert score([question()], lambda item: constant(item, True, " no" * 50)).words.value == 0.0


def test_a_word_split_over_two_micro_turns_is_one_word():
    turns = perfect(question(answer="seven"))
    turns[14] = dataclasses.replace(turns[14], text=" sev")
    turns[15] = dataclasses.replace(turns[15], text="en")
    assert score([question(answer="seven")], lambda item: [*turns[:14], turns[14], *turns[15:]]).words.value == 1.0


def test_a_stock_phrase_does_not_earn_the_keyword():
    items = [question(family=word, answer=f"it is {word}") for word in ("seven", "eight", "nine")]
    result = score(items, lambda item: perfect(question(answer="it is seven")))
    assert result.keyword.value == pytest.approx(1 / 3)
    assert result.words.value == pytest.approx(7 / 9)


def test_intervals_hold_the_figure_narrow_with_more_cases_and_repeat_with_the_seed():
    def mixed(count):
        items = [question(family=str(i)) for i in range(count)]
        frequency = interactivity.reply_frequency(items)
        return [interactivity.measure(item, perfect(item, 3 * (i % 2)), frequency) for i, item in enumerate(items)]

    few, many = (interactivity.aggregate(mixed(count)).on_time for count in (8, 80))
    assert few.value == many.value == 0.5
    assert few.low < many.low < 0.5 < many.high < few.high
    repeated = [interactivity.aggregate(mixed(33), seed=seed, resamples=99).gate for seed in (3, 3, 4)]
    assert repeated[0] == repeated[1] != repeated[2]
    assert many.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / 80), abs=0.03)  # the binomial interval


def test_the_median_latency_is_the_median():
    items = [question(family=str(delay)) for delay in range(5)]
    frequency = interactivity.reply_frequency(items)
    measurements = [interactivity.measure(item, perfect(item, delay), frequency) for delay, item in enumerate(items)]
    assert interactivity.aggregate(measurements).latency.value == pytest.approx(0.4)
    assert interactivity.aggregate(measurements[:4]).latency.value == pytest.approx(0.3)


def test_families_are_scored_apart_and_together():
    frequency = interactivity.reply_frequency(ALL)
    scores = interactivity.by_family([interactivity.measure(item, perfect(item), frequency) for item in ALL])
    assert list(scores) == ["interruption", "question", "silence", "all"]
    assert scores["question"].kept.count == 0 and scores["interruption"].kept.count == 1
    assert scores["all"].conversations == 3


def test_the_table_shows_undefined_figures_as_dashes_and_leaves_out_empty_columns():
    rows = {"perfect": score([question()], perfect), "silent": score([question()], lambda item: constant(item, False))}
    lines = interactivity.table(rows).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "latency" in lines[0] and "kept" not in lines[0] and "false start" not in lines[0]
    assert "100.0% (100.0–100.0)" in lines[2] and "0.00 s" in lines[2]
    assert "| – |" in lines[3]


def test_an_incomplete_stream_is_refused():
    with pytest.raises(ValueError, match="30 micro-turns, got 7"):
        interactivity.measure(question(), perfect(question())[:7], {})
    with pytest.raises(ValueError, match="no measurements"):
        interactivity.aggregate([])
