"""TimeSpeak and CueSpeak: say the right thing in the right window, at a time that was asked for, or at a cue while the
user still speaks.

Neither benchmark's data are public, as far as we know. So these score any data of that kind, in a layout of our own:
`items.jsonl`, of each line

  {"id": "a", "audio": "a.wav", "video": "a.mp4", "texts": [{"time": 0.0, "text": "…"}], "seconds": 20.0,
   "expected": [{"start": 5.0, "end": 6.0, "text": "what is due"}]}

of which `id`, `expected` and one of `audio`, `video` and `texts` must be there. As the original's authors define it, an
item is right if every answer is right in meaning and begins in its window; a judge tells the meaning. Without one, all
words due must be said. An answer begins after 0.4 s of silence. The generated families `timed` and `cue`
(`launch.eval --suite=interactivity`) measure the same on data that anybody can make.
"""

import pathlib

from tml_jax.data.record import USER, Text
from tml_jax.eval.interactivity import split_words
from tml_jax.eval.suites.items import Clip, Item, Scoring
from tml_jax.eval.suites.report import Metric, Section
from tml_jax.eval.suites.tables import read_jsonl
from tml_jax.eval.suites.transcripts import SuiteError, utterances

TASK = "timed"
TAIL = 2.0
PAUSE = 0.4  # seconds of silence that make an answer one of its own


def load(data: pathlib.Path) -> list[Item]:
    """The items of `items.jsonl`.

    Raises:
      SuiteError: the file is missing or has another form.
    """
    items = []
    for row in read_jsonl(data / "items.jsonl", ("id", "expected")):
        if not any(name in row for name in ("audio", "video", "texts")):
            raise SuiteError(f"{data / 'items.jsonl'}, {row['id']!r} has neither audio, nor video, nor texts")
        if not isinstance(row["expected"], list) or not row["expected"]:
            raise SuiteError(
                f"{data / 'items.jsonl'}, {row['id']!r}: `expected` must be a list of answers, one at least"
            )
        for due in row["expected"]:
            if (
                not isinstance(due, dict)
                or not {"start", "end", "text"} <= due.keys()
                or not float(due["start"]) < float(due["end"])
            ):
                raise SuiteError(
                    f"{data / 'items.jsonl'}, {row['id']!r}: {due} is no answer due, which has start and end in "
                    "seconds, the end later, and text"
                )
        texts = tuple(Text(USER, text["text"], float(text["time"])) for text in row.get("texts", ()))
        clips = (Clip(data / row["audio"]),) if row.get("audio") else ()
        video = data / row["video"] if row.get("video") else None
        least = max([float(row.get("seconds", 0.0)), *(float(due["end"]) for due in row["expected"])])
        items.append(Item(str(row["id"]), TASK, clips, video, texts, seconds=least, tail=TAIL, facts=row))
    return items


def score(scoring: Scoring) -> list[Section]:
    """Share of items all of whose answers are right in meaning and time; of answers in time; of other utterances."""
    right, in_time, counts, others = {}, {}, {}, {}
    for item in scoring.items:
        said = utterances(scoring.transcript(item).chunks, PAUSE)
        verdicts, used = [], set()
        for due in item.facts["expected"]:
            inside = [time for time, _ in said if due["start"] <= time <= due["end"]]
            used.update(inside)
            text = " ".join(words for time, words in said if time in inside)
            verdicts.append((bool(inside), bool(inside) and _means(text, due["text"], scoring)))
        right[item.id] = float(all(meant for _, meant in verdicts))
        in_time[item.id], counts[item.id] = float(sum(timely for timely, _ in verdicts)), len(verdicts)
        others[item.id] = float(len(said) - len(used))
    metrics = (
        Metric("right in meaning and time", right),
        Metric("in time", in_time, "%", counts),
        Metric("other utterances an item", others, ""),
    )
    notes = () if scoring.judge else ("no judge was given: all words due must be said",)
    return [Section(TASK, len(right), metrics, notes)]


def _means(said: str, due: str, scoring: Scoring) -> bool:
    if scoring.judge is None:
        return set(split_words(due)) <= set(split_words(said))
    return bool(scoring.judge.yes("timed_meaning", {"said": said, "due": due}, "same"))
