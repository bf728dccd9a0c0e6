"""Scenes with tasks for the background: written as the grammar has it, read as a session's desk gives it."""

import dataclasses

import numpy as np
import pytest

from configs import replica
from tml_jax.background.calculator import calculate
from tml_jax.background.grammar import Action, parse_request, parse_result, request_text
from tml_jax.config import MICRO_TURN_SECONDS, from_mapping
from tml_jax.data.layout import control_token, layout, layout_sizes
from tml_jax.data.packing import capacities
from tml_jax.data.record import BACKGROUND, MODEL, TASK, USER
from tml_jax.data.tokenizer import train_tokenizer
from tml_jax.eval.baselines import as_recorded
from tml_jax.eval.delegation import aggregate, by_variant, desk_of, planned, rehearse, score_delegation
from tml_jax.eval.streaming import user_side
from tml_jax.scenes import delegation, scripts
from tml_jax.scenes.families import make_scene
from tml_jax.scenes.voices import Synthesizer
from tml_jax.serve.words import Span
from tml_jax.tokens import Control

CONFIG = from_mapping(replica.get_config())
EACH = 30
RESULT = control_token(Control.FROM_BACKGROUND, CONFIG.model)


@pytest.fixture(scope="module")
def records():
    synthesizer = Synthesizer()
    return [
        make_scene(synthesizer, f"{split}{index}", np.random.default_rng([3, index]), split, "delegation")
        for split in (scripts.TRAIN, scripts.HELD_OUT)
        for index in range(EACH)
    ]


@pytest.fixture(scope="module")
def vocabulary(records):
    """A tokenizer as a run makes it."""
    texts = [item.text for record in records for item in (*record.words, *record.texts)]
    return train_tokenizer(texts, CONFIG.model.text_vocab_size)


def texts(record, speaker):
    return [text for text in record.texts if text.speaker == speaker]


def test_every_variant_is_played_and_what_they_say_is_said_in_one_split_alone(records):
    assert {record.meta["variant"] for record in records} == set(delegation.VARIANTS)
    for table in (delegation.NONSENSE, delegation.FAILURES):
        assert not set(table[scripts.TRAIN]) & set(table[scripts.HELD_OUT])


def test_tasks_are_the_sums_that_were_asked_for_once_they_were_heard(records):
    for record in records:
        asked = [parse_request(text.text) for text in texts(record, MODEL)]
        sums = [request for request in asked if request.action != Action.CANCEL]
        assert [request_text(request) for request in sums] == [task.text for task in planned(record)]
        heard = " ".join(item.text for item in (*record.words, *record.texts) if item.speaker == USER)
        for request in sums:
            assert request.text in heard or in_words(request.text) in heard
        for text in texts(record, MODEL):
            before = [word.end for word in record.words if word.speaker == USER and word.end < text.time]
            before += [typed.time for typed in texts(record, USER)]
            # Nothing is known before the micro-turn is over in which the last word ended.
            assert text.kind == TASK and np.floor(text.time / 0.2) > np.floor(max(before) / 0.2)
        refined = [request for request in asked if request.action == Action.REFINE]
        assert len(refined) == (record.meta["variant"] == "refined") and all(each.number == 1 for each in refined)
        stopped = [request for request in asked if request.action == Action.CANCEL]
        assert len(stopped) == (record.meta["variant"] == "cancelled")


def in_words(task):
    """Such as "three plus four"."""
    first, sign, second = task.split()
    spoken = {value: word for word, value in delegation.SIGNS.items()}
    return f"{scripts.NUMBERS[int(first) - 1]} {spoken[sign]} {scripts.NUMBERS[int(second) - 1]}"


def test_some_sums_are_typed_in_words_or_figures_and_read_before_they_are_handed_over(records, vocabulary):
    typed = [record for record in records if record.meta.get("typed")]
    assert len(typed) >= 4 and {bool(record.user_audio is None) for record in typed} == {True, False}
    assert len({any(character.isdigit() for character in texts(record, USER)[0].text) for record in typed}) == 2
    for record in typed:
        assert len(texts(record, USER)) == 1 and not [word for word in record.words if word.speaker == USER]
        plan = layout(record, vocabulary, CONFIG)
        read = [turn for turn, tokens in enumerate(plan.text_in) if tokens and RESULT not in tokens]
        wrote = next(turn for turn, tokens in enumerate(plan.text_out) if tokens)
        came = next(turn for turn, tokens in enumerate(plan.text_in) if RESULT in tokens)
        assert max(turn for turn in read if turn < came) <= wrote  # a micro-turn takes in before it puts out


