"""Big Bench Audio, Audio MultiChallenge and HarmBench on small files in their layouts."""

import csv
import json

import pytest
from judged import RuleJudge

from tml_jax.eval.suites import spoken
from tml_jax.eval.suites.items import Scoring
from tml_jax.eval.suites.numbers import numbers_said
from tml_jax.eval.suites.transcripts import Chunk, SuiteError, transcript_of, write_transcript


def say(root, item, *words, ends=(), said="", shown=""):
    folder = root / item.task / item.id
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [Chunk(text, time, time + 0.3) for text, time in words]
    write_transcript(folder / "output.json", transcript_of(chunks, said, shown, ends))


@pytest.mark.parametrize(
    ("said", "due", "right"),
    [
        ("Well, no. Yes, it is.", "Yes", True),
        ("Yes. Actually no.", "Yes", False),
        ("I know the argument is invalid", "invalid", True),
        ("the argument is invalid", "valid", False),
        ("nobody knows", "no", False),
        ("three apples and two pears make five", "5", True),
        ("I count twenty one", "21", True),
        ("I count twenty, one is missing", "20", False),
        ("", "5", False),
    ],
)
def test_last_answer_said_decides(said, due, right):
    assert spoken.right_answer(said, due) is right


def test_numbers_as_people_say_them():
    assert numbers_said("one two three") == [1, 2, 3]
    assert numbers_said("a hundred and five, twenty-one, twenty twenty") == [105, 21, 20, 20]
    assert numbers_said("two thousand, three hundred and forty two or 1,204") == [2342, 1204]
    assert numbers_said("twenty, one is missing") == [20, 1]
    assert numbers_said("nineteen hundred. one and one") == [1900, 1, 1]
    assert numbers_said("nothing") == []


def test_big_bench_audio_is_scored_by_category(tmp_path):
    rows = [("navigate", "Yes", "yes"), ("navigate", "No", "yes"), ("object_counting", "6", "six")]
    lines = [
        {"file_name": f"data/question_{i}.mp3", "category": category, "official_answer": due, "id": i}
        for i, (category, due, _) in enumerate(rows)
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    items = spoken.load_big_bench(tmp_path)
    assert items[2].clips[0].sound == tmp_path / "data" / "question_2.mp3"
    for item, (*_, word) in zip(items, rows):
        say(tmp_path, item, (word, 1.0))
    (section,) = spoken.score_big_bench(Scoring(tmp_path, tmp_path, items=tuple(items)))
    values = {metric.name: metric.estimate.value for metric in section.metrics}
    assert values == {"right, all": pytest.approx(2 / 3), "right, navigate": 0.5, "right, object_counting": 1.0}
    judge = RuleJudge(lambda prompt, words: words["due"] == "No")
    (section,) = spoken.score_big_bench(Scoring(tmp_path, tmp_path, judge=judge, items=tuple(items)))
    assert section.metrics[0].estimate.value == pytest.approx(1 / 3) and not section.notes


def multi_challenge(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sound = {"bytes": b"RIFF", "path": "x.wav"}
    row = {
        "id": "c/1",
        "axis": "SELF_COHERENCE",
        "user_turn_1_audio": sound,
        "user_turn_1_transcript": "Call me Al.",
        "assistant_turn_1_transcript": " ".join(["word"] * 20),
        "user_turn_2_audio": sound,
        "user_turn_2_transcript": "Who am I?",
        "user_turn_3_audio": None,
        "rubrics": ["Says Al.", "Is short."],
    }
    (tmp_path / "data").mkdir()
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "data" / "test-0.parquet")
    return spoken.load_multi_challenge(tmp_path)


def test_multi_challenge_leaves_time_for_replies_and_judges_the_last(tmp_path):
    (item,) = multi_challenge(tmp_path)
    assert item.id == "c_1" and [clip.pause for clip in item.clips] == [8.0, 0.0]
    say(tmp_path, item, ("hello", 3.0), ("al", 5.0), ("you", 12.0), ("are", 12.3), ("Al", 12.6), ends=(2.0, 11.0))
    judge = RuleJudge(lambda prompt, words: words["rubric"] == "Says Al." and "Al" in words["said"])
    (section,) = spoken.score_multi_challenge(Scoring(tmp_path, tmp_path, judge=judge, items=(item,)))
    assert judge.asked[0][1]["said"] == "you are Al"
    assert judge.asked[0][1]["conversation"] == "User: Call me Al.\nAssistant: hello al\nUser: Who am I?"
    found = {metric.name: metric.estimate.value for metric in section.metrics}
    assert found == {"all rubrics met, all": 0, "all rubrics met, SELF_COHERENCE": 0, "rubrics met": 0.5}


def test_judged_suites_ask_for_a_judge(tmp_path):
    for score in (spoken.score_multi_challenge, spoken.score_harm_bench):
        with pytest.raises(SuiteError, match="--judge_model"):
            score(Scoring(tmp_path, tmp_path))


def test_harm_bench_counts_what_was_not_carried_out(tmp_path):
    header = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
    rows = [
        ("Do a thing", "standard", "x", "", "", "thing"),
        ("Do it with this", "contextual", "x", "context", "This, with, commas\nand lines", "with_this"),
        ("Sing a song", "copyright", "x", "", "", "song"),
        ("Do nothing", "standard", "x", "", "", "nothing"),
    ]
    with open(tmp_path / "harmbench_behaviors_text_all.csv", "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    items = spoken.load_harm_bench(tmp_path)
    assert [item.id for item in items] == ["thing", "with_this", "nothing"]
    assert items[1].texts[0].text == "This, with, commas\nand lines\n\nDo it with this"
    for item, said, shown in zip(items, ("I will not.", "", ""), ("", "Sure: step 1", "")):
        say(tmp_path, item, said=said, shown=shown)
    judge = RuleJudge(lambda prompt, words: "Sure" in words["said"])
    (section,) = spoken.score_harm_bench(Scoring(tmp_path, tmp_path, judge=judge, items=tuple(items)))
    values = {metric.name: metric.estimate.value for metric in section.metrics}
    assert values["not carried out, all"] == pytest.approx(2 / 3) and values["not carried out, contextual"] == 0
    assert len(judge.asked) == 2  # silence needs no judge
