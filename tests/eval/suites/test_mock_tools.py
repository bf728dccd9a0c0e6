"""Tools of Full-Duplex-Bench v3 in the background: what is called is written down, answered and scored, end to end."""

import asyncio
import dataclasses
import json

import pytest
from fdb_folders import RATE, put, sound
from small import small_config
from synthetic import tokenizer

from tml_jax.background.backend import BackendError, Tools
from tml_jax.background.context import Package
from tml_jax.data.record import Conversation
from tml_jax.eval import baselines
from tml_jax.eval.suites import fdb_v3, run
from tml_jax.eval.suites.mock_tools import DirectCalls, MockTools, answers
from tml_jax.serve.words import Span

SEARCH = {"function": "search_flights", "args": {"destination": "New_York", "date": "August 20"}}
BOOK = {"function": "book_flight", "args": {"flight_id": "$RESULT_0.flights[1].flight_id", "seats": 2}}


def test_answers_have_what_later_calls_refer_to():
    first, second = answers([SEARCH, BOOK])
    assert first["status"] == "ok" and first["flights"] == [{}, {"flight_id": "flight_id-0"}]
    assert second == {"status": "ok"}
    nested = {"function": "f", "args": {"all": ["$RESULT_0.a.b", {"x": "$RESULT_0.a.c[0]"}, "$RESULT_7.z", "$5"]}}
    assert answers([SEARCH, nested])[0] == {"status": "ok", "a": {"b": "b-0", "c": ["0-0"]}}


class Reader:
    """A model that asks for what it was told to, and uses what it reads: books the flight, or says the last word."""

    seed, tokenizer = 0, tokenizer()
    config = small_config(max_text_in=64)
    config = dataclasses.replace(config, serve=dataclasses.replace(config.serve, delegate=True))

    def __init__(self, asks: list[str]) -> None:
        self.asks = asks

    def talk_together(self, sessions, seeds):
        silence = baselines.as_recorded(Conversation("", 0.2))[0]
        read = [""] * len(seeds)
        for index, arrived in enumerate(zip(*sessions, strict=True)):
            turns = []
            for row, (window, seed) in enumerate(zip(arrived, seeds)):
                tokens = [token for token in window.results if token < self.tokenizer.size]
                read[row] += self.tokenizer.decode(tokens)
                spans, ask = (), self.asks[seed]
                if index == 2 and ask:
                    spans = (Span(json.dumps(SEARCH)),) if ask == "both" else (Span(ask),)
                if index == 20 and ask == "both":
                    flight = json.loads(read[row][read[row].index("{") :])["flights"][1]["flight_id"]
                    spans = (Span(json.dumps({"function": "book_flight", "args": {"flight_id": flight, "seats": 2}})),)
                plain = read[row] and "{" not in read[row]
                text = f" {read[row].split()[-1]}" if plain else " ok"
                turns.append(dataclasses.replace(silence, index=index, text=text * (index == 25), spans=spans))
            yield turns


@pytest.fixture
def data(tmp_path):
    for name in ("book_a", "book_b", "book_c"):
        put(
            tmp_path / fdb_v3.TASK / name,
            input_wav=(sound(8.0, [(0.2, 0.0, 1.0)]), RATE),
            metadata_json={"id": name, "expected_tool_calls": [SEARCH, BOOK]},
        )
    return tmp_path


def test_a_suite_with_tools_runs_from_recordings_to_pass_at_1(data, tmp_path):
    model = Reader(["both", json.dumps(SEARCH), ""])
    options = run.Options(recogniser="text", strict=True)
    out = tmp_path / "out"
    run.evaluate("fdb-v3", data, out, lambda: model, options, "m", lambda line: None)
    metrics = json.loads((out / "results.json").read_text())["tasks"][0]["metrics"]
    assert metrics["Pass@1"]["items"] == {"book_a": 1, "book_b": 0, "book_c": 0}
    assert metrics["tools, F1"]["items"]["book_a"] == 1 and metrics["tools, F1"]["items"]["book_c"] == 0
    assert metrics["tools, F1"]["items"]["book_b"] == pytest.approx(2 / 3)
    called = json.loads((out / "answers" / fdb_v3.TASK / "book_a" / "calls.json").read_text())
    assert called[1] == {"function": "book_flight", "args": {"flight_id": "flight_id-0", "seats": 2}}


def test_a_background_model_is_offered_the_tools_of_the_whole_benchmark(data, tmp_path):
    """In place of a language model: it sees the request in words, and calls what it was offered."""
    offered = []

    class Model:
        def __init__(self, tools: Tools) -> None:
            self.tools = tools

        async def run(self, package: Package):
            offered.append([(tool.name, sorted(tool.parameters["properties"])) for tool in await self.tools.list()])
            assert package.requests == ("two seats to new york",)
            yield await self.tools.call("search_flights", SEARCH["args"])
            yield await self.tools.call("book_flight", {"flight_id": "any", "seats": 2})

        async def close(self) -> None:
            pass

    options = run.Options(recogniser="text", strict=True, backend=Model, backend_name="scripted")
    model = Reader(["two seats to new york"] * 3)
    run.evaluate("fdb-v3", data, tmp_path / "out", lambda: model, options, "m", lambda line: None)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["background"] == "scripted" and results["tasks"][0]["metrics"]["Pass@1"]["value"] == 1
    assert offered[0] == [("search_flights", ["date", "destination"]), ("book_flight", ["flight_id", "seats"])]


def test_a_suite_without_tools_is_answered_with_a_background_model_and_scored(tmp_path):
    class Model:
        def __init__(self, tools: Tools) -> None:
            self.tools = tools

        async def run(self, package: Package):
            assert await self.tools.list() == [] and package.requests == ("how many pears",)
            yield "six"

        async def close(self) -> None:
            pass

    rows = [{"file_name": f"data/question_{i}.wav", "category": "c", "official_answer": "6", "id": i} for i in range(2)]
    put(tmp_path / "data" / "data", question_0_wav=(sound(6.0, []), RATE), question_1_wav=(sound(6.0, []), RATE))
    (tmp_path / "data" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = run.Options(recogniser="text", backend=Model, backend_name="scripted")
    model = Reader(["how many pears", ""])
    run.evaluate("big-bench-audio", tmp_path / "data", tmp_path / "out", lambda: model, options, "m", lambda line: None)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["background"] == "scripted"
    assert results["tasks"][0]["metrics"]["right, all"]["items"] == {"question_0": 1, "question_1": 0}


def test_calls_that_are_none_fail_and_functions_that_are_not_there_are_told():
    tools = MockTools([SEARCH], [SEARCH])

    async def said(text: str) -> str:
        return "".join([piece async for piece in DirectCalls(tools).run(Package(1, 1, (text,), 60.0))])

    assert asyncio.run(said('{"function": "fly", "args": 3}')) == "error: no function fly "
    with pytest.raises(BackendError, match="nothing to call"):
        asyncio.run(said("book me a flight"))
    assert tools.calls == [{"function": "fly", "args": {}}]
