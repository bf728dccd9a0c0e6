"""Turns of phrase, as patterns in text files: `wordings/train.txt`, and `development.txt` and `held_out.txt` beside it.

A file has kinds, such as "[cue]", and under each a pattern a line: "[when|once] [i say|you hear] {cue} say {keyword}",
which stands for every choice of one from each bracket (nothing is a choice, too: "[please|]"). A line of `side_talk` is
an exchange: "other: are you [busy|ready] / user: in a minute". A line that begins with # is a comment.
Lists of wordings, as in `carriers.py`, hold the same few turns again and again, and a replica that knows these
does not know others: with held-out ones two words away from any of training, it understood half of the cues and of the
plain requests. Each pattern stands for dozens. Fields and commas are those of `carriers.CARRIERS`.
"""

import functools
import importlib.resources
import re

from tml_jax.data.record import OTHER, USER

_SPEAKERS = {"user": USER, "other": OTHER}
# Kind → what its patterns are filled in with, each exactly once.
_FIELDS = {
    "answer": "keyword", "pause": "keyword", "count": "", "timed": "delay keyword", "cue": "cue keyword",
    "visual": "keyword shape", "visual_stop": "keyword second shape", "repetition": "action shape", "count_seen": "",
    "quiet_until_seen": "", "repeat": "", "translate": "", "sum": "sum", "following": "sum", "refining": "sum",
    "word": "word", "silence": "", "filler": "", "television": "", "story": "story", "story_piece": "",
    "side_talk": "", "interruption": "", "near_remark": "",
}  # fmt: skip
_OPTIONAL = {"near_remark": ("one", "two", "sum")}  # what there may be besides
_PATTERN = re.compile(r"(?:[a-z0-9' ,]|\{[a-z]+\}|\[[a-z0-9' |]*\])+")


def patterns(part: str, kind: str) -> tuple[str, ...]:
    """The patterns of a kind, in the order of the file; none where it has no such kind.

    Args:
      part: `grids.TRAIN`, `DEVELOPMENT` or `HELD_OUT`.
      kind: of request, or of what else is said.
    """
    return _kinds(part).get(kind, ())


@functools.cache
def exchanges(part: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What the user and somebody else say to each other: (speaker, pattern) for each line of each exchange.

    Args:
      part: `grids.TRAIN`, `DEVELOPMENT` or `HELD_OUT`.
    """
    return tuple(
        tuple((_SPEAKERS[who], text) for who, text in _spoken(exchange)) for exchange in patterns(part, "side_talk")
    )


@functools.cache
def _kinds(part: str) -> dict[str, tuple[str, ...]]:
    text = importlib.resources.files("tml_jax.scenes").joinpath("wordings", f"{part}.txt").read_text("utf-8")
    return read_kinds(text, f"wordings/{part}.txt")


def read_kinds(text: str, name: str) -> dict[str, tuple[str, ...]]:
    """Kind → its patterns, of a file's text.

    Args:
      text: of the file.
      name: of the file, for errors.

    Raises:
      ValueError: a line is not as the head of this module says, or a kind is missing, unknown or there twice.
    """
    kinds: dict[str, list[str]] = {}
    kind = ""
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]") and line[1:-1].isidentifier():
            kind, wrong = line[1:-1], ""
            if kind not in _FIELDS or kind in kinds:
                wrong = f"kind {kind!r} is {'there twice' if kind in kinds else 'not known'}"
            kinds[kind] = []
        else:
            wrong = _fault(kind, line) if kind else "a pattern before any kind, such as [cue]"
            kinds.setdefault(kind, []).append(line)
        if wrong:
            raise ValueError(f"{name}:{number}: {wrong}: {line!r}")
    if missing := [each for each in _FIELDS if not kinds.get(each)]:
        raise ValueError(f"{name}: kind {missing[0]!r} has no pattern")
    return {each: tuple(found) for each, found in kinds.items()}


def _fault(kind: str, line: str) -> str:
    """What is wrong with a line of a kind, or ""."""
    lines = [line]
    if kind == "side_talk":
        if {who for who, _ in _spoken(line)} != set(_SPEAKERS):
            return "expected lines of both speakers, such as `user: … / other: …`"
        lines = [text for _, text in _spoken(line)]
    if not all(map(_PATTERN.fullmatch, lines)):
        return "expected small letters, {fields} and [choices|between|bars], closed and not within one another"
    optional = _OPTIONAL.get(kind, ())
    fields = [field for field in re.findall(r"{(\w+)}", line) if field not in optional]
    if sorted(fields) != sorted(_FIELDS[kind].split()):
        return f"{kind} is filled in with {_FIELDS[kind] or ' '.join(optional) or 'nothing'}"
    return ""


def _spoken(exchange: str) -> list[tuple[str, str]]:
    """(who, text) of each line of an exchange; everything is `who` where no speaker is named."""
    return [(who, text) for who, _, text in (line.partition(": ") for line in exchange.split(" / "))]
