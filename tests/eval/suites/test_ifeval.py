"""IFEval's checks against the published checker's verdicts, and the figures that follow from them."""

import builtins
import json

import pytest
from fdb_folders import GOLDEN
from ifeval_cases import INSTRUCTIONS, RESPONSES

from tml_jax.eval.suites import ifeval
from tml_jax.eval.suites.ifeval_rules import CHECKS, NotScored, follows, follows_loosely, split_sentences
from tml_jax.eval.suites.items import Scoring
from tml_jax.eval.suites.transcripts import SuiteError, Transcript, write_transcript


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "ifeval_golden.json").read_text())


@pytest.mark.parametrize(("name", "rule"), [("strict", follows), ("loose", follows_loosely)])
def test_verdicts_are_the_published_ones(golden, name, rule):
    for (kind, arguments), verdicts in zip(INSTRUCTIONS, golden[name], strict=True):
        ours = [int(rule(kind, response, arguments)) for response in RESPONSES]
        different = [response for response, a, b in zip(RESPONSES, ours, verdicts, strict=True) if a != b]
        assert not different, (kind, arguments)


def test_cases_cover_every_kind_that_is_checked_as_published(golden):
    by_rule = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
    assert {kind for kind, _ in INSTRUCTIONS} == set(CHECKS) - by_rule
    for kind in {kind for kind, _ in INSTRUCTIONS}:
        given = {verdict for (of, _), row in zip(INSTRUCTIONS, golden["strict"]) if of == kind for verdict in row}
        assert given == {0, 1}, kind


def test_sentences_and_capital_words_by_rule():
    text = "Dr. Smith came at 5 p.m. today. Did he stay? No!\n\nHe left"
    assert split_sentences(text) == ["Dr. Smith came at 5 p.m. today.", "Did he stay?", "No!", "He left"]
    assert follows("length_constraints:number_sentences", text, {"num_sentences": 4, "relation": "at least"})
    assert not follows("length_constraints:number_sentences", text, {"num_sentences": 4, "relation": "less than"})
    capital = {"capital_frequency": 3, "capital_relation": "at least"}
    assert follows("change_case:capital_word_frequency", "A WELL-KNOWN fact: NASA flies.", capital)
    assert not follows("change_case:capital_word_frequency", "A well-known fact: NASA flies.", capital)


def test_what_cannot_be_checked_says_so(monkeypatch):
    with pytest.raises(NotScored, match="multi-turn"):
        follows("multi-turn:constrained_start", "text", {})
    real_import = builtins.__import__

    def without(name, *arguments, **keywords):
        if name == "langdetect":
            raise ImportError(name)
        return real_import(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NotScored, match="langdetect"):
        follows("language:response_language", "Le chat est sur le tapis.", {"language": "fr"})


def prompts(tmp_path):
    rows = [
        {"key": 7, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        {
            "key": 8,
            "prompt": "A title and no commas.",
            "instruction_id_list": ["detectable_format:title", "punctuation:no_comma"],
            "kwargs": [{}, {}],
        },
        {"key": 9, "prompt": "?", "instruction_id_list": ["x:unknown", "punctuation:no_comma"], "kwargs": [{}, {}]},
    ]
    (tmp_path / "input_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ifeval.load_typed(tmp_path)


def test_figures_pool_instructions_and_leave_out_what_is_unknown(tmp_path):
    items = prompts(tmp_path)
    assert [item.texts[0].text for item in items] == ["No commas.", "A title and no commas.", "?"]
    for item, shown, said in zip(items, ("fine", "<<T>>, then", ""), ("a, b", "", "fine")):
        folder = tmp_path / "ifeval" / item.id
        folder.mkdir(parents=True)
        write_transcript(folder / "output.json", Transcript("heard, other", (), said, shown))
    (section,) = ifeval.score(Scoring(tmp_path, tmp_path, items=tuple(items)))
    found = {metric.name: metric.estimate for metric in section.metrics}
    assert (found["strict, prompts"].value, found["strict, prompts"].count) == (0.5, 2)
    assert (found["strict, instructions"].value, found["strict, instructions"].count) == (0.75, 4)
    assert "x:unknown" in section.notes[0]


def test_loader_names_what_is_missing(tmp_path):
    with pytest.raises(SuiteError, match="input_data.jsonl is missing"):
        ifeval.load_typed(tmp_path)
    (tmp_path / "input_data.jsonl").write_text('{"key": 1, "prompt": "a"}\n')
    with pytest.raises(SuiteError, match="has no instruction_id_list, kwargs; it has key, prompt"):
        ifeval.load_typed(tmp_path)


def test_spoken_prompts_come_from_parquet_with_their_sound(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sound = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table(
        {
            "audio": pyarrow.array([{"bytes": b"RIFF", "path": None}, {"bytes": None, "path": "b.wav"}], sound),
            "key": [1, 2],
            "prompt": ["a", "b"],
            "instruction_id_list": [["punctuation:no_comma"], ["keywords:existence"]],
            "kwargs": [[{"keywords": None}], [{"keywords": ["cat"]}]],
        }
    )
    (tmp_path / "ifeval").mkdir()
    parquet.write_table(table, tmp_path / "ifeval" / "test-00000-of-00001.parquet")
    first, second = ifeval.load_spoken(tmp_path)
    assert first.clips[0].sound == b"RIFF" and second.clips[0].sound == tmp_path / "ifeval" / "b.wav"
    for item, heard in ((first, "a b"), (second, "a CAT")):
        folder = tmp_path / "ifeval-voice" / item.id
        folder.mkdir(parents=True)
        write_transcript(folder / "output.json", Transcript(heard, (), "said, not heard", ""))
    (section,) = ifeval.score(Scoring(tmp_path, tmp_path, items=(first, second)))
    assert section.metrics[0].estimate.value == 1.0
