"""One run of a suite: items from the benchmark's files, the model's answers to them, their scores, the report."""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

from tml_jax.background.backend import Backend, Tools
from tml_jax.eval.recognition import words_heard
from tml_jax.eval.suites.answers import answer, hear
from tml_jax.eval.suites.items import Item, Scoring
from tml_jax.eval.suites.judge import Judge
from tml_jax.eval.suites.mock_tools import ToolDesk, tool_desk
from tml_jax.eval.suites.registry import SUITES, Suite
from tml_jax.eval.suites.report import write_report
from tml_jax.eval.suites.transcripts import SuiteError, read_json
from tml_jax.files import write_whole
from tml_jax.folder_lock import alone
from tml_jax.serve.session import Talker

MADE_BY = "made_by.json"
_BEFORE_RESULTS = {"lock", "scenes", "answers", "judgements.jsonl"}  # what can be in a folder of ours without any
_BEFORE_ANSWERS = {"lock", MADE_BY, "scenes"}  # what can be in a claimed folder without any answer
_ELSEWHERE = "give another --output, or delete it"
OWN_WORDS = "text"  # a recogniser that is none: the model's own text beside its sound


@dataclasses.dataclass(frozen=True)
class Options:
    """How a suite is run.

    Attributes:
      strict: the published evaluators' faults are mended; else numbers are theirs.
      recogniser: whose words count: one of `recognition.RECOGNISERS`, or `text` for the model's own.
      whisper_model: for `whisper`: a size that faster-whisper knows, or the folder with its weights.
      judge_model: language model that judges; "" for none.
      judge_url: its endpoint; None for the client's own.
      limit: only the first so many items of each task; 0 for all.
      backend: makes what does the model's tasks, with the suite's tools where it has any; None: where it has, they are
        the calls themselves, and elsewhere no task is handed over.
      backend_name: of that, for the report.
    """

    strict: bool = False
    recogniser: str = "pocketsphinx"
    whisper_model: str = "base.en"
    judge_model: str = ""
    judge_url: str | None = None
    limit: int = 0
    backend: Callable[[Tools], Backend] | None = None
    backend_name: str = ""


def evaluate(
    name: str,
    data: pathlib.Path,
    output: pathlib.Path,
    talker: Callable[[], Talker] | None,
    options: Options,
    model: str = "",
    log: Callable[[str], None] = print,
) -> str:
    """Runs a suite and writes OUTPUT: `answers/`, `results.json`, `table.md`, `figures.png`, `judgements.jsonl`.

    Args:
      name: of the suite.
      data: folder of the benchmark, as it is published.
      output: folder to write to.
      talker: loads the model; None scores the answers that lie in `data` beside the recordings.
      options: see there.
      model: what `talker` loads. A run that was cut short goes on if the same model, heard in the same way, made what
        is there.
      log: where progress goes.

    Returns:
      The table, in Markdown.

    Raises:
      SuiteError: the benchmark is not there or not as published: says what to get; or OUTPUT is another model's, or
        holds other files.
      JudgeError: the judge fails.
      ImportError: something of the extra `suites` is missing.
    """
    suite = SUITES[name]
    check_own(output)
    try:
        items = _first(suite.load(data), options.limit)
    except SuiteError as error:
        raise SuiteError(f"{error}. {suite.download}") from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise SuiteError(f"a record in {data} is not as {name} publishes it ({what}). {suite.download}") from error
    if suite.judge == "needed" and not options.judge_model:
        raise SuiteError(
            f"{name} cannot be scored without a judge: give --judge_model, and --judge_url of its endpoint"
        )
    if options.judge_url and not options.judge_model:
        raise SuiteError(f"--judge_url={options.judge_url} is of no use without --judge_model")
    judge = Judge(options.judge_model, options.judge_url, output / "judgements.jsonl") if options.judge_model else None
    recogniser = options.recogniser if suite.hears else OWN_WORDS
    listen, words = None, recogniser
    if recogniser == "whisper":
        words = f"whisper {options.whisper_model}"
    if recogniser != OWN_WORDS:
        listen = functools.partial(words_heard, recogniser=recogniser, model=options.whisper_model)
    elif talker is None and suite.hears:
        raise SuiteError("the answers of another model have no text beside their sound: choose a recogniser")
    if judge is None:  # then nobody asks for the users' words
        items = [dataclasses.replace(item, hear_user=False) for item in items]
    answers = data if talker is None else output / "answers"
    log(f"{name}: {len(items)} items")
    if talker is not None:
        made_by = {"suite": name, "model": model, "recogniser": words}
        with claimed(answers, made_by | ({"background": options.backend_name} if options.backend_name else {})):
            loaded = talker()
            answer(loaded, items, answers, listen, log, _desks(suite, items, options, loaded))
    elif not any(list((answers / item.task / item.id).glob(f"{item.prefix}output.*")) for item in items):
        first = items[0]
        raise SuiteError(
            f"{data} has no answer to score, such as {first.task}/{first.id}/{first.prefix}output.wav: put each beside "
            "its recording, or give --checkpoint in place of --score_only"
        )
    if suite.hears:
        given = hear(items, answers, listen or words_heard, words)
        if talker is None and given:
            words = f"none for {given} of {len(items)} answers, whose words were given" + (
                f"; {words} for the others" if given < len(items) else ""
            )
    sections = suite.score(Scoring(data, answers, options.strict, judge, tuple(items)))
    facts = {
        "suite": name,
        "model": model or None,
        "original": suite.figure,
        "evaluator": "strict" if options.strict else "compat",
        "recogniser": words,
        "judge": options.judge_model or None,
        "background": options.backend_name or None,
        "limit": options.limit or None,
    }
    return write_report(output, facts, sections)


