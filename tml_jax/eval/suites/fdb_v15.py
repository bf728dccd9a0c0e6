"""Full-Duplex-Bench v1.5 (Lin et al., arXiv 2507.23159): what a model does when someone talks while it speaks.

Timing is that of the published `get_timing.py`: how long both speak at once before one stops, and how long after the
user the model begins. Behaviour is a judge's: the model responds to the overlap, resumes what it was saying, says that
it did not understand, or neither. Expected is a response to an interruption, and resuming otherwise. The published
evaluator tests no code path here that depends on chance, so `strict` and `compat` are the same.
"""

import json
import pathlib
from collections.abc import Sequence

from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.transcripts import read_json, read_transcript, subfolders, task_folders
from tml_jax.eval.voice_activity import RATE, speech
from tml_jax.signal.media import read_audio

EXPECTED = {  # of each subset
    "user_interruption": "respond",
    "user_backchannel": "resume",
    "talking_to_other": "resume",
    "background_speech": "resume",
}
BEHAVIOURS = ("respond", "resume", "uncertain", "unknown")
USER_GAP, MODEL_GAP = 0.6, 0.5  # seconds; shorter silences do not end an utterance
CLEAN = "clean_"  # prefix of the files without an overlap
Span = tuple[float, float]


def load(data: pathlib.Path) -> list[Item]:
    """Each recording twice: with the overlap, and without.

    Raises:
      SuiteError: no subset is there, or a file of one.
    """
    items = []
    for task in task_folders(data, EXPECTED):
        for folder in subfolders(data / task):
            read_json(folder / "metadata.json")
            for prefix in ("", CLEAN):
                clip = Clip(folder / f"{prefix}input.wav")
                items.append(Item(folder.name, task, (clip,), prefix=prefix, hear_user=True))
    return items


def score(scoring: Scoring) -> list[Section]:
    """Timing of each subset, and with a judge its behaviour; then the mean over subsets.

    Raises:
      SuiteError: a file is missing.
    """
    sections, expected = [], {}
    for task in EXPECTED:
        if not (scoring.answers / task).is_dir():
            continue
        folders = subfolders(scoring.answers / task)
        stops, responses = {}, {}
        for folder in folders:
            stop, response = timing(scoring.data / task / folder.name / "input.wav", folder / "output.wav")
            stops |= {f"{folder.name}#{i}": end - start for i, (start, end) in enumerate(stop)}
            responses |= {f"{folder.name}#{i}": end - start for i, (start, end) in enumerate(response)}
        metrics = [Metric("both speak, until one stops", stops, "s"), Metric("response latency", responses, "s")]
        notes = ["no judge was given, so behaviour is not rated"]
        if scoring.judge is not None:
            found = {folder.name: _behaviour(task, folder, scoring) for folder in folders}
            for behaviour in BEHAVIOURS:
                shares = {name: float(said == behaviour) for name, said in found.items()}
                metrics.append(Metric(f"{behaviour}{' (expected)' * (behaviour == EXPECTED[task])}", shares))
                if behaviour == EXPECTED[task]:
                    expected[task] = metrics[-1].estimate.value
            notes = []
        sections.append(Section(task, len(folders), tuple(metrics), tuple(notes)))
    if expected:
        note = (f"the mean over {len(expected)} of {len(EXPECTED)} subsets",)
        sections.append(Section("average", len(expected), (Metric("expected behaviour", expected),), note))
    return sections


def timing(heard: pathlib.Path, said: pathlib.Path) -> tuple[list[Span], list[Span]]:
    """Overlaps and gaps between the speech of two recordings.

    Args:
      heard: the user's sound.
      said: the model's, on the same clock.

    Returns:
      (start, end) seconds, to the millisecond, of each time that both speak until one of them stops, and of each
      silence between the last of the user's utterances and the model's next.
    """
    user, model = utterances(heard, USER_GAP), utterances(said, MODEL_GAP)
    return overlaps(user, model), gaps(user, model)


def utterances(path: pathlib.Path, gap: float) -> list[Span]:
    """Speech in a file, (start, end) seconds; silences of at most `gap` seconds within are part of it."""
    found: list[Span] = []
    for start, end in speech(read_audio(path, RATE, channels=1)[0]):
        start, end = start / RATE, end / RATE
        if found and start - found[-1][1] <= gap:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def overlaps(user: Sequence[Span], model: Sequence[Span]) -> list[Span]:
    """What lies in both, each sorted and apart; of those that end in the same millisecond, the shortest."""
    both = [(max(u[0], m[0]), min(u[1], m[1])) for u in user for m in model]
    best: dict[int, Span] = {}
    for start, end in both:
        key = round(end * 1000)
        if start < end and (key not in best or end - start < best[key][1] - best[key][0]):
            best[key] = start, end
    return [(round(start, 3), round(end, 3)) for start, end in sorted(best.values(), key=lambda span: span[1])]


def gaps(user: Sequence[Span], model: Sequence[Span]) -> list[Span]:
    """From each of the user's ends to the model's next start; only the last such end before each start."""
    last: dict[int, Span] = {}
    for _, end in user:
        start = next((start for start, _ in model if start > end), None)
        if start is not None:
            found = round(end, 3), round(start, 3)
            last[round(start * 1000)] = max(last.get(round(start * 1000), found), found)
    return sorted(last.values(), key=lambda span: span[1])


def _behaviour(task: str, folder: pathlib.Path, scoring: Scoring) -> str:
    inputs = scoring.data / task / folder.name
    files = {
        "input_clean": inputs / f"{CLEAN}input.json",
        "input_overlap": inputs / "input.json",
        "output_clean": folder / f"{CLEAN}output.json",
        "output_overlap": folder / "output.json",
    }
    # The benchmark has no transcripts of the user: those made for this run lie beside the model's.
    files = {name: path if path.exists() else folder / path.name for name, path in files.items()}
    words = {
        name: json.dumps([[chunk.text, chunk.start, chunk.end] for chunk in read_transcript(path).chunks])
        for name, path in files.items()
    }
    start, end = read_json(inputs / "metadata.json")["timestamps"]
    words |= {"start": f"{start:.2f}", "end": f"{end:.2f}"}
    return scoring.judge.ask("fdb_v15_behaviour", words, "behaviour", BEHAVIOURS)
