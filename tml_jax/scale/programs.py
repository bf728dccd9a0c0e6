"""Steps of a run compiled for TPUs that are not here, and what the compiler says of them.

The compiler counts the body of a loop once, however often it runs. So memory is read from the program as it will run,
with its loop over periods of layers, while operations, bytes and times are those of programs without a loop: of two
small depths that differ by one period, from which the full depth follows exactly, as all periods are alike.
"""

import dataclasses
import math
import re
import time
from collections.abc import Callable, Mapping

import jax

from tml_jax.config import Config
from tml_jax.model.backbone import layer_plan

# Gathers stay on the main cores: on the others (SparseCore) the program could not be read back as text, for its
# collectives, and compiling took ten times as long (jaxlib 0.10.2, libtpu 0.0.52).
OPTIONS = {"xla_tpu_offload_gather_to_sparsecore": "false"}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one device does in a program, by the compiler's account. Sums, differences and multiples make sense.

    Attributes:
      flops: operations.
      seconds: `optimal_seconds`: each operation at the speed of arithmetic or of memory, whichever takes longer;
        waiting for other devices is not in it.
      bytes_accessed: to and from memory.
      untimed: operations whose time the compiler does not know; `seconds` is without them.
      collective_bytes: kind of collective → bytes of its results.
    """

    flops: float
    seconds: float
    bytes_accessed: float
    untimed: float
    collective_bytes: Mapping[str, float]

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """This and `times` the other."""
        kinds = sorted(self.collective_bytes.keys() | other.collective_bytes.keys())
        moved = {k: self.collective_bytes.get(k, 0.0) + times * other.collective_bytes.get(k, 0.0) for k in kinds}
        return Cost(
            self.flops + times * other.flops,
            self.seconds + times * other.seconds,
            self.bytes_accessed + times * other.bytes_accessed,
            self.untimed + times * other.untimed,
            moved,
        )


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      arguments: state and inputs.
      outputs: results that do not take the place of arguments.
      temporaries: everything in between, at its peak.
      code: the program.
    """

    arguments: int
    outputs: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.arguments + self.outputs + self.temporaries + self.code


@dataclasses.dataclass(frozen=True)
class DoesNotFit(Exception):
    """The compiler found no way to stay within the memory of a device.

    Attributes:
      message: what it said.
      needed: bytes, where it said so.
      available: bytes, where it said so.
    """

    message: str
    needed: int | None
    available: int | None


def compile_for_tpu(lowered: jax.stages.Lowered) -> tuple[jax.stages.Compiled, float]:
    """Compiles, and says how many seconds that took.

    Raises:
      DoesNotFit: the program needs more memory than a device has.
    """
    began = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=OPTIONS)
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
            raise
        used = re.search(r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm", text)
        sizes = (_bytes(*used.group(1, 2)), _bytes(*used.group(3, 4))) if used else (None, None)
        raise DoesNotFit(" ".join(text.split())[:2000], *sizes) from error
    return compiled, time.perf_counter() - began


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])


def memory_of(compiled: jax.stages.Compiled) -> Memory:
    """Reads the memory that a program takes on one device."""
    found = compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def cost_of(compiled: jax.stages.Compiled) -> Cost:
    """Reads what a program without loops does on one device."""
    found = compiled.cost_analysis()
    try:
        moved = collective_bytes(compiled.as_text())
    except jax.errors.JaxRuntimeError:  # some asynchronous programs cannot be read back in this version
        moved = {}
    seconds = found.get("optimal_seconds", 0.0)
    # An operation of unknown time counts −1 s. The programs here take less than a second, so the whole seconds tell how
    # many there are.
    untimed = max(0, -math.floor(seconds))
    return Cost(found.get("flops", 0.0), seconds + untimed, found.get("bytes accessed", 0.0), untimed, moved)


_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "f8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_SIZES |= {"s64": 8, "u64": 8, "f64": 8}
_INSTRUCTION = re.compile(rf"= (\(?[^=]*?\)?) ({'|'.join(sorted(_KINDS, key=len, reverse=True))})(-start)?\(")
_ARRAY = re.compile(r"(pred|bf16|[suf]\d+)\w*\[([\d,]*)\]")


def collective_bytes(text: str) -> dict[str, float]:
    """Bytes that the collectives of a program put out on one device, by kind.

    Args:
      text: the compiled program, as HLO.

    Returns:
      Kind → bytes; those of an asynchronous one are counted where it starts, its largest array alone.
    """
    found: dict[str, float] = {}
    for shapes, kind, start in _INSTRUCTION.findall(text):
        sizes = [_SIZES[kind_] * _count(dims) for kind_, dims in _ARRAY.findall(shapes)]
        if sizes:
            found[kind] = found.get(kind, 0.0) + (max(sizes) if start else sum(sizes))
    return found


def _count(dims: str) -> int:
    total = 1
    for size in filter(None, dims.split(",")):
        total *= int(size)
    return total


def with_layers(config: Config, layers: int) -> Config:
    """The same run with a model of another depth."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=layers))


def full_cost(config: Config, cost_at: Callable[[Config], Cost]) -> Cost:
    """Cost of all layers, from programs that have no loop.

    Args:
      config: the run.
      cost_at: the cost of the same step with a model of another depth, less than two periods of sparse layers.

    Returns:
      The cost at the full depth.
    """
    before, periods, after = layer_plan(config.model)
    if not periods:
        return cost_at(config)
    ends = len(before) + len(after)
    shallow = cost_at(with_layers(config, ends))
    deep = cost_at(with_layers(config, ends + config.model.global_every))
    return shallow.plus(deep.plus(shallow, -1.0), periods)
