"""The suite `interactivity` on scenes made by hand: what reaches a target, what breaks one, and what a run leaves."""

import dataclasses
import json

import numpy as np
import pytest
from absl.testing import flagsaver
from small import small_config
from trained_run import make_run

from tml_jax.data.record import MODEL, TASK, USER, Conversation, Cue, Text, Word, to_bytes
from tml_jax.data.scene_delegation import PlannedTask
from tml_jax.data.shards import DataError, open_shards, write_shards
from tml_jax.eval import baselines
from tml_jax.eval.abilities import run
from tml_jax.eval.abilities import scenes as kept
from tml_jax.eval.abilities.ablations import mute
from tml_jax.eval.abilities.aims import ABILITIES, Seen, collapses, figure, passed
from tml_jax.eval.abilities.report import write_report
from tml_jax.eval.delegation import score_delegation
from tml_jax.eval.estimates import Estimate
from tml_jax.eval.interactivity import NEVER_SECONDS, measure, reply_frequency

NUMBERS = "one two three four five six".split()


def tone(rate, duration, words):
    times = np.arange(round(rate * duration)) / rate
    inside = np.zeros(times.size, bool)
    for word in words:
        inside |= (times >= word.start) & (times < word.end)
    return (6000 * inside * np.sin(2 * np.pi * 220 * times)).astype(np.int16)


def scene(family, heard, said, cues, duration=6.0, name="", event=None, **fields):
    """Words are (text, start, end), seconds; the picture, if there is an event, becomes bright then."""
    users, models = [Word(USER, *word) for word in heard], [Word(MODEL, *word) for word in said]
    if event is not None:
        times = 0.05 + 0.1 * np.arange(round(10 * duration))
        shades = np.where((times >= event) & (times < event + 1.2), 220, 20).astype(np.uint8)
        fields |= {"frames": np.tile(shades[:, None, None, None], (1, 40, 40, 3)), "frame_times": times}
    return Conversation(
        name or family,
        duration,
        user_audio=tone(16_000, duration, users),
        model_audio=tone(24_000, duration, models),
        words=tuple(sorted(users + models, key=lambda word: word.start)),
        cues=tuple(cues),
        family=family,
        **fields,
    )


def respond(due, *said):
    return Cue("respond", due, said[-1][2], " ".join(word for word, _, _ in said))


def counting(first, count=6, step=0.6):
    return [(NUMBERS[i], first + step * i, first + step * i + 0.4) for i in range(count)]


def scenes():
    """A scene of each family that has a target."""
    ask, late, gone = ("say", 0.4, 1.0), ("tiger", 1.33, 1.8), ("gone", 3.5, 3.9)
    count, held = counting(1.3), ("river", 2.5, 2.9)
    cut = [*counting(1.3, 3), ("four", 3.1, 3.4)]
    after, appear = ("window", 3.0, 3.4), ("now", 2.3, 2.7)
    seen = [(word, start + 0.3, start + 0.7) for word, start in zip(NUMBERS[:3], (2.0, 2.6, 3.2))]
    filler, result = ("moment", 2.1, 2.5), ("seven", 3.5, 3.9)
    task = PlannedTask("3 + 4", 1.6, "7", due="seven")
    return [
        scene("answer", [ask], [late], [respond(1.0, late)]),
        scene("pause", [ask, ("river", 1.8, 2.2)], [held], [Cue("hold", 1.0, 1.8), respond(2.2, held)]),
        scene("interruption", [ask, ("stop", 2.8, 3.1)], cut, [respond(1.0, *cut), Cue("yield", 3.1, 3.5)]),
        scene("backchannel", [ask, ("yeah", 2.5, 2.8)], count, [respond(1.0, *count), Cue("keep", 2.5, 4.6)]),
        scene("side_talk", [ask], count, [respond(1.0, *count), Cue("keep", 2.5, 4.6), Cue("hold", 4.8, 5.8)]),
        scene("background", [ask], [late], [Cue("hold", 0.0, 0.4), respond(1.0, late)]),
        scene("timed", [ask], [after], [Cue("hold", 1.0, 3.0), respond(3.0, after)]),
        scene("cue", [ask, ("go", 2.5, 2.8)], [after], [Cue("hold", 1.0, 2.8), respond(2.8, after)]),
        scene("visual", [ask], [appear], [Cue("hold", 1.6, 2.0), respond(2.0, appear)], event=2.0),
        scene("visual_stop", [ask], [appear, gone], [respond(2.0, appear), respond(3.2, gone)], event=2.0),
        scene(
            "repetition", [ask], seen, [*(respond(word[1] - 0.3, word) for word in seen), Cue("hold", 4.6, 5.8)],
            event=2.0,
        ),
        scene(
            "delegation", [ask], [filler, result], [respond(1.0, filler), respond(3.0, result)],
            texts=(Text(MODEL, "3 + 4", 1.4, TASK), Text("background", "#1. 7", 3.0)),
            meta={"tasks": [dataclasses.asdict(task)], "variant": "usual"},
        ),
        scene("silence", [ask], [], [Cue("hold", 0.0, 5.0)]),
    ]  # fmt: skip


