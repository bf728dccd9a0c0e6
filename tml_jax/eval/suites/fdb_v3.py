"""Full-Duplex-Bench v3 (Lin et al., arXiv 2604.04847): tools called as asked for in disfluent speech.

Four figures of the published evaluator: F1 of the tools' names, share of calls with right arguments, quality of what
was said (a judge's), and Pass@1: all tools, no other, all arguments right. Without a judge arguments are compared word
by word, as there, and quality is left out. `compat` rounds the scores of an item to 3 digits and leaves items without a
word out of the first three, as published; `strict` does neither.

The tools are mocks in the background (`mock_tools`). The model hands tasks over as in any session, in words where a
background model calls the tools, or as the call itself, `{"function": …, "args": {…}}`, where there is none; what comes
back it reads. Such objects in the text that it shows count as calls, too, but nothing answers them. It is told nothing
of the tools: what it knows of them it must know by training. Scored without a model, `result.json` or the one
`result_NAME.json` of a folder is taken.
"""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tml_jax.eval.suites import fdb_v15
from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.mock_tools import Call
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.transcripts import SuiteError, json_objects, read_json, read_transcript, subfolders

TASK = "fdb_v3_data_released"
TURN_GAP = 2.0  # seconds; a longer silence ends the user's turn


def expected_calls(item: Item) -> Sequence[Call]:
    """The calls that an item expects."""
    return item.facts["expected_tool_calls"]


def load(data: pathlib.Path) -> list[Item]:
    """The recordings, by the names of their folders (`SCENARIO_SPEAKER`).

    Raises:
      SuiteError: the folder, or a file in one, is missing.
    """
    items = []
    for folder in subfolders(data / TASK):
        facts = read_json(folder / "metadata.json")
        if "expected_tool_calls" not in facts:
            raise SuiteError(f"{folder / 'metadata.json'} has no expected_tool_calls")
        items.append(Item(folder.name, TASK, (Clip(folder / "input.wav"),), facts=facts))
    return items


def score(scoring: Scoring) -> list[Section]:
    """The figures of all recordings.

    Raises:
      SuiteError: an answer is missing.
    """
    digits = 12 if scoring.strict else 3
    turns, selection, arguments, quality, passed, interrupted, latencies = ({} for _ in range(7))
    for item in scoring.items:
        calls, text, agent_start, user_end = _answer(item, scoring)
        expected = item.facts["expected_tool_calls"]
        right = [_right(call, given, scoring) for call, given in paired(expected, calls)]
        names = [[call["function"] for call in made] for made in (expected, calls)]
        turns[item.id] = float(bool(text.strip()))
        passed[item.id] = float(collections.Counter(names[0]) == collections.Counter(names[1]) and all(right))
        if not (turns[item.id] or scoring.strict):
            continue
        selection[item.id] = round(name_f1(*names), digits)
        arguments[item.id] = round(sum(right) / len(right), digits) if right else 1.0
        if scoring.judge is not None:
            due = item.facts["dialogue"][-1]["ai"] if item.facts.get("dialogue") else ""
            words = {"due": due, "said": text}
            quality[item.id] = scoring.judge.yes("fdb_v3_response", words, "correct") if text.strip() else 0.0
        if agent_start is not None and user_end is not None:
            interrupted[item.id] = float(agent_start < user_end)
            if agent_start >= user_end:
                latencies[item.id] = round(agent_start - user_end, digits)
    metrics = [Metric("Pass@1", passed), Metric("tools, F1", selection), Metric("arguments", arguments)]
    notes = ["latency leaves out answers that begin before the user's turn ends: they count as interruptions"]
    if scoring.judge is None:
        notes.append("no judge was given: arguments are compared word by word, and quality is not rated")
    else:
        metrics.append(Metric("quality of what was said", quality))
    metrics += [Metric("spoke at all", turns), Metric("interruptions", interrupted), Metric("latency", latencies, "s")]
    return [Section("fdb_v3", len(turns), tuple(metrics), tuple(notes))]


def name_f1(expected: Sequence[str], called: Sequence[str]) -> float:
    """Harmonic mean of recall and precision of names, each counted as often as it stands; 1 without any."""
    matched = sum((collections.Counter(expected) & collections.Counter(called)).values())
    recall = matched / len(expected) if expected else 1.0
    precision = matched / len(called) if called else 1.0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def paired(expected: Sequence[Call], calls: Sequence[Call]) -> list[tuple[Call, Call | None]]:
    """Each expected call with the first call of that name that is left, or None."""
    left: dict[str, list[Call]] = collections.defaultdict(list)
    for call in calls:
        left[call["function"]].append(call)
    return [(call, left[call["function"]].pop(0) if left[call["function"]] else None) for call in expected]


def same_arguments(expected: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether all expected arguments are given, but for case and underscores; `$…` is any value, in lists, too."""
    plain = lambda value: value.lower().strip().replace("_", " ") if isinstance(value, str) else value  # noqa: E731
    return all(
        name in given and (_matches(value, given[name]) or plain(value) == plain(given[name]))
        for name, value in expected.items()
    )


def _matches(expected: Any, given: Any) -> bool:
    """Whether two JSON values are the same but for what stands where `$…` is expected."""
    if isinstance(expected, str) and expected.startswith("$"):
        return True
    if isinstance(expected, list) and isinstance(given, list):
        return len(expected) == len(given) and all(map(_matches, expected, given))
    if isinstance(expected, dict) and isinstance(given, dict):
        return expected.keys() == given.keys() and all(_matches(expected[name], given[name]) for name in expected)
    return expected == given


def _right(expected: Call, given: Call | None, scoring: Scoring) -> bool:
    if given is None:
        return False
    due, got = expected.get("args", {}), given.get("args", {})
    if scoring.judge is None:
        return same_arguments(due, got)
    words = {"function": expected["function"], "expected": json.dumps(due), "given": json.dumps(got)}
    return bool(scoring.judge.yes("fdb_v3_arguments", words, "correct"))


def _answer(item: Item, scoring: Scoring) -> tuple[list[Call], str, float | None, float | None]:
    """Calls, words, when the model began to speak and when the user ended, seconds."""
    folder = scoring.answers / item.task / item.id
    results = [folder / "result.json"] if (folder / "result.json").exists() else sorted(folder.glob("result_*.json"))
    if len(results) > 1:
        raise SuiteError(f"{folder} has results of {len(results)} models: keep one")
    if results:
        found = read_json(results[0])
        times = found.get("audio_agent_speech_start"), found.get("user_speech_end_rel")
        text = found.get("transcript", "") or " ".join(chunk["text"] for chunk in found.get("asr_chunks", []))
        return found.get("actual_tool_calls", []), text, *times
    transcript = read_transcript(folder / "output.json")
    calls = [call for call in json_objects(transcript.shown) if "function" in call]
    if (folder / "calls.json").exists():
        calls += read_json(folder / "calls.json")
    heard = fdb_v15.utterances(item.clips[0].sound, TURN_GAP)
    began = transcript.chunks[0].start if transcript.chunks else None
    return calls, transcript.text, began, heard[0][1] if heard else None
