"""How wordings are composed: one in the project's scripts stands for many that people might use.

A carrier has signs where words may come: "*say {keyword}+" is "say …", "could you please say …", "say … for me". A
pattern is made of parts: "[when|once] [i say|you hear] {cue} …".
"""

import itertools
import re

import numpy as np

_BEFORE = (
    "please", "can you", "could you", "would you", "can you please", "could you please", "would you please", "will you",
    "will you please", "now",
    "now please", "just", "i want you to", "i need you to", "i would like you to", "i am asking you to",
    "i ask you to", "go ahead and", "try to", "you should", "you may", "you can now", "you have to", "you need to",
    "it is time to", "do me a favour and", "be so kind and", "be nice and", "come on and", "why don't you",
    "maybe you can", "perhaps you could", "i think you should", "are you able to", "can i ask you to",
    "may i ask you to", "show me that you can", "help me and", "are you ready to", "do you want to", "how about you",
    "i hope you can", "i wonder if you can", "you are going to", "get ready to", "remember to", "make sure to",
    "do not forget to", "i expect you to", "it would be nice if you", "is it possible for you to", "next i want you to",
)  # fmt: skip
_AFTER = (
    "please", "for me", "now", "for us", "if you can", "thank you", "with me", "right now", "once", "out loud", "to us",
    "to me", "to them", "to everybody", "to the others", "my friend", "again", "and nothing else", "if you like",
    "will you", "at once", "so that i can hear it", "to her", "to him", "to my mother", "to all of us",
    "to the children", "to my friend", "to the man next door",
)  # fmt: skip


_PLAIN_SHARE, _AFTER_SHARE = 0.3, 0.35  # of wordings in which words could stand before, or follow


def wordings(carrier: str) -> tuple[str, ...]:
    """Every wording that a carrier stands for, the plain one first.

    Args:
      carrier: `*` stands where words may come that ask for anything, `+` where some may follow; only one of the two
        happens in a wording. Without signs, it stands for itself.
    """
    plain, before, after = _composed(carrier)
    return (plain, *before, *after)


def draw_wording(carrier: str, rng: np.random.Generator) -> str:
    """One of the `wordings` of a carrier; the plain one is likelier than any other."""
    plain, before, after = _composed(carrier)
    if not (before or after) or rng.random() < _PLAIN_SHARE:
        return plain
    composed = after if after and (not before or rng.random() < _AFTER_SHARE) else before
    return composed[int(rng.integers(len(composed)))]


def _composed(carrier: str) -> tuple[str, list[str], list[str]]:
    """A carrier as it stands, with words before, and with words after."""
    start, end = carrier.replace("+", ""), carrier.replace("*", "")
    before = [start.replace("*", f"{words} ") for words in _BEFORE if "*" in start]
    after = [end.replace("+", f" {words}") for words in _AFTER if "+" in end]
    return start.replace("*", ""), before, after


_ALTERNATIVES = re.compile(r"\[([^\]]*)\]")


def draw_phrase(pattern: str, rng: np.random.Generator) -> str:
    """One of the `phrases` of a pattern, each as likely."""

    def choose(match: re.Match) -> str:
        parts = match.group(1).split("|")
        return parts[int(rng.integers(len(parts)))]

    return _spaced(_ALTERNATIVES.sub(choose, pattern))


def phrases(pattern: str) -> tuple[str, ...]:
    """All that a pattern stands for: `[a|b|]` is a, b or nothing."""
    pieces = _ALTERNATIVES.split(pattern)  # every second one is a list of alternatives
    choices = [piece.split("|") if index % 2 else [piece] for index, piece in enumerate(pieces)]
    return tuple(_spaced("".join(parts)) for parts in itertools.product(*choices))


def _spaced(text: str) -> str:
    """One space between words, and none before a comma, whatever was left empty."""
    return " ".join(text.split()).replace(" ,", ",")