def test_a_refined_task_has_the_new_sums_result_alone(records):
    for record in (record for record in records if record.meta["variant"] == "refined"):
        first, second = planned(record)
        assert not first.due and first.text != second.text.removeprefix("#1 ")
        (text,) = texts(record, BACKGROUND)
        assert text.text == f"#1. {calculate(second.text.removeprefix('#1 '))}"
        said = [word.text for word in record.words if word.speaker == MODEL]
        assert said == [*delegation.FILLER.split() * 2, second.due]


def test_a_second_sum_comes_before_the_first_is_done_or_after_it(records):
    gone_on = set()
    for record in records:
        if (variant := record.meta["variant"]) not in ("followed", "again"):
            continue
        tasks = texts(record, MODEL)
        assert [parse_request(text.text).action for text in tasks] == [Action.NEW] * 2
        first, second = (text.time for text in texts(record, BACKGROUND))
        spoken = [word.start for word in record.words if word.speaker == USER and word.start > tasks[0].time]
        assert tasks[0].time < first < second and tasks[1].time < second
        assert (min(spoken) > first) == (variant == "again"), record.id
        gone_on.add(variant)
    assert gone_on == {"followed", "again"}


def test_near_misses_ask_for_no_sum_and_are_answered_or_passed_over(records):
    found = [record for record in records if record.meta["variant"] == "near_miss"]
    assert {bool([word for word in record.words if word.speaker == MODEL]) for record in found} == {True, False}
    for record in found:
        said = [word.text for word in record.words if word.speaker == MODEL]
        assert not texts(record, MODEL) and not planned(record)
        assert said == ([record.meta["keyword"]] if "keyword" in record.meta else [])


def test_the_result_is_read_before_it_is_spoken_and_is_the_sums_or_an_apology(records):
    for record in records:
        said = [word for word in record.words if word.speaker == MODEL]
        due = [task for task in planned(record) if task.due]
        for text, task in zip(texts(record, BACKGROUND), due, strict=True):
            _, _, result = parse_result(text.text)
            assert result == (task.result if task.faulty else calculate(parse_request(task.text).text))
            assert task.due == ("sorry" if task.faulty else scripts.NUMBERS[int(result) - 1])
            # Two micro-turns take it in, and the next is the first that knows it.
            spoken = [word.start for word in said if word.text == task.due and word.start > text.time]
            assert spoken and spoken[0] / 0.2 >= np.floor(text.time / 0.2) + 2 - 1e-6
        if record.meta["variant"] == "cancelled":
            assert not texts(record, BACKGROUND) and said[-1].text == "okay"


def test_what_comes_meanwhile_comes_first(records):
    for record in (record for record in records if record.meta["variant"] == "moved_on"):
        said = [word.text for word in record.words if word.speaker == MODEL]
        assert said == ["one", "moment", record.meta["keyword"], planned(record)[0].due]


def test_scenes_fit_a_row_and_the_sessions_of_the_replica(records, vocabulary):
    for record in records:
        plan = layout(record, vocabulary, CONFIG)
        sizes = layout_sizes(plan)
        assert (sizes <= capacities(CONFIG.data.packing)).all() and sizes[0] <= CONFIG.serve.context
        assert plan.cut == 0


def replayed(record, tokenizer):
    """The record's own model side, with a desk in the loop: what it took in, and what it put out."""
    desk = desk_of(record, tokenizer, CONFIG)
    turns, taken = [], []
    for arrived, turn in zip(rehearse(desk, user_side(record, record.micro_turns)), as_recorded(record), strict=True):
        taken.append(arrived)
        turns.append(desk.put_out(dataclasses.replace(turn, given=())))
    return taken, turns


def test_training_reads_results_token_for_token_as_a_desk_gives_them(records, vocabulary):
    """But for the micro-turn in which they begin: the task of the record may be a micro-turn early or late."""
    for record in records:
        taken, _ = replayed(record, vocabulary)
        live = [tuple(arrived.results) for arrived in taken if arrived.results]
        laid = [tuple(tokens) for tokens in layout(record, vocabulary, CONFIG).text_in if tokens]
        laid = laid[
            next((at for at, tokens in enumerate(laid) if RESULT in tokens), len(laid)) :
        ]  # after what is typed
        assert live == laid and len(live) >= len(texts(record, BACKGROUND))


def test_results_come_when_the_record_has_them(records, vocabulary):
    for record in records:
        taken, _ = replayed(record, vocabulary)
        came = [index for index, arrived in enumerate(taken) if RESULT in arrived.results]
        due = [int(text.time / MICRO_TURN_SECONDS + 1e-6) for text in texts(record, BACKGROUND)]
        assert len(came) == len(due) and np.abs(np.subtract(came, due)).max(initial=0) <= 1, record.meta


