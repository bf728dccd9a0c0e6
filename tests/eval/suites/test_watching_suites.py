"""ProactiveVideoQA, QIVD, RepCount-A and Charades-STA on small films in their layouts."""

import json

import numpy as np
import pytest
from films import encode_video
from judged import RuleJudge

from tml_jax.eval.suites import watching
from tml_jax.eval.suites.items import Scoring, conversation_of
from tml_jax.eval.suites.transcripts import Chunk, SuiteError, transcript_of, write_transcript


def film(path, sound=False):
    """A grey second, with a tone or without sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.2 * np.sin(np.arange(48_000, dtype=np.float32) / 12)[None]
    encode_video(path, np.full((10, 64, 64, 3), 128, np.uint8), 10, tone if sound else None)


def say(root, item, *words):
    folder = root / item.task / item.id
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [Chunk(text, time, time + 0.3) for text, time in words]
    write_transcript(folder / "output.json", transcript_of(chunks))


@pytest.mark.parametrize(
    ("scores", "omega", "area"),
    [
        ({}, 0.5, 0.25),
        ({2.0: 2.0}, 0.5, 0.925),  # best from 2 s on, of which half counts: (1 · 0.5 + 9 · 2) / 20
        ({2.0: 2.0}, 0.0, 0.85),
        ({2.0: 2.0}, 1.0, 1.0),
        ({4.0: 1.0, 6.0: 2.0}, 0.5, 0.8),  # (2 · 0.5 + 1 · 1 + 7 · 2) / 20
        ({2.0: 2.0, 9.0: 0.0}, 0.5, 0.925),  # worse after it can be seen no more: not counted
        ({2.0: 2.0, 5.0: 0.0}, 0.5, 0.175),  # worse while it can be seen: (1 · 0.5 + 1.5 · 2 + 7.5 · 0) / 20
        ({0.0: 0.0}, 0.5, 0.0),  # wrong at once is worse than silence
    ],
)
def test_pauc_is_the_area_below_what_was_said_so_far(scores, omega, area):
    assert watching.pauc(scores, 0.0, 10.0, 8.0, omega) == pytest.approx(area)


def test_pauc_counts_from_the_start_of_its_span():
    assert watching.pauc({12.0: 2.0}, 10.0, 20.0, 20.0) == watching.pauc({2.0: 2.0}, 0.0, 10.0, 10.0)


def test_proactive_video_qa_judges_all_that_was_said_so_far(tmp_path):
    row = {
        "video": "a.mp4",
        "question_id": "q/1",
        "conversation": [{"role": "user", "content": "What happens?", "time": 0}],
        "answer": [
            {"content": "A cat comes.", "reply_timespan": [0, 10], "related_timespan": [0, 8]},
            {"content": "It goes.", "reply_timespan": [10, 20]},
        ],
    }
    film(tmp_path / "EGO" / "videos" / "a.mp4", sound=True)
    (tmp_path / "EGO" / "anno.json").write_text(json.dumps([row]))
    (item,) = watching.load_proactive(tmp_path)
    assert (item.id, item.task, len(item.clips)) == ("q_1", "EGO", 1)
    say(tmp_path, item, ("a", 2.0), ("cat", 2.3), ("comes", 6.0))
    judge = RuleJudge(lambda prompt, words: 3 if "comes" in words["said"] else 2)
    (section,) = watching.score_proactive(Scoring(tmp_path, tmp_path, judge=judge, items=(item,)))
    assert [words["said"] for _, words in judge.asked] == ["a cat", "a cat comes"]
    assert section.notes == ("silence gets 25", "not there: WEB, TV, VAD")
    assert section.metrics[0].values == {"q_1#0": pytest.approx((1 * 0.5 + 2 * 1 + 7 * 2) / 20), "q_1#1": 0.25}


def test_qivd_takes_question_and_picture_from_one_film(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    film(tmp_path / "videos" / "7.mp4", sound=True)
    rows = [{"id": "7", "category": "x", "question": "What is it?", "answer": "A cup.", "answer_timestamp": "0.5"}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "metadata.parquet")
    (item,) = watching.load_qivd(tmp_path)
    conversation = conversation_of(item, 40, 40)
    assert conversation.user_audio.any() and conversation.frames.shape[1:] == (40, 40, 3)
    assert conversation.duration == pytest.approx(11, abs=0.2)
    say(tmp_path, item, ("cup", 2.0))
    judge = RuleJudge(lambda prompt, words: "cup" in words["said"])
    (section,) = watching.score_qivd(Scoring(tmp_path, tmp_path, judge=judge, items=(item,)))
    assert section.metrics[0].values == {"7": 1}


def test_repcount_takes_the_last_number(tmp_path):
    (tmp_path / "annotation").mkdir()
    table = (
        ",type,name,count,L1,L2\n0,push_up,a.mp4,4.0,1,9\n1,squat,b.mp4,,,\n2,squat,c.mp4,10,1,9\n3,squat,d.mp4,2,,\n"
    )
    (tmp_path / "annotation" / "test.csv").write_text(table)
    for name in ("a", "c", "d"):
        film(tmp_path / "video" / "test" / f"{name}.mp4")
    items = watching.load_repcount(tmp_path)
    assert [item.id for item in items] == ["a", "c", "d"] and items[0].texts[0].text == "Count out reps for push up."
    for item, words in zip(items, ([("one", 1), ("two", 2), ("three", 3)], [("twelve", 1)], [])):
        say(tmp_path, item, *words)
    (tmp_path / "annotation" / "test.csv").unlink()  # all that the scorer needs, the items have
    (section,) = watching.score_repcount(Scoring(tmp_path, tmp_path, items=tuple(items)))
    within, error = section.metrics
    assert within.values == {"a": 1, "c": 0, "d": 0} and error.values == {"a": 0.25, "c": 0.2, "d": 1.0}
    assert section.notes == ("1 films have no count in test.csv and are left out",)


def test_charades_is_scored_by_the_first_start_and_the_stop_after_it(tmp_path):
    film(tmp_path / "Charades_v1_480" / "AO8RW.mp4")
    (tmp_path / "charades_sta_test.txt").write_text("AO8RW 2.0 6.0##a person is putting a book on a shelf.\n")
    (item,) = watching.load_charades(tmp_path)
    say(tmp_path, item, ("Stop", 1.0), ("Start.", 3.0), ("start", 4.0), ("stop!", 7.0))
    (section,) = watching.score_charades(Scoring(tmp_path, tmp_path, items=(item,)))
    assert [metric.estimate.value for metric in section.metrics] == [0.6, 1, 1, 0]
    for words in ([], [("start", 3.0)], [("stop", 3.0)], [("start", 7.0), ("stop", 9.0)]):
        assert watching.overlap_of([Chunk(text, time, time) for text, time in words], (2.0, 6.0)) == 0


def test_films_and_lines_that_are_missing_are_named(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text("AO8RW 2.0 6.0##a book.\n")
    with pytest.raises(SuiteError, match="Charades_v1_480/AO8RW.mp4 is missing"):
        watching.load_charades(tmp_path)
    (tmp_path / "charades_sta_test.txt").write_text("AO8RW 2.0\n")
    with pytest.raises(SuiteError, match="line 1: expected FILM START END##SENTENCE"):
        watching.load_charades(tmp_path)
    with pytest.raises(SuiteError, match="none of the folders WEB"):
        watching.load_proactive(tmp_path)
