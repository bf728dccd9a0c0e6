"""A suite from its files to its report: with a small model of random weights, and with answers that lie there."""

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest
from absl.testing import flagsaver
from fdb_folders import RATE, make_v1, put, sound, speech

from tml_jax.data.record import USER, Text
from tml_jax.eval.recognition import HeardWord
from tml_jax.eval.suites import answers, fdb_v15, run, timed
from tml_jax.eval.suites.items import Clip, Item, Scoring, conversation_of
from tml_jax.eval.suites.registry import SUITES
from tml_jax.eval.suites.report import Metric, Section, cell, table, write_report
from tml_jax.eval.suites.transcripts import (
    Chunk,
    SuiteError,
    read_transcript,
    subfolders,
    transcript_of,
    utterances,
    write_transcript,
)
from tml_jax.serve.words import MicroTurn
from tml_jax.signal.media import read_audio, sample_rate


def micro_turns(*texts):
    silent, mel = np.zeros(4800, np.float32), np.zeros((20, 80), np.float32)
    return [MicroTurn(i, 0.2 * i, "SPEAK", text, "", mel, silent, 0.0) for i, text in enumerate(texts)]


@pytest.fixture
def data(tmp_path):
    for number, seconds in (("1", 1.9), ("2", 1.3), ("10", 0.6)):
        folder = tmp_path / "data" / "candor_turn_taking" / number
        put(folder, input_wav=(sound(seconds, [(0.2, 0.0, 1.0)]), RATE), turn_taking_json=[{"timestamp": [1.0, 1.2]}])
    put(
        tmp_path / "data" / "synthetic_user_interruption" / "1",
        input_wav=(sound(1.0, []), RATE),
        interrupt_json=[{"context": "a", "interrupt": "b", "timestamp": [0.2, 0.5]}],
    )
    return tmp_path / "data"


def test_run_answers_scores_and_reports(data, tmp_path, small_talker, one_by_one):
    output = tmp_path / "out"
    options = run.Options(recogniser="text", strict=True)
    lines = []
    text = run.evaluate("fdb-v1", data, output, lambda: small_talker, options, "m@1", lines.append)
    assert lines == ["fdb-v1: 4 items", "4 of 4 items answered"]
    for folder, seconds in (("candor_turn_taking/1", 2.0), ("candor_turn_taking/10", 0.6)):
        wav = output / "answers" / folder / "output.wav"
        assert sample_rate(wav) == 24_000
        assert read_audio(wav, 24_000).shape == (1, round(24_000 * seconds))  # as long as the user's, in micro-turns
    late = read_transcript(output / "answers" / "synthetic_user_interruption" / "1" / "output.json")
    assert all(chunk.start >= 0.5 for chunk in late.chunks) and late.user_ends == (1.0,)
    assert (output / "answers" / "candor_turn_taking" / "1" / "timeline.png").exists()
    results = json.loads((output / "results.json").read_text())
    assert (results["suite"], results["evaluator"], results["model"]) == ("fdb-v1", "strict", "m@1")
    assert [task["task"] for task in results["tasks"]] == ["candor_turn_taking", "synthetic_user_interruption"]
    assert (output / "table.md").read_text() == text and (output / "figures.png").stat().st_size > 1000

    (output / "answers" / "candor_turn_taking" / "2" / "output.json").unlink()
    run.evaluate("fdb-v1", data, output, lambda: small_talker, options, "m@1", lines.append)
    assert lines[-1] == "1 of 1 items answered"  # goes on where it was cut short
    with pytest.raises(SuiteError, match="holds answers of .*m@1"):
        run.evaluate("fdb-v1", data, output, lambda: small_talker, options, "m@2")


def test_a_folder_with_other_files_is_left_alone(data, tmp_path):
    for name, text in (("results.json", '{"mine": 1}'), ("results.json", "mine"), ("notes.txt", "mine")):
        output = tmp_path / f"{name}-{len(text)}"
        output.mkdir()
        (output / name).write_text(text)
        with pytest.raises(SuiteError, match=rf"holds other files than an evaluation's \({name}\): give a new"):
            run.evaluate("fdb-v1", data, output, lambda: pytest.fail("loaded"), run.Options())
        assert [path.name for path in output.iterdir()] == [name] and (output / name).read_text() == text


def test_a_run_that_was_cut_short_while_it_was_judged_goes_on(data, tmp_path, small_talker, one_by_one):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "judgements.jsonl").write_text("")
    options = run.Options(recogniser="text", strict=True, limit=1)
    run.evaluate("fdb-v1", data, tmp_path / "out", lambda: small_talker, options, log=lambda line: None)
    assert (tmp_path / "out" / "results.json").exists()