def test_a_model_that_does_as_recorded_scores_in_full(records, vocabulary):
    score = aggregate([score_delegation(record, replayed(record, vocabulary)[1]) for record in records])
    for name in ("precision", "recall", "text", "result", "faithful", "cancelled"):
        assert getattr(score, name).value == 1.0, name
    assert score.conversations == 2 * EACH and score.recall.count == sum(len(planned(record)) for record in records)


def spoil(record, tokenizer, **changes):
    """The score of a record's own side with something changed: `spans` or `text` of micro-turns, by their index."""
    desk, turns = desk_of(record, tokenizer, CONFIG), []
    windows = rehearse(desk, user_side(record, record.micro_turns))
    for _, turn in zip(windows, as_recorded(record), strict=True):
        changed = {name: change(turn) for name, change in changes.items()}
        turns.append(desk.put_out(dataclasses.replace(turn, **changed)))
    return score_delegation(record, turns)


def only(records, variant):
    return next(rec for rec in records if rec.meta["variant"] == variant and not rec.meta.get("typed"))


def test_a_wrong_task_is_found_but_not_right_and_its_result_is_not_the_one_due(records, vocabulary):
    record = only(records, "usual")
    wrong = "4 + 4" if planned(record)[0].text != "4 + 4" else "1 + 1"
    score = spoil(record, vocabulary, spans=lambda turn: tuple(Span(wrong) for _ in turn.spans))
    assert (score.found, score.asked, score.right) == (1, 1, 0)
    assert score.result == (True,)  # it still says what the record says
    assert score.faithful == (planned(record)[0].due == delegation.spoken_result(calculate(wrong)),)


def test_tasks_that_are_missed_early_or_not_due_are_told_apart(records, vocabulary):
    record = only(records, "usual")
    missed = spoil(record, vocabulary, spans=lambda turn: ())
    assert (missed.due, missed.asked, missed.found, missed.faithful) == (1, 0, 0, ())
    early = spoil(record, vocabulary, spans=lambda turn: (Span(planned(record)[0].text),) * (turn.index == 0))
    assert (early.asked, early.found) == (1, 0)
    twice = spoil(record, vocabulary, spans=lambda turn: turn.spans * 2 + (Span("#3"),) * len(turn.spans))
    assert (twice.asked, twice.found, twice.right) == (3, 1, 1)
    table = by_variant([missed, early, twice])
    assert table["all"].precision.value == pytest.approx(1 / 4) and table["all"].recall.value == pytest.approx(1 / 3)


def test_numbers_that_are_not_due_spoil_the_result(records, vocabulary):
    record = only(records, "moved_on")
    said = spoil(record, vocabulary, text=lambda turn: turn.text + " four" * (turn.index == record.micro_turns - 1))
    assert said.result == (False,) and said.faithful == (False,)
    assert spoil(record, vocabulary).result == (True,)


def test_a_cancellation_that_is_not_written_lets_the_result_come(records, vocabulary):
    record = only(records, "cancelled")
    kept = lambda turn: tuple(span for span in turn.spans if "stop" not in span.text)  # noqa: E731
    score = spoil(record, vocabulary, spans=kept)
    assert score.cancelled == (False,) and score.faithful == (False,) and score.result == (True,)


def test_a_refinement_that_is_not_written_or_asked_as_new_is_told_apart(records, vocabulary):
    record = only(records, "refined")
    kept = lambda turn: tuple(span for span in turn.spans if "#1" not in span.text)  # noqa: E731
    score = spoil(record, vocabulary, spans=kept)
    assert (score.due, score.asked, score.found) == (2, 1, 1) and score.faithful != (True,)
    anew = lambda turn: tuple(Span(span.text.removeprefix("#1 ")) for span in turn.spans)  # noqa: E731
    score = spoil(record, vocabulary, spans=anew)
    assert (score.due, score.asked, score.found) == (2, 2, 1) and score.faithful == (False,)


def test_a_task_in_a_near_miss_is_false(records, vocabulary):
    record = only(records, "near_miss")
    score = spoil(record, vocabulary, spans=lambda turn: (Span("3 + 4"),) * (turn.index == record.micro_turns - 3))
    assert (score.due, score.asked, score.found) == (0, 1, 0)
    right = spoil(record, vocabulary)
    elsewhere = dataclasses.replace(score, variant="answer")
    table = by_variant([score, right, elsewhere, dataclasses.replace(right, variant="silence")])
    assert list(table) == ["near_miss", "no task due", "no task due: answer", "all"]
    assert [row.unasked.value for row in table.values()] == [0.5, 0.5, 1.0, 0.5]
