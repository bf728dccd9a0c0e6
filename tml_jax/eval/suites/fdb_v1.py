"""Full-Duplex-Bench v1 (Lin et al., arXiv 2503.04721): pauses, turns, interruptions, backchannels.

`compat` gives the numbers of the published evaluator (repository DanielLin94144/Full-Duplex-Bench, v1_v1.5/evaluation).
`strict` mends what there depends on chance or hides a fault:

- latencies are not clamped at 0, so a model that never stops talking does not look quick;
- the detector of the backchannel task hears every rate at 16 kHz, its times are not rounded to 0.1 s, and a segment of
  speech that ends at 0.6 s ends in the bin that holds 0.6 s;
- any segment of speech that is too long for a backchannel is a take-over, not only when no shorter one follows it;
- folders are read by number, a transcript belongs to the annotation in its own folder, and a missing file is an error,
  where the published code goes on with what the folder before it left.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.spatial.distance import jensenshannon

from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.transcripts import SuiteError, Transcript, read_json, read_transcript, subfolders, task_folders
from tml_jax.eval.voice_activity import RATE, speech
from tml_jax.signal.media import read_audio, resample, sample_rate

DISTRIBUTION = "icc_gt_distribution.json"
SHORT_SECONDS, SHORT_WORDS = 1.0, 3  # less than the one, and at most the other, is no turn
LONG_SECONDS, BACKCHANNEL_WORDS = 3.0, 2  # speech that is longer, or short with more words, is a turn
BIN_SECONDS, FLOOR = 0.2, 1e-10  # of the histogram of backchannels


def load(data: pathlib.Path) -> list[Item]:
    """The recordings of all tasks that are there, by task and number.

    Raises:
      SuiteError: no task is there, or a file of one.
    """
    items = []
    for task in task_folders(data, TASKS):
        for folder in subfolders(data / task):
            start = 0.0
            if TASKS[task] is _interruption:  # what is scored is the answer to the interruption
                start = read_json(folder / "interrupt.json")[0]["timestamp"][1]
            items.append(Item(folder.name, task, (Clip(folder / "input.wav"),), heard_from=start))
    return items


def score(scoring: Scoring) -> list[Section]:
    """The figures of each task that has answers.

    Raises:
      SuiteError: a file is missing or has another form; in `compat` only where the published code fails, too.
    """
    return [
        rule(task, scoring.data / task, scoring.answers / task, scoring)
        for task, rule in TASKS.items()
        if (scoring.answers / task).is_dir()
    ]


def takes_over(transcript: Transcript) -> bool:
    """Whether what was said counts as a turn: not less than 1 s of at most 3 words."""
    return bool(transcript.chunks) and not (
        transcript.seconds < SHORT_SECONDS and len(transcript.chunks) <= SHORT_WORDS
    )


def _pause(task: str, inputs: pathlib.Path, outputs: pathlib.Path, scoring: Scoring) -> Section:
    transcripts = _transcripts(outputs, scoring)
    taken = {name: float(takes_over(transcript)) for name, transcript in transcripts.items()}
    metrics = (Metric("take-over (lower is better)", taken),)
    return Section(task, len(taken), metrics, _left_out(outputs, len(taken)))


def _turn(task: str, inputs: pathlib.Path, outputs: pathlib.Path, scoring: Scoring) -> Section:
    transcripts = _transcripts(outputs, scoring)
    annotations = {name: inputs / name / "turn_taking.json" for name in transcripts}
    if not scoring.strict:  # the published code pairs two lists, of which the second may be shorter
        found = [path for path in annotations.values() if path.exists()]
        annotations = dict(zip(transcripts, found))
    ends = {name: read_json(path)[0]["timestamp"][0] for name, path in annotations.items()}
    notes = (*_latency_notes(scoring), *_left_out(outputs, len(ends)))
    unpaired = sum(not (inputs / name / "turn_taking.json").exists() for name in transcripts)
    if unpaired:
        notes += (
            f"{unpaired} folders have no turn_taking.json, so that answers after them are paired with the annotations "
            "of others, as published: mend the data or take the strict evaluator",
        )
    return Section(task, len(ends), _turn_metrics(transcripts, ends, scoring), notes)


def _left_out(outputs: pathlib.Path, scored: int) -> tuple[str, ...]:
    """Says how many folders the published evaluator passes over without a word, if any."""
    missing = len(subfolders(outputs)) - scored
    if not missing:
        return ()
    return (f"{missing} of {missing + scored} have no transcript or annotation and are left out, as published",)


def _interruption(task: str, inputs: pathlib.Path, outputs: pathlib.Path, scoring: Scoring) -> Section:
    transcripts = {folder.name: read_transcript(folder / "output.json") for folder in subfolders(outputs)}
    facts = {name: read_json(inputs / name / "interrupt.json")[0] for name in transcripts}
    ends = {name: fact["timestamp"][1] for name, fact in facts.items()}
    metrics = _turn_metrics(transcripts, ends, scoring)
    notes = list(_latency_notes(scoring))
    if scoring.judge is None:
        notes.append("no judge was given, so answers to interruptions have no rating (0 to 5)")
        return Section(task, len(ends), metrics, tuple(notes))
    ratings = {}
    for name, transcript in transcripts.items():
        if takes_over(transcript):
            context, interrupt = (facts[name][part] for part in ("context", "interrupt"))
            words = {"context": context, "interrupt": interrupt, "response": transcript.text}
            ratings[name] = scoring.judge.number("fdb_v1_interruption", words, "rating", range(6))
    return Section(task, len(ends), (*metrics, Metric("rating, 0 to 5", ratings, "")), tuple(notes))


def _turn_metrics(
    transcripts: Mapping[str, Transcript], ends: Mapping[str, float], scoring: Scoring
) -> tuple[Metric, Metric]:
    """Take-over rate, and latency over those that took over, from the end of the user's words."""
    taken, latencies = {}, {}
    for name, end in ends.items():
        transcript = transcripts[name]
        if transcript.chunks and transcript.chunks[-1].end is None and not scoring.strict:
            raise SuiteError(f"{name}: its last word has no end, at which the published evaluator fails; use strict")
        taken[name] = float(takes_over(transcript))
        if taken[name]:
            latency = transcript.chunks[0].start - end
            latencies[name] = latency if scoring.strict else max(0.0, latency)
    return Metric("take-over", taken), Metric("latency", latencies, "s")


