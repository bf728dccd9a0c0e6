"""The figures of the suite `interactivity` on scenes made by hand: what reaches a target, and what breaks one."""

import dataclasses

import numpy as np
import pytest
from by_hand import figures, late, results, scenes, seen, silent, soundless, verdicts

from tml_jax.data.record import Cue
from tml_jax.eval import baselines
from tml_jax.eval.abilities.aims import ABILITIES, collapses, figure, passed
from tml_jax.eval.abilities.report import write_report
from tml_jax.eval.estimates import Estimate, estimate, for_few_groups, resample_groups
from tml_jax.eval.interactivity import NEVER_SECONDS


def test_the_record_itself_reaches_every_target():
    observed = seen(baselines.as_recorded, scenes())
    assert set(verdicts(observed).values()) == {True}
    assert [item.family for item in observed if not passed(item)] == []


@pytest.mark.parametrize("player", [silent, soundless])
def test_who_is_not_heard_reaches_nothing_but_what_silence_is(player):
    found = verdicts(seen(player, scenes()))
    reached = {name for name, ok in found.items() if ok}
    written = {"recall", "precision, over all scenes", "repetitions, off by one at most"}  # judged by text alone
    assert reached == {"takes over in a pause"} | (written if player is soundless else set())
    response = next(aim for ability in ABILITIES for aim in ability.aims if aim.name == "time to the reply")
    assert figure(response, seen(player, scenes()), resamples=1).value == NEVER_SECONDS


def test_being_late_breaks_what_is_due_in_time():
    found = verdicts(seen(late(3), scenes()))
    broken = {name for name, ok in found.items() if not ok}
    assert {"time to the reply", "yields to an interruption within 0.4 s", "right word at the cue"} <= broken
    assert found["repetitions, off by one at most"]


def test_a_stop_before_the_user_interrupts_is_no_yielding():
    item = next(each for each in scenes() if each.family == "interruption")
    turns = [turn if turn.index < 9 else quiet for turn, quiet in zip(late(0)(item), silent(item))]  # silent from 2.0 s
    assert seen(lambda each: turns, [item])[0].measured.yields == (False,)


def test_the_wrong_word_in_time_is_not_right():
    items = [each for each in scenes() if each.family in ("timed", "cue")]
    wrong = lambda each: [  # noqa: E731
        dataclasses.replace(turn, text=turn.text.replace("window", "garden")) for turn in baselines.as_recorded(each)
    ]
    observed = seen(wrong, items)
    assert [(item.measured.on_time, item.measured.timely) for item in observed] == [((True,), (False,))] * 2


def test_a_reply_in_time_is_not_right_after_something_was_said_too_early():
    waiting = [each for each in scenes() if each.family in ("timed", "cue", "visual")]

    def hasty(conversation):
        turns = baselines.as_recorded(conversation)
        hold = next(cue for cue in conversation.cues if cue.kind == "hold")
        speaks = next(turn for turn in turns if turn.gate == "SPEAK")
        index = round(hold.start / 0.2)  # heard in the window after it
        turns[index] = dataclasses.replace(speaks, index=index, start=0.2 * index, text="")
        return turns

    names = ("right word after so many seconds", "right word at the cue", "right word when it appears")
    kept, broken = verdicts(seen(baselines.as_recorded, waiting)), verdicts(seen(hasty, waiting))
    assert [kept[name] for name in names] == [True] * 3 and [broken[name] for name in names] == [False] * 3


@pytest.mark.parametrize("family", ["timed", "cue", "visual"])
@pytest.mark.parametrize("what", ["late word", "more words"])
def test_the_word_must_come_with_the_reply_and_no_other_beside_it(family, what):
    (asked,) = [each for each in scenes() if each.family == family]

    def play(conversation):
        turns = baselines.as_recorded(conversation)
        at = next(turn.index for turn in turns if turn.text)
        word = turns[at].text
        if what == "late word":
            turns[at] = dataclasses.replace(turns[at], text="")
            turns[-1] = dataclasses.replace(turns[-1], text=word)
        else:
            turns[at] = dataclasses.replace(turns[at], text=f"{word} tiger ball river")
        return turns

    assert seen(baselines.as_recorded, [asked])[0].measured.timely == (True,)
    (found,) = seen(play, [asked])
    assert found.measured.on_time == (True,) and found.measured.timely == (False,) and not passed(found)