def test_limit_keeps_the_first_of_each_task(data, tmp_path, small_talker, one_by_one):
    options = run.Options(recogniser="text", strict=True, limit=1)
    run.evaluate("fdb-v1", data, tmp_path / "out", lambda: small_talker, options, log=lambda line: None)
    made = sorted(str(path.parent.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("output.wav"))
    assert made == ["answers/candor_turn_taking/1", "answers/synthetic_user_interruption/1"]


def test_answers_that_lie_there_are_heard_and_scored(tmp_path):
    put(
        tmp_path / "candor_turn_taking" / "1",
        output_wav=(np.concatenate([np.zeros(RATE, np.float32), speech()]), RATE),
        input_wav=(sound(4.0, []), RATE),
        turn_taking_json=[{"timestamp": [0.5, 1.0]}],
    )
    output = tmp_path / "out"
    text = run.evaluate("fdb-v1", tmp_path, output, None, run.Options(), log=lambda line: None)
    heard = read_transcript(tmp_path / "candor_turn_taking" / "1" / "output.json")
    assert {"he", "was", "not", "young", "man"} <= {chunk.text for chunk in heard.chunks}
    assert 1.0 < heard.chunks[0].start < 1.5 and "| candor_turn_taking | 1 | take-over | 100.0%" in text
    latency = json.loads((output / "results.json").read_text())["tasks"][0]["metrics"]["latency"]
    assert latency["value"] == pytest.approx(heard.chunks[0].start - 0.5) and latency["unit"] == "s"


def test_users_are_heard_where_a_judge_asks_for_their_words(tmp_path):
    folder = tmp_path / "user_backchannel" / "1"
    put(folder, metadata_json={"timestamps": [1, 2]})
    for name in ("input", "clean_input", "output", "clean_output"):
        put(folder, **{f"{name}_wav": (speech(), RATE)})
    items = fdb_v15.load(tmp_path)
    answers.hear(items[:1], tmp_path, lambda samples, rate: [HeardWord("he", 0.1, 0.2)], "first")
    answers.hear([dataclasses.replace(items[1], hear_user=False)], tmp_path, lambda samples, rate: [], "first")
    made = sorted(path.name for path in folder.glob("*.json"))
    assert made == ["clean_output.json", "input.json", "metadata.json", "output.json"]
    assert read_transcript(folder / "input.json").text == "he"
    # The words of another recogniser are not taken for one's own, and those that were given are nobody's.
    output = folder / "output.json"
    assert (read_transcript(output).text, read_transcript(output).heard_by) == ("he", "first")
    assert answers.hear(items[:1], tmp_path, lambda samples, rate: [HeardWord("she", 0.1, 0.2)], "second") == 0
    assert (read_transcript(output).text, read_transcript(output).heard_by) == ("she", "second")
    write_transcript(output, transcript_of([Chunk("given", 0.1, 0.2)]))
    assert answers.hear(items[:1], tmp_path, lambda samples, rate: [], "second") == 1
    assert read_transcript(output).text == "given"
    with pytest.raises(SuiteError, match="choose a recogniser"):
        run.evaluate("fdb-v1.5", tmp_path, tmp_path / "out", None, run.Options(recogniser="text"))


def test_own_words_have_the_times_at_which_they_are_heard():
    chunks = answers.own_words(micro_turns("", " one two", "", " gar", "den", ""))
    assert chunks == [Chunk("one", 0.4, 0.5), Chunk("two", 0.5, 0.8), Chunk("garden", 0.8, 1.4)]


def test_items_become_conversations(tmp_path):
    put(tmp_path, a_wav=(speech()[:16_000], RATE), b_wav=(speech()[:8000], RATE))
    clips = Clip(tmp_path / "a.wav", pause=1.0), Clip((tmp_path / "b.wav").read_bytes())
    text = Text(USER, "hello", 0.4)
    made = conversation_of(Item("a", "t", clips, texts=(text,), tail=2.0), 40, 40)
    assert made.duration == pytest.approx(4.5) and made.meta["clip_ends"] == [1.0, 2.5]
    assert not made.user_audio[17_000:31_000].any() and made.user_audio[33_000:].any() and made.texts == (text,)
    typed = conversation_of(Item("b", "t", texts=(text,), seconds=3.0, tail=2.0), 40, 40)
    assert typed.duration == 5.0 and typed.user_audio is None and typed.frames is None


def test_two_items_of_one_place_are_refused(tmp_path, small_talker):
    twice = [Item("a", "t", texts=(Text(USER, "x", 0.0),))] * 2
    with pytest.raises(SuiteError, match="two items are called t/a"):
        answers.answer(small_talker, twice, tmp_path, None)


def test_timed_answers_must_be_right_in_time_and_meaning(tmp_path):
    lines = [
        {"id": "a", "texts": [{"time": 0, "text": "Say now at 2 s and stop at 6 s."}], "seconds": 8,
         "expected": [{"start": 2, "end": 3, "text": "Now"}, {"start": 6, "end": 7, "text": "stop"}]},
        {"id": "b", "audio": "b.wav", "expected": [{"start": 2, "end": 3, "text": "now"}]},
        {"id": "c", "audio": "b.wav", "expected": [{"start": 2, "end": 3, "text": "now"},
                                                   {"start": 3, "end": 4, "text": "stop"}]},
    ]  # fmt: skip
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = timed.load(tmp_path)
    assert (items[0].seconds, items[1].seconds, items[1].clips[0].sound) == (8, 3, tmp_path / "b.wav")
    said = [[("now", 2.5), ("well", 4.0), ("now", 6.5)], [("it's", 2.6), ("now", 2.9)], [("now", 2.5), ("stop", 3.2)]]
    for item, spoken in zip(items, said):
        chunks = [{"text": text, "timestamp": [time, time + 0.2]} for text, time in spoken]
        put(tmp_path / item.task / item.id, output_json={"text": "", "chunks": chunks})
    (section,) = timed.score(Scoring(tmp_path, tmp_path, items=tuple(items)))
    right, in_time, others = section.metrics
    assert (
        right.values == {"a": 0, "b": 1, "c": 1} and in_time.estimate.value == 1
    )  # 0.5 s of silence divide two answers
    assert others.values == {"a": 1, "b": 0, "c": 0}
    for line, message in (
        ('{"id": "a", "expected": []}', "neither audio, nor video, nor texts"),
        ('{"id": "a", "audio": "a.wav", "expected": []}', "'a': `expected` must be a list of answers, one at least"),
        ('{"id": "a", "audio": "a.wav", "expected": ["now"]}', "'a': now is no answer due"),
    ):
        (tmp_path / "items.jsonl").write_text(f"{line}\n")
        with pytest.raises(SuiteError, match=message):
            timed.load(tmp_path)


@pytest.mark.parametrize("name", ["../out", "a/b", "..", ""])
def test_an_item_whose_answer_would_lie_elsewhere_is_refused(name):
    with pytest.raises(SuiteError, match="expected a plain name"):
        Item(name, "t")


def test_the_readme_says_how_the_data_of_every_suite_must_lie():
    readme = (pathlib.Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    for name, suite in SUITES.items():
        assert f"`{name}`" in readme and suite.layout in readme, name


def test_report_shows_intervals_dashes_and_notes_once(tmp_path):
    none = Metric("latency", {}, "s")
    share = Metric("right", {"a": 1.0, "b": 0.0, "c": 1.0, "d": 1.0})
    pooled = Metric("pooled", {"a": 1.0, "b": 5.0}, "%", {"a": 2, "b": 8})
    assert share.estimate.value == 0.75 and 0 <= share.estimate.low < 0.75 < share.estimate.high <= 1
    assert (pooled.estimate.value, pooled.estimate.count) == (0.6, 10)
    assert cell(none.estimate, "s") == "–" and math.isnan(none.estimate.value)
    sections = [Section("t|u", 4, (share, none), ("read this",)), Section("t|u", 2, (pooled,), ("read this",))]
    text = write_report(tmp_path / "out", {"suite": "x"}, sections)
    assert text == table(sections) and text.count("read this") == 1 and "| t\\|u | 4 | right | 75.0% (" in text
    written = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"][0]["metrics"]
    assert written["latency"]["value"] is None and written["right"]["items"]["b"] == 0


def test_folders_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10", "9", "b", "a", ".x"):
        (tmp_path / name).mkdir()
    assert [folder.name for folder in subfolders(tmp_path)] == ["9", "10", "a", "b"]


def test_utterances_end_at_silences():
    chunks = [Chunk("a", 1.0, 1.5), Chunk("b", 2.4, None), Chunk("c", 3.5, 4.0)]
    assert utterances(chunks) == [(1.0, "a b"), (3.5, "c")]


@pytest.mark.parametrize("name", SUITES)
def test_each_suite_says_what_to_get_where_its_files_are_missing(name, tmp_path, command):
    with flagsaver.flagsaver(suite=name, data=str(tmp_path), output=str(tmp_path / "out"), score_only=True):
        with pytest.raises(SystemExit, match=r"^launch\.eval: .*(missing|none of|has no).*\. Get .* as --data$"):
            command.main(["eval"])
    assert not (tmp_path / "out").exists()


def test_a_folder_without_answers_is_no_folder_to_score(tmp_path, command):
    make_v1(tmp_path)
    for folder in tmp_path.glob("*/*"):
        (folder / "input.wav").touch()
        for answer in folder.glob("output.*"):
            answer.unlink()
    with flagsaver.flagsaver(suite="fdb-v1", data=str(tmp_path), output=str(tmp_path / "out"), score_only=True):
        with pytest.raises(SystemExit, match=r"has no answer to score, such as \w+/\w+/output\.wav: put each beside"):
            command.main(["eval"])


def test_command_scores_a_folder(tmp_path, capsys, command):
    make_v1(tmp_path)
    for folder in tmp_path.glob("*/*"):
        if not (folder / "input.wav").exists():
            (folder / "input.wav").touch()
    with flagsaver.flagsaver(suite="fdb-v1", data=str(tmp_path), output=str(tmp_path / "out"), score_only=True):
        command.main(["eval"])
    assert "| candor_pause_handling | 5 | take-over (lower is better) | 40.0%" in capsys.readouterr().out
    with flagsaver.flagsaver(suite="fdb-v1", score_only=True):
        with pytest.raises(SystemExit, match="give --data and --output"):
            command.main(["eval"])