def _latency_notes(scoring: Scoring) -> tuple[str, ...]:
    if scoring.strict:
        return ("latencies are not clamped: negative where the model spoke before the user ended",)
    return ("latencies are clamped at 0, so read them beside the take-over rate in pauses",)


def _backchannel(task: str, inputs: pathlib.Path, outputs: pathlib.Path, scoring: Scoring) -> Section:
    references = read_json(scoring.data / DISTRIBUTION)
    folders = _folder_names(outputs, scoring)
    names = [name for name in folders if name.isdigit()]
    notes = (f"{len(folders) - len(names)} folders whose names are no numbers are left out, as published",)
    taken, rates, distances = {}, {}, {}
    took: float | None = None
    for name in names:
        folder = outputs / name
        transcript = None
        if scoring.strict or (folder / "output.json").exists():
            transcript = read_transcript(folder / "output.json")
        path = folder / "output.wav"
        samples = read_audio(path, rate := sample_rate(path), channels=1)[0]
        seconds = len(samples) / rate
        if name not in references:
            raise SuiteError(f"{scoring.data / DISTRIBUTION} has no entry for {name}")
        found: list[tuple[float, float]] = []
        if transcript is not None:
            took, found = backchannels(_segments(samples, rate, scoring), transcript, scoring.strict)
        elif took is None:
            raise SuiteError(f"{folder / 'output.json'} is missing, at which the published evaluator fails")
        taken[name] = float(took)  # without a transcript that of the folder before, as published
        rates[name] = len(found) / seconds
        distances[name] = distance(found, seconds, references[name], scoring.strict)
    metrics = Metric("take-over (lower is better)", taken), Metric("backchannels a second", rates, "")
    metrics += (Metric("distance from people (JSD)", distances, ""),)
    return Section(task, len(names), metrics, notes if len(names) < len(folders) else ())


