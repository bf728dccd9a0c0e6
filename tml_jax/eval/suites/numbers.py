"""Numbers as people say them: "twenty one", "a hundred and five", "7"."""

import re

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_SMALL = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}


def numbers_said(text: str) -> list[int]:
    """The whole numbers below a million in a text, in order; "one two three" is three numbers, "twenty one" is one."""
    found: list[int] = []
    total = part = 0  # thousands, and what is below
    last = None  # the word before, if it belongs to the number going on
    for word in [*re.findall(r"\d+(?:,\d{3})*|[a-z]+|[.,;:!?]", text.lower().replace("-", " ")), ""]:
        if word == "and" and last in ("hundred", "thousand"):
            continue
        if word == "," and last == "thousand":
            continue
        goes_on = last is not None and (
            word in ("hundred", "thousand")
            or (last in ("hundred", "thousand") and word in _SMALL)
            or (last in _TENS and 0 < _SMALL.get(word, 0) < 10)
        )
        if last is not None and not goes_on:
            found.append(total + part)
            total, part, last = 0, 0, None
        if word[:1].isdigit():
            found.append(int(word.replace(",", "")))
        elif word in _SMALL:
            part, last = part + _SMALL[word], word
        elif word == "hundred":
            part, last = 100 * (part if last else 1), word
        elif word == "thousand":
            total, part, last = 1000 * (part if last else 1), 0, word
    return found
