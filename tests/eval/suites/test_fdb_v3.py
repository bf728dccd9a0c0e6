"""Tool calls of Full-Duplex-Bench v3: the published rules, on cases worked out by hand."""

import json

import pytest
from fdb_folders import RATE, put, sound, words
from judged import RuleJudge

from tml_jax.eval.suites import fdb_v3
from tml_jax.eval.suites.items import Scoring
from tml_jax.eval.suites.transcripts import SuiteError, transcript_of, write_transcript

SEARCH = {"function": "search_flights", "args": {"destination": "New_York", "date": "August 20"}}
BOOK = {"function": "book_flight", "args": {"flight_id": "$RESULT_0.flights[0].flight_id", "seats": 2}}


def called(function, **args):
    return {"function": function, "args": args}


GOOD = [
    called("search_flights", destination=" new york", date="august 20"),
    called("book_flight", flight_id=7, seats=2),
]
PARIS = called("search_flights", destination="Paris", date="August 20")
CASES = {  # calls, words, begin, end of the user; pass, F1, arguments
    "good_a": (GOOD, "Booked.", 6.5, 5.0, 1, 1.0, 1.0),
    "missing_a": (GOOD[:1], "Found.", 4.0, 5.0, 0, 2 / 3, 0.5),
    "extra_a": ([*GOOD, PARIS], "Hm.", 5.5, 5.0, 0, 0.8, 1.0),
    "wrong_a": (
        [PARIS, GOOD[1]],
        "Ok.",
        6.0,
        5.0,
        0,
        1.0,
        0.5,
    ),
    "silent_a": ([], "", None, 5.0, 0, 0.0, 0.0),
}


@pytest.fixture
def root(tmp_path):
    for name, (calls, text, begin, end, *_) in CASES.items():
        result = {
            "example_id": name,
            "actual_tool_calls": calls,
            "transcript": text,
            "asr_chunks": [],
            "audio_agent_speech_start": begin,
            "user_speech_end_rel": end,
        }
        meta = {
            "id": name,
            "expected_tool_calls": [SEARCH, BOOK],
            "dialogue": [{"user": "Book.", "ai": "It is booked."}],
        }
        put(tmp_path / fdb_v3.TASK / name, metadata_json=meta)
        (tmp_path / fdb_v3.TASK / name / "result_model.json").write_text(json.dumps(result))
    return tmp_path


def scored(root, **options):
    items = tuple(fdb_v3.load(root))
    (section,) = fdb_v3.score(Scoring(root, root, items=items, **options))
    return {metric.name: metric for metric in section.metrics}


def test_scores_are_those_of_the_published_rules(root):
    found = scored(root, strict=True)
    for name, (*_, passed, f1, right) in CASES.items():
        assert found["Pass@1"].values[name] == passed
        assert found["tools, F1"].values[name] == pytest.approx(f1)
        assert found["arguments"].values[name] == pytest.approx(right)
    assert found["interruptions"].values == {"good_a": 0, "missing_a": 1, "extra_a": 0, "wrong_a": 0}
    assert found["latency"].values == {"good_a": 1.5, "extra_a": 0.5, "wrong_a": 1.0}
    assert found["spoke at all"].estimate.value == 0.8


def test_compat_rounds_and_leaves_out_who_is_silent(root):
    found = scored(root)
    assert found["tools, F1"].values == {"good_a": 1.0, "missing_a": 0.667, "extra_a": 0.8, "wrong_a": 1.0}
    assert found["Pass@1"].estimate.count == 5


def test_judge_decides_on_arguments_and_words(root):
    judge = RuleJudge(lambda prompt, words: prompt == "fdb_v3_arguments" or words["said"] == "Booked.")
    found = scored(root, judge=judge)
    assert found["Pass@1"].values["wrong_a"] == 1 and found["Pass@1"].values["extra_a"] == 0
    assert found["quality of what was said"].values == {"good_a": 1, "missing_a": 0, "extra_a": 0, "wrong_a": 0}


def test_two_calls_of_one_function_are_judged_in_order():
    first, second = called("f", x=1), called("f", x=2)
    assert fdb_v3.paired([first, second], [second, first]) == [(first, second), (second, first)]
    assert fdb_v3.name_f1([], []) == 1 and fdb_v3.name_f1(["f"], []) == 0


def test_what_an_earlier_call_has_found_is_any_value_also_inside_lists():
    expected = {"ids": ["$RESULT_0.id", "b"], "to": {"place": "$RESULT_1.place", "seats": [2]}}
    assert fdb_v3.same_arguments(expected, {"ids": ["id-0", "b"], "to": {"place": 7, "seats": [2]}})
    for wrong in ({"ids": ["id-0", "c"]}, {"ids": ["id-0"]}, {"to": {"place": 7}}, {"to": 3}):
        assert not fdb_v3.same_arguments(expected, {"ids": ["id-0", "b"], "to": {"place": 7, "seats": [2]}} | wrong)


def test_own_answers_call_tools_by_the_text_that_they_show(root):
    folder = root / fdb_v3.TASK / "good_a"
    (folder / "result_model.json").unlink()
    put(folder, input_wav=(sound(8.0, [(0.5, 0.0, 2.0)]), RATE))
    shown = f"Let me see: {json.dumps(GOOD[0])}\n{json.dumps(GOOD[1])} done"
    chunk = transcript_of([], shown=shown)
    write_transcript(folder / "output.json", chunk)
    assert scored(root, strict=True)["Pass@1"].values["good_a"] == 1
    put(folder, output_json={**words(("ok", 4.0, 4.3)), "shown": shown})
    assert 1.3 < scored(root, strict=True)["latency"].values["good_a"] < 1.7  # the user ends at about 2.5 s


def test_what_is_missing_is_named(root, tmp_path_factory):
    with pytest.raises(SuiteError, match="fdb_v3_data_released is missing"):
        fdb_v3.load(tmp_path_factory.mktemp("empty"))
    (root / fdb_v3.TASK / "good_a" / "result_other.json").write_text("{}")
    with pytest.raises(SuiteError, match="results of 2 models"):
        scored(root)