def seen(player, conversations):
    frequency = reply_frequency(conversations)
    played = [player(each) for each in conversations]
    return [
        Seen(measure(each, turns, frequency, sound=True), score_delegation(each, turns))
        for each, turns in zip(conversations, played)
    ]


def verdicts(observed):
    aims = [aim for ability in ABILITIES for aim in ability.aims if aim.target is not None]
    return {aim.name: aim.reached(figure(aim, observed, resamples=1).value) for aim in aims}


def late(steps):
    """Plays the record some micro-turns late."""

    def play(conversation):
        turns = baselines.as_recorded(conversation)
        silent = dataclasses.replace(turns[0], gate="LISTEN", text="", samples=np.zeros(4800, np.float32), spans=())
        turns = [*[silent] * steps, *turns[: len(turns) - steps]]
        return [dataclasses.replace(turn, index=index, start=0.2 * index) for index, turn in enumerate(turns)]

    return play


def silent(conversation):
    return [
        dataclasses.replace(turn, gate="LISTEN", text="", samples=np.zeros(4800, np.float32), spans=())
        for turn in baselines.as_recorded(conversation)
    ]


def soundless(conversation):
    """Says everything, and cannot be heard."""
    turns = baselines.as_recorded(conversation)
    return [dataclasses.replace(turn, samples=np.zeros(4800, np.float32)) for turn in turns]


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


class Reactive:
    """Says " tiger" when speech ends and " now" when the picture becomes bright, in the micro-turn after."""

    config, tokenizer, seed = small_config(), None, 0

    def __init__(self, broken_after=None):
        self.left = broken_after  # streams until it fails

    def talk_together(self, sessions, seeds):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else self.left - 1
        loud, bright, rest = ([False] * len(seeds) for _ in range(3))
        model = tone(24_000, 0.2, [Word(MODEL, "", 0.0, 0.2)]) / np.float32(32768)
        quiet = baselines.as_recorded(Conversation("", 0.2))[0]
        for index, arrived in enumerate(zip(*sessions, strict=True)):
            turns = []
            for row, window in enumerate(arrived):
                hears = window.audio is not None and np.abs(window.audio).max() > 0.1
                sees = any(frame.mean() > 128 for _, frame in window.frames)
                text = " tiger" if loud[row] and not hears else " now" if sees and not bright[row] else ""
                speaks = bool(text) or bool(rest[row])
                rest[row], loud[row], bright[row] = bool(text), hears, sees
                turn = dataclasses.replace(quiet, index=index, start=0.2 * index, text=text)
                turns.append(dataclasses.replace(turn, gate="SPEAK", samples=model) if speaks else turn)
            yield turns


@pytest.fixture
def by_hand(monkeypatch):
    """Scenes of two families, made by hand, in place of generated ones; what was asked for."""
    asked = set()

    def made(folder, split, family, seed, count):
        asked.add((split, family))
        original = next(each for each in scenes() if each.family == family)
        return [dataclasses.replace(original, id=f"{split}-{family}-{seed}-{number}") for number in range(count)]

    monkeypatch.setattr(run, "kept_scenes", made)
    return asked


def results(output):
    return json.loads((output / "results.json").read_text())


def figures(output):
    return {part["name"]: part for ability in results(output)["abilities"] for part in ability["figures"]}


