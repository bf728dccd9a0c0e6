"""What devices send one another in a compiled program, read from its text."""

import math
import re
from collections.abc import Iterator

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "f8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_SIZES |= {"s64": 8, "u64": 8, "f64": 8}
_INSTRUCTION = re.compile(rf"= (\(?[^=]*?\)?) ({'|'.join(sorted(_KINDS, key=len, reverse=True))})(-start)?\(([^\n]*)")
_COMMENT = re.compile(r"/\*.*?\*/")  # XLA numbers the arrays of longer tuples in them
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\}|mesh\[([^\]]*)\][^{\n]*\{([^}]*)\})")
_UNKNOWN = 2**20  # devices of a group that the text does not name: what a ring sends then is at its most
_ARRAY = re.compile(r"(pred|bf16|[suf]\d+)\w*\[([\d,]*)\]")
# On TPUs a reduce-scatter is a computation of an all-reduce of which each device keeps a slice; its name says so.
_SCATTER = re.compile(r"^%all-reduce-scatter[\w.-]* \([^\n]*\) -> ([^\n]*) \{(.*?)^\}", re.MULTILINE | re.DOTALL)


def collective_bytes(text: str) -> dict[str, float]:
    """Bytes of the results of the collectives of a program on one device, by kind.

    Args:
      text: the compiled program, as HLO.

    Returns:
      Kind → bytes; those of an asynchronous one are counted where it starts.

    Raises:
      ValueError: a group is written in a way that is not known.
    """
    found: dict[str, float] = {}
    for kind, size, _ in _collectives(text):
        found[kind] = found.get(kind, 0.0) + size
    return found


def bytes_sent(text: str) -> float:
    """Bytes that one device sends in the collectives of a program, each done by a ring of its group.

    Of n devices each sends (n − 1) / n of what an all-gather or all-to-all results in, n − 1 times the result of a
    reduce-scatter, and of an all-reduce, which is one after the other, 2 (n − 1) / n. A permutation sends its result.

    Raises:
      ValueError: a group is written in a way that is not known.
    """
    sent = 0.0
    for kind, size, group in _collectives(text):
        if kind in ("collective-permute", "ragged-all-to-all"):
            sent += size
        else:
            times = {"reduce-scatter": group, "all-reduce": 2}.get(kind, 1)
            sent += size * times * (group - 1) / group
    return sent


def _collectives(text: str) -> Iterator[tuple[str, float, int]]:
    """Kind, bytes of the result and devices of the group, of each collective."""
    text = _COMMENT.sub("", text)
    for shapes, body in _SCATTER.findall(text):
        yield "reduce-scatter", float(sum(_sizes(shapes))), _group(body)
    for shapes, kind, start, rest in _INSTRUCTION.findall(_SCATTER.sub("", text)):
        if sizes := _sizes(shapes):
            yield kind, float(_started(kind, shapes) if start else sum(sizes)), _group(rest)


def _started(kind: str, shapes: str) -> int:
    """Bytes that a collective that is started results in: it names (given, result), or ((given, …), (results, …))."""
    if shapes.startswith("(("):
        return sum(_sizes(shapes.split("), (", 1)[1]))
    return (min if kind == "reduce-scatter" else max)(_sizes(shapes))


def _group(text: str) -> int:
    """Devices of a group, which are listed, counted, or those along some axes of a mesh."""
    found = _GROUPS.search(text)
    if not found:
        if "replica_groups=" in text and "replica_groups={}" not in text:
            raise ValueError(f"a group of an unknown form: {text[text.index('replica_groups=') :][:80]}")
        return _UNKNOWN
    count, members, axes, along = found.groups()
    if axes is None:
        return int(count) if count else len(members.split(","))
    sizes = dict(axis.split("=") for axis in axes.split(","))
    try:
        return math.prod(int(sizes[name]) for name in along.replace(" ", "").split(","))
    except KeyError as error:
        raise ValueError(f"a group along an unknown axis: {found.group(0)[:120]}") from error


def _sizes(shapes: str) -> list[int]:
    return [_SIZES[kind] * _count(dims) for kind, dims in _ARRAY.findall(shapes)]


def _count(dims: str) -> int:
    total = 1
    for size in filter(None, dims.split(",")):
        total *= int(size)
    return total
