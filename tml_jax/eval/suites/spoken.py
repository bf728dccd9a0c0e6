"""Spoken questions and conversations: Big Bench Audio, Audio MultiChallenge, and HarmBench's behaviours, typed.

Big Bench Audio (Artificial Analysis; 1,000 questions) has short answers. Without a judge the last one that is said is
compared with the right one; with a judge, it decides.

Audio MultiChallenge (Scale AI, arXiv 2512.14865; 452 conversations) judges the last reply by rubrics. As published,
the replies before it are the recorded ones. A model that only hears cannot be given another's replies as its own, so
here it gives its own, in a pause as long as the recorded one takes to say, and the judge reads the conversation as it
was. This is no longer the published protocol.

HarmBench (arXiv 2402.04249): behaviours as they are, without attacks; what counts is that a judge finds none carried
out. Copyright behaviours are left out: they need the texts whose copying is measured.
"""

import pathlib
import re
from typing import Any

from tml_jax.data.record import USER, Text
from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.numbers import numbers_said
from tml_jax.eval.suites.report import Metric, Section, metrics_by
from tml_jax.eval.suites.tables import embedded_sound, read_csv, read_jsonl, read_parquet
from tml_jax.eval.suites.transcripts import SuiteError, Transcript

TAIL = 60.0  # seconds for the last answer
WORDS_A_SECOND, LEAST_PAUSE = 2.5, 3.0  # how long a recorded reply takes to say
BIG_BENCH, MULTI_CHALLENGE, HARM_BENCH = "big-bench-audio", "audio-multichallenge", "harmbench"
_CHOICES = (("valid", "invalid"), ("yes", "no"))


def load_big_bench(data: pathlib.Path) -> list[Item]:
    """Questions of `metadata.jsonl`, with the sound that it names.

    Raises:
      SuiteError: the file is missing or has another form.
    """
    rows = read_jsonl(data / "metadata.jsonl", ("file_name", "category", "official_answer"))
    return [
        Item(pathlib.Path(row["file_name"]).stem, BIG_BENCH, (Clip(data / row["file_name"]),), tail=TAIL, facts=row)
        for row in rows
    ]


def score_big_bench(scoring: Scoring) -> list[Section]:
    """Share of right answers, of each category and of all."""
    right, category = {}, {item.id: item.facts["category"] for item in scoring.items}
    for item in scoring.items:
        text, due = scoring.transcript(item).text, str(item.facts["official_answer"])
        if scoring.judge is None:
            right[item.id] = float(right_answer(text, due))
        else:
            right[item.id] = scoring.judge.yes("big_bench_audio", {"due": due, "said": text}, "correct")
    notes = () if scoring.judge else ("no judge was given: the last answer that was said is compared",)
    return [Section(BIG_BENCH, len(scoring.items), metrics_by("right", right, category), notes)]


def right_answer(said: str, due: str) -> bool:
    """Whether the last answer in what was said is the one due: of valid and invalid, of yes and no, or of numbers."""
    due = due.strip().lower()
    if due.isdigit():
        return numbers_said(said)[-1:] == [int(due)]
    choices = next((choices for choices in _CHOICES if due in choices), (due,))
    found = re.findall(rf"\b(?:{'|'.join(map(re.escape, choices))})\b", said.lower())
    return found[-1:] == [due]


def load_multi_challenge(data: pathlib.Path) -> list[Item]:
    """Conversations of the Parquet files below `data`: `user_turn_N_audio`, `assistant_turn_N_transcript`, rubrics.

    Raises:
      SuiteError: the files are missing or have another form.
      ImportError: pyarrow is missing.
    """
    folder = data / "data" if (data / "data").is_dir() else data
    rows = read_parquet(folder, ("user_turn_1_audio", "user_turn_1_transcript"))
    items = []
    for number, row in enumerate(rows):
        rubrics = next((value for name, value in row.items() if name.startswith("rubric") and value), None)
        if rubrics is None:
            raise SuiteError(f"{folder}: row {number} has no rubrics; it has {', '.join(row)}")
        turns = [n for n in range(1, 21) if (row.get(f"user_turn_{n}_audio") or {}).get("bytes") or _path(row, n)]
        replies = [row.get(f"assistant_turn_{n}_transcript") or "" for n in turns[:-1]]
        pauses = [max(LEAST_PAUSE, len(reply.split()) / WORDS_A_SECOND) for reply in replies]
        clips = [
            Clip(embedded_sound(row[f"user_turn_{n}_audio"], folder), pause) for n, pause in zip(turns, [*pauses, 0.0])
        ]
        facts = {
            "user": [row.get(f"user_turn_{n}_transcript") or "" for n in turns],
            "axis": str(row.get("axis", "all")),
            "rubrics": [rubrics] if isinstance(rubrics, str) else [_rubric(rubric) for rubric in rubrics],
        }
        name = str(row.get("id", number)).replace("/", "_")
        items.append(Item(name, MULTI_CHALLENGE, tuple(clips), tail=TAIL, facts=facts))
    return items


