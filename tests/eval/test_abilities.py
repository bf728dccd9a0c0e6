"""The suite `interactivity` on scenes made by hand: what a run leaves, and what it goes on with."""

import dataclasses
import json

import numpy as np
import pytest
from absl.testing import flagsaver
from by_hand import figures, results, scene, scenes, tone
from small import small_config
from trained_run import make_run

from tml_jax.data.record import MODEL, Conversation, Word, to_bytes
from tml_jax.data.shards import DataError, open_shards, write_shards
from tml_jax.eval import baselines
from tml_jax.eval.abilities import run
from tml_jax.eval.abilities import scenes as kept
from tml_jax.eval.abilities.ablations import mute
from tml_jax.folder_lock import FolderBusyError, alone
from tml_jax.scenes.families import FAMILIES


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
    """Scenes made by hand, those of most families alike, in place of generated ones; what was asked for."""
    asked = set()

    def made(folder, split, family, seed, count):
        asked.add((split, family))
        made_so = {each.family: each for each in reversed(scenes())}
        original = made_so.get(family) or dataclasses.replace(made_so["answer"], family=family)
        return [dataclasses.replace(original, id=f"{split}-{family}-{seed}-{number}") for number in range(count)]

    monkeypatch.setattr(run, "kept_scenes", made)
    return asked


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
    whole = json.loads((tmp_path / "cells" / "answer-0.json").read_text())
    part = {name: items for name, items in whole.items() if name != "majority"}
    for damaged in ('{"x', "{}", "[]", json.dumps(part)):
        (tmp_path / "cells" / "answer-0.json").write_text(damaged)
        assert run.evaluate(Reactive, tmp_path, "m@1", **options) == text  # measured again
    more = run.evaluate(Reactive, tmp_path, "m@1", **options | {"seeds": (0, 1)})
    with pytest.raises(ValueError, match="tells of more seeds: give --seeds=0,1, or another --output"):
        run.evaluate(Reactive, tmp_path, "m@1", **options)
    assert (tmp_path / "table.md").read_text() == more
    with pytest.raises(ValueError, match="holds answers of another run .version '', not 'trained again'.: give"):
        run.evaluate(Reactive, tmp_path, "m@1", "trained again", **options)
    with pytest.raises(ValueError, match="another run .scenes '2', not '1'."):
        run.evaluate(Reactive, tmp_path, "m@1", **options | {"scenes": 1})
    with alone(tmp_path), pytest.raises(FolderBusyError, match="in use by process .* another --output"):
        run.evaluate(Reactive, tmp_path, "m@1", **options)
    with pytest.raises(ValueError, match="holds answers of .*split 'held_out', not 'extrapolation'"):
        run.evaluate(Reactive, tmp_path, "m@1", split="extrapolation", **options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "table.md").write_text("mine")
    with pytest.raises(ValueError, match="holds other files than an evaluation's .table.md.: give a new"):
        run.evaluate(Reactive, tmp_path / "mine", "m@1", **options)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["table.md"]


def test_what_failed_before_it_made_anything_claims_no_folder(by_hand, tmp_path):
    def missing():
        raise ImportError("no voices")

    options = {"scenes": 2, "seeds": (0,), "log": lambda line: None}
    with pytest.raises(ImportError):
        run.evaluate(missing, tmp_path, "m@1", families=("answer",), **options)
    run.evaluate(Reactive, tmp_path, "m@1", families=("visual",), **options)
    (tmp_path / "made_by.json").write_text("[1]")
    with pytest.raises(ValueError, match="made_by.json does not tell what made the answers beside it .*delete it"):
        run.evaluate(Reactive, tmp_path, "m@1", families=("visual",), **options)


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
    assert run.evaluate(Reactive, tmp_path, "m@1", **options) == text, "cells of before are measured again"
    for path in (tmp_path / "cells").iterdir():
        assert all("noise" in item for item in json.loads(path.read_text())["model"])


def test_what_is_said_that_decides_is_noted(by_hand, tmp_path, monkeypatch):
    def made(*place):
        facts = {"wording": "count", "break_in": "stop", "talk": "come in / in a minute"}
        return [dataclasses.replace(each, meta=facts, family=place[2]) for each in by_hand_scenes(*place)]

    by_hand_scenes = run.kept_scenes
    monkeypatch.setattr(run, "kept_scenes", made)
    options = {"scenes": 2, "seeds": (0,), "families": ("visual", "answer"), "log": lambda line: None}
    run.evaluate(Reactive, tmp_path, "m@1", **options)
    assert set(results(tmp_path)["passed_by_wording"]) == {"answer: count", "visual: count"}
    assert [
        run._wording(dataclasses.replace(made("", "", "visual", 0, 1)[0], family=family))
        for family in ("interruption", "backchannel", "side_talk", "background", "timed")
    ] == ["stop", "stop", "come in / in a minute", "come in / in a minute", "count"]


def test_scenes_may_go_beyond_the_ranges_of_training(by_hand, tmp_path):
    options = {"scenes": 2, "seeds": (0,), "families": ("visual",), "log": lambda line: None}
    text = run.evaluate(Reactive, tmp_path / "far", "m@1", split="extrapolation", **options)
    assert "m@1, 2 extrapolation scenes of each of 1 families" in text and "2 scenes of a family are a look" in text
    assert results(tmp_path / "far")["split"]
    # What the policies are does not depend on what is measured.
    assert by_hand == {("extrapolation", "visual"), *(("scenes", family) for family in FAMILIES)}
    names = "development, held_out, extrapolation, other_voices"
    with pytest.raises(ValueError, match=f"split 'train': expected one of {names}$"):
        run.evaluate(Reactive, tmp_path / "none", "m@1", split="train", **options)


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
        ({"output": str(tmp_path / "o"), "data": str(tmp_path / "none")}, "none: no such folder"),
        ({"output": str(tmp_path / "o"), "seeds": []}, "scenes 200, seeds none: expected at least one of each"),
        ({"suite": "replica", "families": ["timed"]}, "--families goes with --suite=interactivity, not with replica"),
        ({"suite": "replica", "data": "d"}, "--data goes with --suite=interactivity and a public benchmark, not with"),
        ({"suite": "fdb-v1", "weights": "int8"}, "--weights goes with --suite=replica and interactivity, not with fdb"),
        ({"background": "local"}, "--background goes with a public benchmark, not with interactivity"),
        ({"background_seconds": 3.0}, "--background_seconds goes with a public benchmark, not with interactivity"),
        ({"suite": "sound"}, "--checkpoint goes with a model to be measured, not with sound"),
        ({"reference": "r"}, "--reference goes with --suite=parity, not with interactivity"),
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
