"""IFEval (Zhou et al., arXiv 2311.07911), typed as it is published, and spoken as in VoiceBench (arXiv 2410.17196).

Four figures, as both publish them: shares of prompts all of whose instructions are followed, and of instructions;
strictly, and loosely (without first or last line or asterisks). Which of them the original reports is not stated.
"""

import pathlib

from tml_jax.data.record import USER, Text
from tml_jax.eval.suites.ifeval_rules import NotScored, follows, follows_loosely
from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.tables import embedded_sound, read_jsonl, read_parquet

PROMPTS = "input_data.jsonl"
TAIL = 60.0  # seconds for an answer
TYPED, SPOKEN = "ifeval", "ifeval-voice"


def load_typed(data: pathlib.Path) -> list[Item]:
    """The prompts as typed text, of `input_data.jsonl`.

    Raises:
      SuiteError: the file is missing or has another form.
    """
    rows = read_jsonl(data / PROMPTS, ("key", "prompt", "instruction_id_list", "kwargs"))
    return [Item(str(row["key"]), TYPED, texts=(Text(USER, row["prompt"], 0.0),), tail=TAIL, facts=row) for row in rows]


def load_spoken(data: pathlib.Path) -> list[Item]:
    """The prompts as speech, of VoiceBench's `ifeval/*.parquet`.

    Raises:
      SuiteError: the files are missing or have another form.
      ImportError: pyarrow is missing.
    """
    rows = read_parquet(data / "ifeval", ("audio", "key", "prompt", "instruction_id_list", "kwargs"))
    return [
        Item(
            str(row["key"]),
            SPOKEN,
            (Clip(embedded_sound(row["audio"], data / "ifeval")),),
            tail=TAIL,
            facts={name: value for name, value in row.items() if name != "audio"},
        )
        for row in rows
    ]


def score(scoring: Scoring) -> list[Section]:
    """Follows or not, from what was shown, or else said; spoken prompts from what was heard.

    Raises:
      SuiteError: an answer is missing.
    """
    sections = []
    for task in (TYPED, SPOKEN):
        items = [item for item in scoring.items if item.task == task]
        if items:
            sections.append(_section(task, items, scoring))
    return sections


def _section(task: str, items: list[Item], scoring: Scoring) -> Section:
    skipped: set[str] = set()
    metrics = []
    for name, rule in (("strict", follows), ("loose", follows_loosely)):
        prompts, hits, counts = {}, {}, {}
        for item in items:
            answer = scoring.transcript(item)
            response = answer.text if task == SPOKEN else (answer.shown or answer.said)
            verdicts: list[bool | None] = []
            for kind, arguments in zip(item.facts["instruction_id_list"], item.facts["kwargs"]):
                try:
                    verdicts.append(rule(kind, response, arguments))
                except NotScored:
                    skipped.add(kind)
                    verdicts.append(None)
            known = [verdict for verdict in verdicts if verdict is not None]
            if known:
                hits[item.id], counts[item.id] = float(sum(known)), len(known)
            if len(known) == len(verdicts):
                prompts[item.id] = float(all(known))
        metrics += [Metric(f"{name}, prompts", prompts), Metric(f"{name}, instructions", hits, "%", counts)]
    notes = []
    if skipped:
        notes.append(f"not scored, with the prompts that they stand in: {', '.join(sorted(skipped))}")
    notes.append("sentences and words in capitals are counted by a rule, not by NLTK as published")
    return Section(task, len(items), tuple(metrics), tuple(notes))
