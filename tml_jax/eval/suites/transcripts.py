"""What was said in a recording, word by word, in Full-Duplex-Bench's JSON: `{text, chunks: [{text, timestamp}]}`."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any


class SuiteError(ValueError):
    """A benchmark's files are missing or not as they are published: says which, and what was expected."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A word from `start` to `end` seconds. Some recognisers leave an end open: None."""

    text: str
    start: float
    end: float | None


@dataclasses.dataclass(frozen=True)
class Transcript:
    """A recording's words.

    Attributes:
      text: all of it.
      chunks: word by word.
      said: the model's own text to its sound, where a model made the recording.
      shown: the text that the model showed and did not speak.
      user_ends: seconds, when each piece of the user's sound ended, where the answer was made here.
      heard_by: the recogniser that the words are of, where they were recognised from a sound that was given.
    """

    text: str
    chunks: tuple[Chunk, ...]
    said: str = ""
    shown: str = ""
    user_ends: tuple[float, ...] = ()
    heard_by: str = ""

    @property
    def seconds(self) -> float:
        """From the first start to the last end, or to the last start where that end is open; 0 without words."""
        if not self.chunks:
            return 0.0
        last = self.chunks[-1]
        return (last.start if last.end is None else last.end) - self.chunks[0].start


def transcript_of(
    chunks: Sequence[Chunk], said: str = "", shown: str = "", user_ends: Sequence[float] = ()
) -> Transcript:
    """A transcript whose text is that of its words."""
    return Transcript(" ".join(chunk.text for chunk in chunks), tuple(chunks), said, shown, tuple(user_ends))


def read_transcript(path: pathlib.Path) -> Transcript:
    """Reads a transcript.

    Raises:
      SuiteError: the file is missing or has another form.
    """
    content = read_json(path)
    try:
        chunks = tuple(Chunk(chunk["text"], *chunk["timestamp"]) for chunk in content["chunks"])
        own = content.get("said", ""), content.get("shown", ""), tuple(content.get("user_ends", ()))
        own += (content.get("heard_by", ""),)
        return Transcript(content["text"], chunks, *own)
    except (KeyError, TypeError) as error:
        raise SuiteError(
            f"{path}: expected {{text, chunks: [{{text, timestamp: [start, end]}}]}} ({error!r})"
        ) from error


def task_folders(data: pathlib.Path, tasks: Iterable[str]) -> list[str]:
    """Which of a benchmark's tasks have their folder in `data`.

    Raises:
      SuiteError: none has.
    """
    tasks = list(tasks)
    there = [task for task in tasks if (data / task).is_dir()]
    if not there:
        raise SuiteError(f"{data} has none of the folders {', '.join(tasks)}")
    return there


def write_transcript(path: pathlib.Path, transcript: Transcript) -> None:
    """Writes a transcript; what the published evaluators do not read stands beside."""
    chunks = [{"text": chunk.text, "timestamp": [chunk.start, chunk.end]} for chunk in transcript.chunks]
    own = {"said": transcript.said, "shown": transcript.shown, "user_ends": transcript.user_ends}
    own |= {"heard_by": transcript.heard_by} if transcript.heard_by else {}
    content = {"text": transcript.text, "chunks": chunks, **own}
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def read_json(path: pathlib.Path) -> Any:
    """Reads a JSON file, with a SuiteError that names it where that fails."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SuiteError(f"{path} is missing") from error
    except ValueError as error:
        raise SuiteError(f"{path} is no JSON ({error})") from error


def json_objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, whatever stands around them; those inside others are not listed."""
    decoder, found, position = json.JSONDecoder(), [], text.find("{")
    while position != -1:
        try:
            value, position = decoder.raw_decode(text, position)
            found.append(value)
        except json.JSONDecodeError:
            position += 1
        position = text.find("{", position)
    return found


def utterances(chunks: Sequence[Chunk], gap: float = 1.0) -> list[tuple[float, str]]:
    """Words as utterances, (start in seconds, text): a silence of more than `gap` seconds begins a new one."""
    found: list[tuple[float, str]] = []
    ended = 0.0
    for chunk in chunks:
        if found and chunk.start - ended <= gap:
            found[-1] = found[-1][0], f"{found[-1][1]} {chunk.text}"
        else:
            found.append((chunk.start, chunk.text))
        ended = chunk.start if chunk.end is None else chunk.end
    return found


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
    """The folders in a folder: numbered ones by number, then the rest by name.

    Raises:
      SuiteError: there is no such folder.
    """
    if not folder.is_dir():
        raise SuiteError(f"{folder} is missing")
    found = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(
        found, key=lambda entry: (not entry.name.isdigit(), len(entry.name) * entry.name.isdigit(), entry.name)
    )
