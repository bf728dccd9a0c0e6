"""Turns of phrase, as patterns in text files: `wordings/train.txt`, and `wordings/held_out.txt` for what is held out.

A file has kinds, such as "[cue]", and under each a pattern a line: "[when|once] [i say|you hear] {cue} say {keyword}".
Lists of wordings, as in `scene_requests.py`, hold the same few turns again and again, and a replica that knows these
does not know others: with held-out ones two words away from any of training, it understood half of the cues and of the
plain requests. Each pattern stands for dozens. Fields and commas are those of `scene_requests.CARRIERS`.
"""

import functools
import importlib.resources

from tml_jax.data.record import OTHER, USER

_SPEAKERS = {"user": USER, "other": OTHER}


def patterns(part: str, kind: str) -> tuple[str, ...]:
    """The patterns of a kind, in the order of the file; none where it has no such kind.

    Args:
      part: `scene_grids.TRAIN` or `HELD_OUT`.
      kind: of request, or of what else is said.
    """
    return _kinds(part).get(kind, ())


@functools.cache
def exchanges(part: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """What the user and somebody else say to each other: (speaker, pattern) for each line of each exchange.

    Args:
      part: `scene_grids.TRAIN` or `HELD_OUT`.
    """
    return tuple(
        tuple((_SPEAKERS[who], text) for who, text in (line.split(": ", 1) for line in exchange.split(" / ")))
        for exchange in patterns(part, "side_talk")
    )


@functools.cache
def _kinds(part: str) -> dict[str, tuple[str, ...]]:
    text = importlib.resources.files("tml_jax.data").joinpath("wordings", f"{part}.txt").read_text("utf-8")
    kinds: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]") and line[1:-1].isidentifier():
            kinds[line[1:-1]] = found = []
        elif line and not line.startswith("#"):
            found.append(line)
    return {kind: tuple(found) for kind, found in kinds.items()}