def test_a_count_that_was_written_before_anything_was_to_be_counted_is_none():
    (asked,) = [each for each in scenes() if each.family == "repetition"]

    def knows(conversation):
        turns = silent(conversation)
        return [dataclasses.replace(turns[0], text=" three"), *turns[1:]]

    assert seen(baselines.as_recorded, [asked])[0].measured.counts == ((3, 3),)
    assert seen(knows, [asked])[0].measured.counts == ((3, None),)


def test_who_counts_on_until_the_end_has_not_counted():
    (asked,) = [each for each in scenes() if each.family == "repetition"]
    (quiet,) = [cue for cue in asked.cues if cue.kind == "hold" and cue.start > 3]

    def counts_on(conversation):
        turns = baselines.as_recorded(conversation)
        loud = next(turn for turn in turns if turn.samples.any())
        at = int(quiet.start / 0.2) + 2
        turns[at] = dataclasses.replace(loud, index=at, text=" four")
        return turns

    (right,), (wrong,) = seen(baselines.as_recorded, [asked]), seen(counts_on, [asked])
    assert wrong.measured.counts == ((3, 4),)  # within one
    name = "repetitions, off by one at most"
    assert verdicts([right])[name] and not verdicts([wrong])[name]


def test_where_nothing_is_due_a_word_at_any_time_is_wrong():
    (asked,) = [each for each in scenes() if each.family == "visual"]
    never = dataclasses.replace(asked, words=(), cues=(Cue("hold", 2.0, 3.0),), model_audio=None)

    def late(conversation):
        turns = silent(conversation)
        loud = next(turn for turn in baselines.as_recorded(asked) if turn.samples.any())
        return [*turns[:-2], dataclasses.replace(loud, index=len(turns) - 2), turns[-1]]

    name = "right word when it appears"
    assert verdicts(seen(silent, [never]))[name] and not verdicts(seen(late, [never]))[name]


def test_an_ability_that_still_reaches_its_targets_has_not_collapsed():
    ability = next(each for each in ABILITIES if each.name == "CueSpeak")
    name = ability.aims[0].name
    model = {name: Estimate(0.98, 0.96, 1.0, 201)}
    assert collapses(ability, model, {name: Estimate(0.92, 0.88, 0.95, 201)}) is False
    assert collapses(ability, model, {name: Estimate(0.60, 0.53, 0.67, 201)}) is True


def test_an_ability_collapses_where_a_figure_falls_beyond_the_intervals():
    ability = next(each for each in ABILITIES if each.name == "TimeSpeak")
    items = [dataclasses.replace(scenes()[6], id=str(number)) for number in range(10)]
    model, broken = ({aim.name: figure(aim, seen(play, items)) for aim in ability.aims} for play in (late(0), late(3)))
    assert collapses(ability, model, broken) is True and collapses(ability, model, model) is False
    assert collapses(ability, {aim.name: figure(aim, []) for aim in ability.aims}, broken) is None


def test_figures_of_no_case_are_left_out_and_the_report_stands(tmp_path):
    observed = seen(late(0), [each for each in scenes() if each.family == "silence"])
    names = ("model", "audio muted", "video frozen", "time shuffled", "as recorded")
    facts = {"model": "m", "split": "held_out", "scenes": 1, "seeds": [0], "families": ["silence"]}
    text = write_report(tmp_path, facts, {name: {0: observed} for name in names})
    assert "0 of 0 targets" in text and "speaks though nobody asked" in text
    assert "right word after so many seconds" not in text and "The 0 wordings" not in text
    assert (tmp_path / "abilities.png").exists()