def test_a_run_tells_what_each_ability_rests_on(by_hand, tmp_path):
    lines = []
    text = run.evaluate(Reactive, tmp_path, "m@1", "", 8, (0, 1), ("answer", "visual"), log=lines.append)
    found = figures(tmp_path)
    assert found["time to the reply"]["model"]["value"] == pytest.approx(0.2)  # heard from 1.2 s, asked until 1.0 s
    assert found["right word after a request"]["model"]["value"] == 1.0
    assert found["right word after a request"]["audio muted"]["value"] == 0.0
    appears = found["right word when it appears"]
    assert appears["model"]["value"] == appears["audio muted"]["value"] == appears["as recorded"]["value"] == 1.0
    assert appears["video frozen"]["value"] == 0.0 and appears["time shuffled"]["value"] <= 0.5
    assert appears["majority"]["value"] == 1.0 and appears["always listening"]["value"] == 0.0
    assert appears["reached"] and appears["seeds"] == {"0": 1.0, "1": 1.0}
    falls = {ability["name"]: ability["collapses"] for ability in results(tmp_path)["abilities"]}
    assert falls["end of turn"] and falls["visual start and stop"] and falls["counting"] is None
    assert text == (tmp_path / "table.md").read_text() and results(tmp_path)["summary"] in text
    assert "| visual start and stop | video frozen | yes |" in text
    assert (tmp_path / "abilities.png").stat().st_size > 1000
    assert (tmp_path / "examples" / "visual" / "timeline.png").exists()
    assert len(lines) == 6 and "4 of 4" in lines[-1] and "0 s left" in lines[-1]


def test_a_run_that_was_killed_goes_on_with_what_is_missing(by_hand, tmp_path):
    options = {"scenes": 2, "seeds": (0,), "families": ("answer", "visual"), "log": lambda line: None}
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(lambda: Reactive(broken_after=4), tmp_path, "m@1", **options)
    kept = sorted(path.name for path in (tmp_path / "cells").iterdir())
    assert kept == ["answer-0.json"] and not (tmp_path / "results.json").exists()
    before = (tmp_path / "cells" / "answer-0.json").stat().st_mtime_ns
    text = run.evaluate(Reactive, tmp_path, "m@1", **options)
    assert (tmp_path / "cells" / "answer-0.json").stat().st_mtime_ns == before
    assert run.evaluate(lambda: pytest.fail("loaded"), tmp_path, "m@1", **options) == text  # all is there
    with pytest.raises(ValueError, match="holds answers of .*m@1"):
        run.evaluate(Reactive, tmp_path, "m@1", "trained again", **options)
    with pytest.raises(ValueError, match="holds answers of .*held_out"):
        run.evaluate(Reactive, tmp_path, "m@1", split="extrapolation", **options)


def test_shares_are_told_for_each_kind_of_noise(by_hand, tmp_path, monkeypatch):
    def made(*place):
        facts = [{"noise": "wind", "near_clean": False}, {"noise": "pink", "near_clean": True}, {}]
        records = [
            dataclasses.replace(each, meta=facts[index % 3]) for index, each in enumerate(by_hand_scenes(*place))
        ]
        return [mute(each) if each.meta.get("noise") == "wind" else each for each in records]  # it drowns the user

    by_hand_scenes = run.kept_scenes
    monkeypatch.setattr(run, "kept_scenes", made)
    options = {"scenes": 8, "seeds": (0,), "families": ("answer", "visual"), "log": lambda line: None}
    text = run.evaluate(Reactive, tmp_path, "m@1", **options)
    shares = results(tmp_path)["passed_by_noise"]
    assert {noise: row["model"]["count"] for noise, row in shares.items()} == {"faint": 6, "none": 4, "wind": 6}
    assert {noise: row["model"]["value"] for noise, row in shares.items()} == {"faint": 1.0, "none": 1.0, "wind": 0.5}
    assert "| wind | 6 | 50.0% (" in text and "| faint | 6 | 100.0% (" in text
    for path in (tmp_path / "cells").iterdir():
        cell = json.loads(path.read_text())
        for item in sum(cell.values(), []):
            del item["noise"]
        path.write_text(json.dumps(cell))
    assert "| not noted | 16 | 81.2% (" in run.evaluate(Reactive, tmp_path, "m@1", **options), "cells of before"


def test_scenes_may_go_beyond_the_ranges_of_training(by_hand, tmp_path):
    options = {"scenes": 2, "seeds": (0,), "families": ("visual",), "log": lambda line: None}
    text = run.evaluate(Reactive, tmp_path / "far", "m@1", split="extrapolation", **options)
    assert "m@1, 2 extrapolation scenes of each of 1 families" in text and results(tmp_path / "far")["split"]
    assert by_hand == {("scenes", "answer"), ("scenes", "visual"), ("extrapolation", "visual")}
    with pytest.raises(ValueError, match="split 'train': expected held_out or extrapolation"):
        run.evaluate(Reactive, tmp_path / "none", "m@1", split="train", **options)


