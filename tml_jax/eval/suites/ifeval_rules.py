"""IFEval's instructions as checks of a response (Zhou et al., arXiv 2311.07911): the 25 kinds that its data have.

Each check takes the response and the instruction's own arguments, by the names that the data give them. The tests hold
them against the published checker. Where they differ:

- `length_constraints:number_sentences` and `change_case:capital_word_frequency` split text by a rule, because the
  published ones need tables of NLTK that are a download of their own;
- `language:response_language`, `change_case:english_capital` and `change_case:english_lowercase` need `langdetect`, as
  there. Without it they are not scored. Its draws are seeded, so that a response gets one verdict.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_RELATIONS = {"less than": operator.lt, "at least": operator.ge}
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
# What ends with a point and does not end a sentence.
_ABBREVIATIONS = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|U\.S|a\.m|p\.m|[A-Z])\.$")


class NotScored(Exception):
    """An instruction that cannot be checked here: says which."""


def follows(kind: str, response: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a response follows an instruction.

    Args:
      kind: such as `punctuation:no_comma`.
      response: the text; one without words follows nothing.
      arguments: of the instruction; those that are None count as absent.

    Returns:
      The verdict.

    Raises:
      NotScored: the kind is unknown, or needs `langdetect`, which is not installed.
    """
    if kind not in CHECKS:
        raise NotScored(kind)
    given = {name: value for name, value in arguments.items() if value is not None}
    return bool(response.strip()) and bool(CHECKS[kind](response, **given))


def follows_loosely(kind: str, response: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the response follows, or does so without its first line, last line, both, or its asterisks."""
    lines = response.split("\n")
    cut = [response, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return any(follows(kind, text, arguments) for text in [*cut, *(text.replace("*", "") for text in cut)])


def _compared(count: int, relation: str, bound: int) -> bool:
    if relation not in _RELATIONS:
        raise ValueError(f"relation {relation!r}: expected one of {', '.join(_RELATIONS)}")
    return _RELATIONS[relation](count, bound)


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(re.search(keyword, text, re.IGNORECASE) for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compared(len(re.findall(keyword.strip(), text, re.IGNORECASE)), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in forbidden_words)


def _letters(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compared(text.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:
    return _detected(text, language)


def _sentences(text: str, num_sentences: int, relation: str) -> bool:
    return _compared(len(split_sentences(text)), relation, num_sentences)


def _words(text: str, num_words: int, relation: str) -> bool:
    return _compared(len(re.findall(r"\w+", text)), relation, num_words)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inside = [bool(part.strip()) for part in parts[1:-1]]
    return all(inside) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = text.split("\n\n")
    count = sum(bool(part.strip()) for part in parts)
    if nth_paragraph > count or not parts[nth_paragraph - 1].strip():
        return False
    word = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return count == num_paragraphs and re.split(r"[.,?!'\"]", word)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return bool(re.search(patterns.get(marker, marker.lower()), text.lower()))


def _bullets(text: str, num_bullets: int) -> bool:
    starred = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    return len(starred) + len(re.findall(r"^\s*-.*$", text, re.MULTILINE)) == num_bullets


def _constrained(text: str) -> bool:
    return any(option in text for option in _OPTIONS)


def _highlights(text: str, num_highlights: int) -> bool:
    single = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part[2:-2].strip()]
    return len(single) + len(double) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{section_spliter.strip()}\s?\d+\s?", text)) - 1 >= num_sections


def _json(text: str) -> bool:
    body = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```").strip()
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _title(text: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two_responses(text: str) -> bool:
    parts = text.split("******")
    full = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(full) == 2 and full[0] != full[1]


def _repeat(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_frequency: int, capital_relation: str) -> bool:
    # A hyphenated word counts once; what stands around a word does not belong to it.
    found = re.findall(r"\w+(?:[-'’]\w+)*", text)
    return _compared(sum(word.isupper() for word in found), capital_relation, capital_frequency)


def _all_capital(text: str) -> bool:
    return text.isupper() and _detected(text, "en")


def _all_lowercase(text: str) -> bool:
    return text.islower() and _detected(text, "en")


def _no_comma(text: str) -> bool:
    return "," not in text


def _quotation(text: str) -> bool:
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _detected(text: str, language: str) -> bool:
    """Whether the text is in a language; what has no letters to tell by counts as followed, as published."""
    try:
        from langdetect import DetectorFactory, LangDetectException, detect
    except ImportError as error:
        raise NotScored("langdetect is not installed") from error
    DetectorFactory.seed = 0
    try:
        return detect(text) == language
    except LangDetectException:
        return True


def split_sentences(text: str) -> list[str]:
    """Sentences by a rule: a point, `!` or `?` before a space ends one, if no abbreviation; so does an empty line."""
    found: list[str] = []
    for part in re.split(r"\n\s*\n", text):
        start = 0
        for mark in re.finditer(r"[.!?][\"')\]]*(?=\s)", part):
            if not _ABBREVIATIONS.search(part[start : mark.start() + 1]):
                found.append(part[start : mark.end()])
                start = mark.end()
        found.append(part[start:])
    return [sentence.strip() for sentence in found if sentence.strip()]


CHECKS: dict[str, Callable[..., Any]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _all_capital,
    "change_case:english_lowercase": _all_lowercase,
    "punctuation:no_comma": _no_comma,
}
