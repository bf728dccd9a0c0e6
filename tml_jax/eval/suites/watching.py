"""Films that the model watches as they run: ProactiveVideoQA, QIVD, RepCount-A, Charades.

- ProactiveVideoQA (arXiv 2507.09313): a question at the start, answers due at times. PAUC, the area below the quality
  of what was said so far, from a judge's 1 to 3; ω = 0.5. Silence gets 25.
- QIVD (Qualcomm, arXiv 2503.19356): a person asks about what the camera sees; a judge compares the answer.
- RepCount-A (arXiv 2204.01018): "Count out reps for …"; the last number that was said, within one of the true count.
- Charades-STA (arXiv 1705.02101): the model says "start" and "stop"; overlap over union of the two times with the true
  ones. The prompts of the last two are our wording of what the original's authors describe.
"""

import pathlib
import re
from collections.abc import Mapping, Sequence

from tml_jax.data.record import USER, Text
from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.numbers import numbers_said
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.tables import read_csv, read_parquet
from tml_jax.eval.suites.transcripts import Chunk, SuiteError, read_json, utterances
from tml_jax.signal.media import kinds

PROACTIVE, QIVD, REPCOUNT, CHARADES = "proactive-video-qa", "qivd", "repcount-a", "charades"
PROACTIVE_TASKS = ("WEB", "EGO", "TV", "VAD")
OMEGA, SILENT_SCORE, BEST_SCORE = 0.5, 0.5, 2.0  # of PAUC; a judge's 1 to 3 count 0 to 2
TAIL = 5.0  # seconds after a film, for the last answer
_CHARADES_LINE = re.compile(r"(\w+) ([\d.]+) ([\d.]+)##(.+)")


def load_proactive(data: pathlib.Path) -> list[Item]:
    """Questions of `TASK/anno.json` on the films in `TASK/videos`.

    Raises:
      SuiteError: none of the tasks is there, or a file of one.
    """
    items = []
    for task in PROACTIVE_TASKS:
        if not (data / task).is_dir():
            continue
        for row in read_json(data / task / "anno.json"):
            film = _film(data / task / "videos" / row["video"])
            texts = [Text(USER, turn["content"], float(turn.get("time", 0.0))) for turn in row["conversation"]]
            name = str(row["question_id"]).replace("/", "_")
            sound = (Clip(film),) if "audio" in kinds(film) else ()
            items.append(Item(name, task, sound, film, tuple(texts), tail=TAIL, facts=row))
    if not items:
        raise SuiteError(f"{data} has none of the folders {', '.join(PROACTIVE_TASKS)}")
    return items


def score_proactive(scoring: Scoring) -> list[Section]:
    """PAUC of each task.

    Raises:
      SuiteError: there is no judge.
    """
    judge = scoring.needed_judge("ProactiveVideoQA")
    areas: dict[str, dict[str, float]] = {}
    for item in scoring.items:
        said = utterances(scoring.transcript(item).chunks)
        for number, answer in enumerate(item.facts["answer"]):
            start, end = answer["reply_timespan"]
            scores: dict[float, float] = {}
            replies: list[str] = []
            for time, text in said:
                if start <= time <= end and text not in replies:
                    replies.append(text)
                    words = {"question": item.facts["conversation"][0]["content"], "due": answer["content"]}
                    words["said"] = " ".join(replies)
                    scores[time] = judge.number("proactive_video_qa", words, "score", (1, 2, 3)) - 1
            related = answer.get("related_timespan", answer["reply_timespan"])[1]
            areas.setdefault(item.task, {})[f"{item.id}#{number}"] = pauc(scores, start, end, related)
    notes = ["silence gets 25"]
    if missing := [task for task in PROACTIVE_TASKS if task not in areas]:
        notes.append(f"not there: {', '.join(missing)}")
    return [Section(task, len(found), (Metric("PAUC", found),), tuple(notes)) for task, found in areas.items()]


def pauc(scores: Mapping[float, float], start: float, end: float, related_end: float, omega: float = OMEGA) -> float:
    """Area below the quality of what was said so far, as a share of the best.

    Args:
      scores: seconds → quality of all that was said until then, 0 to 2.
      start: seconds, of the time in which an answer is due.
      end: seconds, of it.
      related_end: seconds, until which what the answer is about can be seen; what is said later and makes the answer
        worse is not counted.
      omega: 1 leaves out when something was said, 0 leaves nothing out.

    Returns:
      0 to 1; 0.25 for silence.
    """
    reached, kept = 0.0, []
    for time in sorted(scores):
        if time <= related_end:
            reached = scores[time]
        elif scores[time] < reached:
            continue
        kept.append((time, scores[time]))
    area, at, quality = 0.0, 0.0, SILENT_SCORE
    for time, score in kept:
        moved = (time - start) * (1 - omega)
        area, at, quality = area + (moved - at) * quality, moved, score
    area += (end - start - at) * quality
    return area / ((end - start) * BEST_SCORE) if end > start else 0.0