def backchannels(
    segments: Sequence[tuple[float, float]], transcript: Transcript, strict: bool
) -> tuple[bool, list[tuple[float, float]]]:
    """Sorts the model's speech into backchannels and turns.

    Args:
      segments: (start, end) seconds of its speech, rising.
      transcript: its words.
      strict: one turn among the segments is enough for a take-over; else the last segment decides.

    Returns:
      Whether it took over, and the segments that count as backchannels: all up to the first one beyond 3 s.
    """
    took, found = False, []
    for start, end in segments:
        if end - start > LONG_SECONDS:
            return True, found
        count = sum(_touches(chunk.start, chunk.end, start, end) for chunk in transcript.chunks)
        turn = end - start >= SHORT_SECONDS or count > BACKCHANNEL_WORDS
        took = turn or (strict and took)
        found.append((start, end))
    return took, found


def _touches(first: float | None, last: float | None, start: float, end: float) -> bool:
    """Whether a word lies in a segment or over one of its ends, by the published three cases."""
    if first is None or (last is None and first < end):
        return False
    last = first if last is None else last
    return (first >= start and last <= end) or (first <= end < last) or (first <= start < last)


def distance(found: Sequence[tuple[float, float]], seconds: float, reference: Sequence[float], strict: bool) -> float:
    """Jensen–Shannon distance (natural logarithm) between when the model and when people gave backchannels.

    Args:
      found: (start, end) seconds of the model's.
      seconds: length of the recording.
      reference: people's, a histogram over the recording with any number of bins.
      strict: a bin holds what lies in it; else the quotient is cut as it is, so that 0.6 / 0.2 is in bin 2.

    Returns:
      0 (alike) to √ln 2; 1 without backchannels.
    """
    if not found:
        return 1.0
    bin_of = lambda time: int(time / BIN_SECONDS + (1e-9 if strict else 0))  # noqa: E731
    histogram = np.full(bin_of(seconds) + 1, FLOOR)
    for start, end in found:
        histogram[bin_of(start) : bin_of(end) + 1] += 1
    people = np.interp(np.linspace(0, 1, len(histogram)), np.linspace(0, 1, len(reference)), reference)
    return float(jensenshannon(histogram, people))


def _segments(samples: np.ndarray, rate: int, scoring: Scoring) -> list[tuple[float, float]]:
    """Speech in seconds. As published, the samples of any rate go in as if at 16 kHz, and times are rounded."""
    if scoring.strict:
        return [(start / RATE, end / RATE) for start, end in speech(resample(samples[None], rate, RATE)[0])]
    found = [(round(start / RATE, 1), round(end / RATE, 1)) for start, end in speech(samples)]
    return [(max(start, 0.0), min(end, len(samples) / RATE)) for start, end in found]


def _folder_names(outputs: pathlib.Path, scoring: Scoring) -> list[str]:
    names = [folder.name for folder in subfolders(outputs)]
    return names if scoring.strict else [name for name in os.listdir(outputs) if name in set(names)]


def _transcripts(outputs: pathlib.Path, scoring: Scoring) -> dict[str, Transcript]:
    """By folder; as published, folders without one are passed over."""
    paths = {name: outputs / name / "output.json" for name in _folder_names(outputs, scoring)}
    found = {name: read_transcript(path) for name, path in paths.items() if scoring.strict or path.exists()}
    if not found:
        raise SuiteError(f"{outputs} has no output.json in its folders")
    return found


TASKS: dict[str, Callable[[str, pathlib.Path, pathlib.Path, Scoring], Section]] = {
    "candor_pause_handling": _pause,
    "synthetic_pause_handling": _pause,
    "candor_turn_taking": _turn,
    "icc_backchannel": _backchannel,
    "synthetic_user_interruption": _interruption,
}
