"""What devices send one another in a compiled program, read from its text."""

import re

_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "f8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_SIZES |= {"s64": 8, "u64": 8, "f64": 8}
_INSTRUCTION = re.compile(rf"= (\(?[^=]*?\)?) ({'|'.join(sorted(_KINDS, key=len, reverse=True))})(-start)?\(")
_ARRAY = re.compile(r"(pred|bf16|[suf]\d+)\w*\[([\d,]*)\]")
# On TPUs a reduce-scatter is a computation of an all-reduce of which each device keeps a slice; its name says so.
_SCATTER = re.compile(r"^%all-reduce-scatter[\w.-]* \([^\n]*\) -> ([^\n]*) \{.*?^\}", re.MULTILINE | re.DOTALL)


def collective_bytes(text: str) -> dict[str, float]:
    """Bytes that the collectives of a program put out on one device, by kind.

    Args:
      text: the compiled program, as HLO.

    Returns:
      Kind → bytes; those of an asynchronous one are counted where it starts, its largest array alone.
    """
    found: dict[str, float] = {}
    scatters = _SCATTER.findall(text)
    if scatters:
        found["reduce-scatter"] = float(sum(max(_sizes(shapes)) for shapes in scatters))
    for shapes, kind, start in _INSTRUCTION.findall(_SCATTER.sub("", text)):
        sizes = _sizes(shapes)
        if sizes:
            found[kind] = found.get(kind, 0.0) + (max(sizes) if start else sum(sizes))
    return found


def _sizes(shapes: str) -> list[int]:
    return [_SIZES[kind] * _count(dims) for kind, dims in _ARRAY.findall(shapes)]


def _count(dims: str) -> int:
    total = 1
    for size in filter(None, dims.split(",")):
        total *= int(size)
    return total