def load_qivd(data: pathlib.Path) -> list[Item]:
    """Films with a spoken question each, of `metadata.parquet`.

    Raises:
      SuiteError: a file is missing or has another form.
      ImportError: pyarrow is missing.
    """
    items = []
    for row in read_parquet(data / "metadata.parquet", ("question", "answer")):
        name = next((str(row[key]) for key in ("file_name", "video", "id") if row.get(key) is not None), "")
        path = data / (name if "/" in name else f"videos/{name}")
        film = _film(path if path.suffix else path.with_suffix(".mp4"))
        items.append(Item(film.stem, QIVD, (Clip(film),), film, tail=2 * TAIL, facts=row))
    return items


def score_qivd(scoring: Scoring) -> list[Section]:
    """Share of right answers.

    Raises:
      SuiteError: there is no judge.
    """
    judge = scoring.needed_judge("QIVD")
    right, spoke = {}, {}
    for item in scoring.items:
        said = scoring.transcript(item).text
        words = {"question": item.facts["question"], "due": item.facts["answer"], "said": said}
        spoke[item.id] = float(bool(said.strip()))
        right[item.id] = judge.yes("qivd", words, "correct") if said.strip() else 0.0
    return [Section(QIVD, len(right), (Metric("right", right), Metric("spoke at all", spoke)))]


def load_repcount(data: pathlib.Path) -> list[Item]:
    """Films of the test part, with their counts, and how many films of the table have none (`without`).

    Raises:
      SuiteError: a file is missing or has another form.
    """
    items = []
    rows = read_csv(data / "annotation" / "test.csv", ("type", "name", "count"))
    counted = [row for row in rows if row["count"].strip()]
    for row in counted:
        film = _film(data / "video" / "test" / row["name"])
        action = row["type"].replace("_", " ")
        typed = (Text(USER, f"Count out reps for {action}.", 0.0),)
        facts = {"count": round(float(row["count"])), "action": action, "without": len(rows) - len(counted)}
        items.append(Item(film.stem, REPCOUNT, (), film, typed, tail=TAIL, facts=facts))
    return items


def score_repcount(scoring: Scoring) -> list[Section]:
    """Share of films whose last number said is within one of the count, and the mean error as a share of the count."""
    within, errors = {}, {}
    for item in scoring.items:
        said, due = (numbers_said(scoring.transcript(item).text) or [0])[-1], item.facts["count"]
        within[item.id] = float(abs(said - due) <= 1)
        if due:
            errors[item.id] = abs(said - due) / due
    without = scoring.items[0].facts["without"] if scoring.items else 0
    notes = (f"{without} films have no count in test.csv and are left out",) if without else ()
    metrics = Metric("within one", within), Metric("error of the count", errors, "")
    return [Section(REPCOUNT, len(within), metrics, notes)]


def load_charades(data: pathlib.Path) -> list[Item]:
    """Films with a moment each, of `charades_sta_test.txt`: lines `FILM START END##SENTENCE`.

    Raises:
      SuiteError: a file is missing or has another form.
    """
    path = data / "charades_sta_test.txt"
    if not path.is_file():
        raise SuiteError(f"{path} is missing")
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        match = _CHARADES_LINE.fullmatch(line.strip())
        if not match:
            raise SuiteError(f"{path}, line {number}: expected FILM START END##SENTENCE, got {line[:80]!r}")
        name, start, end, sentence = match.groups()
        film = _film(data / "Charades_v1_480" / f"{name}.mp4")
        typed = (Text(USER, f'Say "start" when this begins and "stop" when it ends: {sentence}', 0.0),)
        facts = {"span": (float(start), float(end))}
        items.append(Item(f"{number:05d}-{name}", CHARADES, (), film, typed, tail=TAIL, facts=facts))
    return items


def score_charades(scoring: Scoring) -> list[Section]:
    """Mean overlap over union, and the shares with at least 0.3, 0.5 and 0.7."""
    found = {item.id: overlap_of(scoring.transcript(item).chunks, item.facts["span"]) for item in scoring.items}
    metrics = [Metric("mIoU", found)]
    for least in (0.3, 0.5, 0.7):
        metrics.append(Metric(f"IoU from {least}", {name: float(value >= least) for name, value in found.items()}))
    return [Section(CHARADES, len(found), tuple(metrics))]


def overlap_of(chunks: Sequence[Chunk], span: tuple[float, float]) -> float:
    """Overlap over union of a true span, seconds, with the time from the first "start" to the first "stop" after it;
    0 if either was not said."""
    times = {word: [c.start for c in chunks if re.sub(r"\W", "", c.text.lower()) == word] for word in ("start", "stop")}
    start = next(iter(times["start"]), None)
    stop = next((time for time in times["stop"] if start is not None and time > start), None)
    if stop is None:
        return 0.0
    both = max(0.0, min(stop, span[1]) - max(start, span[0]))
    return both / (max(stop, span[1]) - min(start, span[0]))


def _film(path: pathlib.Path) -> pathlib.Path:
    if not path.is_file():
        raise SuiteError(f"{path} is missing")
    return path
