"""Steps of a run compiled for TPUs that are not here, and what the compiler says of them.

The compiler counts the body of a loop once, however often it runs. So memory is read from the program as it will run,
with its loop over periods of layers, while operations, bytes and times are those of shallow programs without a loop:
one without layers of experts, and one more for each kind of them. What a layer of that kind adds, times their number,
makes the full depth.
"""

import dataclasses
import math
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping

import jax

from tml_jax.config import Config, ConfigError, ModelConfig
from tml_jax.model.backbone import layer_plan
from tml_jax.parallel.compile_options import TPU
from tml_jax.scale.collectives import bytes_sent, collective_bytes

# For the cost of steps that wait for weights. The compiler fetches these into VMEM ahead of their products, and then
# its account has every byte five times: from memory, into VMEM, twice at the end of the fetch, and out of VMEM. Without
# fetching ahead each is in it once, as the hardware reads it.
NO_FETCHING_AHEAD = {f"xla_{chip}_vmem_memory_space_assignment": "false" for chip in ("gf", "vf")}


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
      sent_bytes: that it sends in collectives, see `bytes_sent`.
    """

    flops: float
    seconds: float
    bytes_accessed: float
    untimed: float
    collective_bytes: Mapping[str, float]
    sent_bytes: float

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
            self.sent_bytes + times * other.sent_bytes,
        )

    def times(self, count: float) -> "Cost":
        """This so many times."""
        return NOTHING.plus(self, count)


NOTHING = Cost(0.0, 0.0, 0.0, 0.0, {}, 0.0)


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


@dataclasses.dataclass(frozen=True)
class Program:
    """A program compiled for TPUs.

    Attributes:
      compiled: of JAX.
      seconds: that compiling took.
      text: the program in HLO, as scheduled.
    """

    compiled: jax.stages.Compiled
    seconds: float
    text: str


def compile_for_tpu(lowered: jax.stages.Lowered, options: Mapping[str, str] = TPU) -> Program:
    """Compiles.

    Args:
      lowered: what.
      options: of the compiler.

    Returns:
      The program.

    Raises:
      DoesNotFit: the program needs more memory than a device has.
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # The compiler writes the text itself: of some asynchronous programs JAX cannot read it back in this version.
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            compiled = lowered.compile(compiler_options={**options, **dump})
        except jax.errors.JaxRuntimeError as error:
            text = str(error)
            if "RESOURCE_EXHAUSTED" not in text and "Ran out of memory" not in text:
                raise
            raise DoesNotFit(" ".join(text.split())[:2000], *sizes_in(text)) from error
        seconds = time.perf_counter() - began
        written = sorted(pathlib.Path(folder).glob("*after_optimizations.txt"))
        if not written:
            raise RuntimeError(f"the compiler (libtpu) left no text of the program among {os.listdir(folder)}")
        return Program(compiled, seconds, max(written, key=lambda path: path.stat().st_size).read_text())


def compile_and_tell(
    lowered: jax.stages.Lowered, what: str, log: Callable[[str], None], options: Mapping[str, str] = TPU
) -> Program:
    """`compile_for_tpu`, with a line to `log`: what was compiled, how long it took and what memory it takes."""
    program = compile_for_tpu(lowered, options)
    log(f"compiled {what} in {program.seconds:.0f} s: {memory_of(program).total / 2**30:.1f} GiB a device")
    return program


def sizes_in(message: str) -> tuple[int | None, int | None]:
    """Bytes that are needed and bytes that there are, as far as one of the compiler's messages says so."""
    size = r"([\d.]+)([KMG])"
    for pattern in (rf"Used {size} of {size} hbm", rf"\({size}\) exceeds available HBM \({size}\)"):
        if found := re.search(pattern, message):
            return _bytes(*found.group(1, 2)), _bytes(*found.group(3, 4))
    return None, None


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * {"K": 2**10, "M": 2**20, "G": 2**30}[unit])