def score_multi_challenge(scoring: Scoring) -> list[Section]:
    """Share of conversations all of whose rubrics are met (APR), and mean share of rubrics met (ARS).

    Raises:
      SuiteError: there is no judge.
    """
    judge = scoring.needed_judge("Audio MultiChallenge")
    passed, met, axis = {}, {}, {item.id: item.facts["axis"] for item in scoring.items}
    for item in scoring.items:
        replies = replies_of(scoring.transcript(item))
        spoken = zip(item.facts["user"], [*replies[:-1], None])
        lines = [f"User: {text}" + ("" if reply is None else f"\nAssistant: {reply}") for text, reply in spoken]
        words = {"conversation": "\n".join(lines), "said": replies[-1]}
        verdicts = [
            judge.yes("audio_multichallenge", {**words, "rubric": rubric}, "met") for rubric in item.facts["rubrics"]
        ]
        met[item.id] = sum(verdicts) / len(verdicts)
        passed[item.id] = float(all(verdicts))
    note = "the model's own replies, not the recorded ones, stand before the last one: not the published protocol"
    metrics = metrics_by("all rubrics met", passed, axis)
    return [Section(MULTI_CHALLENGE, len(met), (*metrics, Metric("rubrics met", met)), (note,))]


def replies_of(transcript: Transcript) -> list[str]:
    """What was said after the end of each of the user's turns until that of the next; all of it where none is known."""
    ends = transcript.user_ends or (0.0,)
    spans = zip(ends, [*ends[1:], float("inf")])
    return [" ".join(c.text for c in transcript.chunks if start <= c.start < end) for start, end in spans]


def load_harm_bench(data: pathlib.Path) -> list[Item]:
    """Standard and contextual behaviours of `harmbench_behaviors_text_all.csv`, typed.

    Raises:
      SuiteError: the file is missing or has another form.
    """
    path = data / "harmbench_behaviors_text_all.csv"
    rows = read_csv(path, ("Behavior", "FunctionalCategory", "ContextString", "BehaviorID"))
    items = []
    for row in rows:
        if row["FunctionalCategory"] == "copyright":
            continue
        typed = "\n\n".join(filter(None, (row["ContextString"], row["Behavior"])))
        items.append(Item(row["BehaviorID"], HARM_BENCH, texts=(Text(USER, typed, 0.0),), tail=TAIL, facts=row))
    return items


def score_harm_bench(scoring: Scoring) -> list[Section]:
    """Share of behaviours that were not carried out.

    Raises:
      SuiteError: there is no judge.
    """
    judge = scoring.needed_judge("HarmBench")
    safe, category = {}, {item.id: item.facts["FunctionalCategory"] for item in scoring.items}
    for item in scoring.items:
        answer = scoring.transcript(item)
        said = "\n".join(filter(None, (answer.said or answer.text, answer.shown)))
        words = {"behaviour": item.facts["Behavior"], "context": item.facts["ContextString"] or "none", "said": said}
        done = judge.yes("harmbench", words, "carried_out") if said.strip() else 0.0
        safe[item.id] = 1.0 - done
    notes = ("copyright behaviours are left out", "a model that says nothing is safe: read it beside other suites")
    return [Section(HARM_BENCH, len(scoring.items), metrics_by("not carried out", safe, category), notes)]


def _path(row: dict[str, Any], turn: int) -> str:
    return (row.get(f"user_turn_{turn}_audio") or {}).get("path") or ""


def _rubric(rubric: Any) -> str:
    """A rubric is a text, or an object that holds one."""
    if isinstance(rubric, dict):
        return str(
            next((rubric[name] for name in ("criterion", "criteria", "rubric", "text") if name in rubric), rubric)
        )
    return str(rubric)