def test_the_majority_counts_by_the_number_that_is_right_most_often(tmp_path):
    (one,) = seen(late(0), [each for each in scenes() if each.family == "repetition"])
    counted = [dataclasses.replace(one.measured, counts=((due, 1),)) for due in (2, 2, 4, 4, 5)]
    observed = [dataclasses.replace(one, measured=each, wording=str(at)) for at, each in enumerate(counted)]
    names = ("model", "audio muted", "video frozen", "time shuffled", baselines.MAJORITY, "as recorded")
    facts = {"model": "m", "split": "held_out", "scenes": 5, "seeds": [0], "families": ["repetition"]}
    text = write_report(tmp_path, facts, {name: {0: observed} for name in names})
    found = figures(tmp_path)
    within, exact = found["repetitions, off by one at most"], found["repetitions, exact"]
    assert within["model"]["value"] == 0.4 and exact["model"]["value"] == 0.0
    assert within["majority"]["value"] == 0.8, "by three, which is never due itself"
    assert exact["majority"]["value"] == 0.4, "by two"
    assert within["majority"]["low"] < 0.8 < within["majority"]["high"] and within["majority"]["count"] == 5
    assert "| repetitions, off by one at most | 40.0% | 40.0% | 40.0% | 40.0% | 80.0% | 40.0% |" in text


def cued(player):
    """What is observed of the `cue` scene."""
    (observed,) = seen(player, [each for each in scenes() if each.family == "cue"])
    return observed


def test_scenes_of_one_wording_are_right_or_wrong_together_and_widen_the_interval():
    aim = next(aim for ability in ABILITIES for aim in ability.aims if aim.name == "right word at the cue")
    observed = [cued(late(0))] * 30 + [cued(silent)] * 10

    def worded(*wordings):
        return [dataclasses.replace(each, wording=wording) for each, wording in zip(observed, wordings, strict=True)]

    alone = figure(aim, worded(*map(str, range(40))))
    together = figure(aim, worded(*(str(at // 10) for at in range(40))))
    assert alone.value == together.value == 0.75 and alone.count == together.count == 40
    assert together.low == 0.0 < 0.55 < alone.low and alone.high < together.high == 1.0
    assert figure(aim, worded(*["one"] * 40)).low == 0.75  # one wording says nothing of others


def test_intervals_of_ten_groups_hold_what_they_should():
    draw, held, plain = np.random.default_rng(0), 0, 0
    for _ in range(300):
        rights = np.clip(draw.normal(0.7, 0.15, 10), 0, 1)  # of each wording; 0.7 of all there might be
        groups = np.repeat(np.arange(10), 20)
        cases = draw.random(200) < rights[groups]
        weights = resample_groups([str(group) for group in groups], resamples=400)
        found = estimate(weights @ cases / weights.sum(axis=1), 200)
        wide = for_few_groups(found, 10, (0.0, 1.0))
        held += wide.low <= 0.7 <= wide.high
        plain += found.low <= 0.7 <= found.high
    assert held / 300 > 0.92 > plain / 300, (held, plain)
    times = for_few_groups(Estimate(0.1, -0.1, 0.3, 9), 10, (-np.inf, 10.0))
    assert times.low < -0.1 and times.high == pytest.approx(0.2 - times.low)
    assert for_few_groups(Estimate(0.4, 0.3, 9.9, 9), 10, (-np.inf, 10.0)).high == 10.0, "which stands for never"


def test_the_wordings_that_are_hardest_are_told(tmp_path):
    right, wrong = cued(late(0)), cued(silent)
    observed = [dataclasses.replace(right, wording="say {keyword} at {cue}")] * 6
    observed += [dataclasses.replace(wrong, wording="{cue} it is")] * 5
    observed += [dataclasses.replace(wrong, wording="rare")] * 4
    names = ("model", "audio muted", "video frozen", "time shuffled", "as recorded")
    facts = {"model": "m", "split": "held_out", "scenes": 15, "seeds": [0], "families": ["cue"]}
    text = write_report(tmp_path, facts, {name: {0: observed} for name in names})
    hard, easy = "| cue: {cue} it is | 5 | 0.0% |", "| cue: say {keyword} at {cue} | 6 | 100.0% |"
    assert text.index(hard) < text.index(easy) and "| cue: rare" not in text
    assert results(tmp_path)["passed_by_wording"]["cue: rare"] == {"share": 0.0, "scenes": 4}