def memory_of(program: Program) -> Memory:
    """Reads the memory that a program takes on one device."""
    found = program.compiled.memory_analysis()
    return Memory(
        found.argument_size_in_bytes,
        found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
    )


def cost_of(program: Program) -> Cost:
    """Reads what a program without loops does on one device."""
    found = program.compiled.cost_analysis()
    seconds = found.get("optimal_seconds", 0.0)
    # An operation of unknown time counts −1 s. The programs here take less than a second, so the whole seconds tell how
    # many there are.
    untimed = max(0, -math.floor(seconds))
    moved = collective_bytes(program.text)
    flops, accessed = found.get("flops", 0.0), found.get("bytes accessed", 0.0)
    return Cost(flops, seconds + untimed, accessed, untimed, moved, bytes_sent(program.text))


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a step takes on one device.

    Attributes:
      memory: of the program as it will run.
      layers: kind of layer, or `rest` → how many, and the cost of each, see `layer_costs`.
      compile_seconds: of all compilations.
    """

    memory: Memory
    layers: Mapping[str, tuple[int, Cost]]
    compile_seconds: float

    @property
    def cost(self) -> Cost:
        """At full depth."""
        whole = NOTHING
        for count, cost in self.layers.values():
            whole = whole.plus(cost, count)
        return whole


def measure(
    config: Config,
    lower: Callable[[Config], jax.stages.Lowered],
    log: Callable[[str], None],
    unlooped: Callable[[Config], Config] | None = None,
) -> Figures:
    """Compiles a step as it will run, for its memory, and at small depths, for its cost.

    Args:
      config: the run.
      lower: traces the step of a run.
      log: takes a line for each program compiled.
      unlooped: makes the run of which the cost is taken, where the step has a loop besides that over layers.

    Returns:
      The figures.

    Raises:
      DoesNotFit: it needs more memory than a device has.
    """
    spent = []

    def compiled(config: Config) -> Program:
        program = compile_and_tell(lower(config), f"{config.model.num_layers} layers", log)
        spent.append(program.seconds)
        return program

    memory = memory_of(whole := compiled(config))
    layers = None if has_loop(config.model) or unlooped else {"rest": (1, cost_of(whole))}
    del whole
    if layers is None:
        run = unlooped(config) if unlooped else config
        cost_at = lambda config: cost_of(compiled(config))  # noqa: E731
        layers = layer_costs(run, cost_at)
    return Figures(memory, layers, math.fsum(spent))


def has_loop(model: ModelConfig) -> bool:
    """Whether a step runs its layers, or some of them, in a loop."""
    return layer_plan(model)[1] > 0


def layer_costs(config: Config, cost_at: Callable[[Config], Cost]) -> dict[str, tuple[int, Cost]]:
    """Cost by kind of layer, from programs that have no loop: without layers of experts, and with one of either kind.

    A model so shallow that none of its layers runs in a loop is all `rest`.

    Args:
      config: the run.
      cost_at: the cost of the same step with another model.

    Returns:
      `sliding` and `global` layers of experts, and the `rest` of the step, → how many, and the cost of each.

    Raises:
      ConfigError: a layer with a dense MLP attends globally; none of the programs would have it.
    """
    model = config.model
    if not has_loop(model):
        return {"rest": (1, cost_at(config))}
    dense = model.num_dense_layers
    if dense >= model.global_every:
        raise ConfigError(
            f"config.model.num_dense_layers = {dense}: the cost of a model in whose dense layers one attends globally "
            f"(config.model.global_every = {model.global_every}) is not worked out"
        )
    of = lambda **sizes: cost_at(dataclasses.replace(config, model=dataclasses.replace(model, **sizes)))  # noqa: E731
    base = of(num_layers=dense, global_every=dense + 1)
    found = {"rest": (1, base)}
    for name, is_global in (("sliding", False), ("global", True)):
        count = sum(model.is_global(layer) == is_global for layer in range(dense, model.num_layers))
        one = of(num_layers=dense + 1, global_every=dense + (1 if is_global else 2))
        found[name] = count, one.plus(base, -1.0)
    return found
