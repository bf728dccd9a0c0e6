"""Search over the text files of a folder: the paragraph that fits the words best (BM25)."""

import collections
import dataclasses
import logging
import math
import os
import pathlib
import re
from collections.abc import Mapping

ENDINGS = (".txt", ".md", ".rst")
MOST_FILES = 2000
MOST_BYTES = 2**20  # of a file
_WORD = re.compile(r"[^\W_]+")
_COMMON = frozenset("a an and are as at be by do for from how i in is it me of on or that the this to was what".split())
_SATURATION, _LENGTH = 1.2, 0.75  # the usual constants of BM25


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A piece of a file: `source` is the file's path below the folder."""

    source: str
    text: str


@dataclasses.dataclass(frozen=True)
class Library:
    """Paragraphs and where their words are.

    Attributes:
      paragraphs: all of them.
      places: word → {paragraph: how often}.
      lengths: words of each paragraph.
    """

    paragraphs: tuple[Paragraph, ...]
    places: Mapping[str, Mapping[int, int]]
    lengths: tuple[int, ...]

    def best(self, query: str) -> Paragraph | None:
        """The paragraph that fits best; None where no word of the query is in any."""
        scores: dict[int, float] = collections.defaultdict(float)
        count, mean = len(self.lengths), sum(self.lengths) / max(1, len(self.lengths))
        for word in dict.fromkeys(_words(query)):
            places = self.places.get(word, {})
            rarity = math.log(1 + (count - len(places) + 0.5) / (len(places) + 0.5))
            for paragraph, often in places.items():
                longer = 1 - _LENGTH + _LENGTH * self.lengths[paragraph] / mean
                scores[paragraph] += rarity * often * (_SATURATION + 1) / (often + _SATURATION * longer)
        if not scores:
            return None
        return self.paragraphs[max(scores, key=lambda paragraph: (scores[paragraph], -paragraph))]


def read_library(folder: str | os.PathLike) -> Library:
    """Reads the text files below a folder. What is no UTF-8, too large or lies outside of it is left out, and logged.

    Args:
      folder: where they are.

    Returns:
      The library.

    Raises:
      ValueError: there is no such folder.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"{folder}: no such folder; give one with {', '.join(ENDINGS)} files")
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if len(files) > MOST_FILES:
        logging.warning("%s: %d files, the first %d are searched", folder, len(files), MOST_FILES)
    paragraphs = []
    for path in files[:MOST_FILES]:
        if not path.resolve().is_relative_to(root.resolve()) or path.stat().st_size > MOST_BYTES:
            logging.warning("%s: left out, it is too large or lies elsewhere", path)
            continue
        try:
            text = path.read_text("utf-8")
        except (UnicodeDecodeError, OSError) as error:
            logging.warning("%s: left out: %s", path, error)
            continue
        parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
        paragraphs += [Paragraph(path.relative_to(root).as_posix(), part) for part in parts if part]
    return library_of(paragraphs)


def library_of(paragraphs: list[Paragraph]) -> Library:
    """A library of paragraphs in memory."""
    places: dict[str, dict[int, int]] = collections.defaultdict(dict)
    lengths = []
    for index, paragraph in enumerate(paragraphs):
        words = _words(paragraph.text)
        lengths.append(len(words))
        for word, often in collections.Counter(words).items():
            places[word][index] = often
    return Library(tuple(paragraphs), dict(places), tuple(lengths))


def _words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if word not in _COMMON]