def test_figures_of_no_case_are_dashes_and_the_report_stands(tmp_path):
    observed = seen(late(0), [each for each in scenes() if each.family == "silence"])
    names = ("model", "audio muted", "video frozen", "time shuffled", "as recorded")
    facts = {"model": "m", "split": "held_out", "scenes": 1, "seeds": [0], "families": ["silence"]}
    text = write_report(tmp_path, facts, {name: {0: observed} for name in names})
    assert "0 of 0 targets" in text and "| TimeSpeak | right word after so many seconds | ≥ 90.0% | – |" in text
    assert (tmp_path / "abilities.png").exists()


def test_the_majority_counts_by_the_number_that_is_right_most_often(tmp_path):
    (one,) = seen(late(0), [each for each in scenes() if each.family == "repetition"])
    counted = [dataclasses.replace(one.measured, counts=((due, 1),)) for due in (2, 2, 4, 4, 5)]
    observed = [dataclasses.replace(one, measured=each) for each in counted]
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


@pytest.mark.slow
def test_command_on_a_random_model(tmp_path, command, one_by_one, capsys):
    model, output = make_run(tmp_path / "run", small_config()), tmp_path / "out"
    flags = {"suite": "interactivity", "checkpoint": str(model), "output": str(output)}
    with flagsaver.flagsaver(**flags, scenes=2, seeds=["0"], families=["silence", "timed"]):
        command.main(["eval"])
    printed = capsys.readouterr().out
    assert "timed, seed 0: 1 of 2" in printed and "| silence | 2 |" in printed
    assert sorted(path.name for path in (output / "examples").iterdir()) == ["silence", "timed"]
    assert figures(output)["right word after so many seconds"]["as recorded"]["value"] == 1.0


def test_what_is_wrong_is_said_in_one_line(tmp_path, command, monkeypatch):
    flags = {"suite": "interactivity", "checkpoint": str(make_run(tmp_path / "run", small_config()))}
    cases = [
        ({}, "give --output=FOLDER"),
        ({"output": str(tmp_path / "o"), "checkpoint": str(tmp_path)}, "no checkpoint in"),
        ({"output": str(tmp_path / "o"), "families": ["timed", "juggling"]}, "family 'juggling' is not known: choose"),
        ({"output": str(tmp_path / "o"), "seeds": ["one"]}, "--seeds=one: expected whole numbers"),
    ]
    for given, line in cases:
        with flagsaver.flagsaver(**{**flags, **given}), pytest.raises(SystemExit, match=rf"^launch\.eval: .*{line}"):
            command.main(["eval"])
    assert not (tmp_path / "o").exists()

    def missing(*_):
        raise ImportError("no module named hibari")

    monkeypatch.setattr(run, "kept_scenes", missing)
    with flagsaver.flagsaver(**flags, output=str(tmp_path / "o")):
        with pytest.raises(SystemExit, match=r"hibari; python -m pip install -e '\.\[replica\]'$"):
            command.main(["eval"])


def test_scenes_that_somebody_prepared_are_never_made_over(tmp_path, monkeypatch):
    def made(source, count, seed, processes, family):
        return (scene(family, [], [], [], name=str(each), meta={"split": source}) for each in range(count))

    monkeypatch.setattr(kept, "generate", made)
    said = [("tiger", 1.0, 1.4)]
    theirs = [scene("timed", [], said, [], name=str(each), meta={"split": "held_out"}) for each in range(3)]
    write_shards(iter(theirs), tmp_path / "held_out-timed-0")
    write_shards(iter(theirs), tmp_path / "held_out-cue-0")
    assert len(kept.kept_scenes(tmp_path, "held_out", "timed", 0, 3)) == 3
    with pytest.raises(DataError, match="holds 3 scenes that are not made again by their seed, and 4 are wanted"):
        kept.kept_scenes(tmp_path, "held_out", "timed", 0, 4)
    assert [to_bytes(record) for record in open_shards(tmp_path / "held_out-timed-0")] == list(map(to_bytes, theirs))
    with pytest.raises(DataError, match="holds held_out timed scenes, expected held_out cue"):
        kept.kept_scenes(tmp_path, "held_out", "cue", 0, 3)
    assert len(kept.kept_scenes(tmp_path, "held_out", "visual", 0, 2)) == 2
    assert len(kept.kept_scenes(tmp_path, "held_out", "visual", 0, 4)) == 4, "more of what is made by the seed"