def delegates(suite: Suite, options: Options) -> bool:
    """Whether the model hands tasks over: the suite has tools, or a language model does the tasks without any."""
    return suite.calls is not None or options.backend is not None


def _desks(suite: Suite, items: Sequence[Item], options: Options, talker: Talker) -> Callable[[Item], ToolDesk] | None:
    """Item → its desk, where tasks are handed over."""
    if not delegates(suite, options):
        return None
    calls = suite.calls or (lambda item: [])
    known = [call for item in items for call in calls(item)]
    return lambda item: tool_desk(known, calls(item), options.backend, talker.tokenizer, talker.config)


def check_own(output: pathlib.Path) -> None:
    """Makes sure that a folder is empty or an evaluation's, before files of one are written to it.

    Scenes, answers and judgements may lie there by themselves: brought from elsewhere, or of a run that was cut short.

    Raises:
      SuiteError: other files are there.
    """
    if not output.is_dir() or (output / MADE_BY).exists():
        return
    others = sorted({path.name for path in output.iterdir()} - _BEFORE_RESULTS)
    try:
        if others and "suite" not in json.loads((output / "results.json").read_text(encoding="utf-8")):
            raise ValueError("results of something else")
    except (OSError, ValueError, TypeError) as error:
        raise SuiteError(
            f"{output} holds other files than an evaluation's ({', '.join(others[:3])}): give a new or empty --output"
        ) from error


@contextlib.contextmanager
def claimed(answers: pathlib.Path, made_by: dict[str, str]) -> Iterator[None]:
    """Writes down what makes the answers in a folder, and keeps others out of it meanwhile.

    Raises:
      SuiteError: the folder has answers that something else made.
      FolderBusyError: another process is making some.
    """
    path = answers / MADE_BY
    with alone(answers, "--output", patience=1.0):
        begun = {each.name for each in answers.iterdir()} - _BEFORE_ANSWERS  # what failed before has made nothing
        if begun and path.exists() and (found := _maker(path)) != made_by:
            other = [key for key in {**found, **made_by} if found.get(key) != made_by.get(key)]
            differs = ", ".join(f"{key} {found.get(key)!r}, not {made_by.get(key)!r}" for key in other)
            raise SuiteError(f"{answers} holds answers of another run ({differs}): {_ELSEWHERE}")
        write_whole(path, json.dumps(made_by, indent=1))
        yield


def _maker(path: pathlib.Path) -> dict[str, str]:
    """What made the answers beside a `MADE_BY`."""
    try:
        return dict(read_json(path))
    except (SuiteError, TypeError, ValueError) as error:
        raise SuiteError(f"{path} does not tell what made the answers beside it ({error}): {_ELSEWHERE}") from error


def _first(items: list[Item], limit: int) -> list[Item]:
    """The first `limit` ids of each task, in all their prefixes."""
    kept: dict[str, dict[str, None]] = {}
    for item in items:
        ids = kept.setdefault(item.task, {})
        if not limit or len(ids) < limit:
            ids[item.id] = None
    return [item for item in items if item.id in kept[item.task]]
