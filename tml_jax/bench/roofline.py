"""The train step and the micro-turn on whatever device is here, beside what that device could do.

Two times that no program can beat: operations over the rate of a large product, bytes over the rate of a large copy,
both measured in the same run. Operations are what the mathematics asks for (`scale.flops`). Bytes are what must move
at least: a train step reads and writes the weights and both moments of AdamW, and reads the weights once more for the
backward pass and writes and reads their gradient; each pass of a micro-turn (the input, every step of text, every
element of sound) reads the weights that it uses, and the whole of it reads the caches. What lies between, such as
activations, is left out, so the floors are low rather than high.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from tml_jax.bench import machine
from tml_jax.bench.own_step import whole_step
from tml_jax.bench.timing import Times, interleaved
from tml_jax.bench.turns import WholeTurn
from tml_jax.config import AUDIO_ELEMENTS, Config, ModelConfig
from tml_jax.markdown import markdown_table
from tml_jax.model.count import count_parameters
from tml_jax.scale.flops import flow_flops, layer_flops, train_flops
from tml_jax.serve.windows import block_sizes

SESSIONS = (1, 16, 128)
_TRAIN_MOVES = 9  # times that a weight's bytes move in a train step, as the head of this file counts them
_SECONDS = 0.2  # of one measurement of a rate
_LARGE = 0.002  # seconds that one call takes at least, so that starting it is not what is measured


@dataclasses.dataclass(frozen=True)
class Rates:
    """What the device can do: operations a second in products of a type, and bytes a second, read and written."""

    operations: dict[str, float]
    bytes: float


@dataclasses.dataclass(frozen=True)
class Line:
    """One program: its time beside the two that it cannot beat, in seconds.

    Attributes:
      name: of the program.
      times: of it.
      arithmetic: its operations at the device's rate.
      memory: its bytes at the device's rate.
      micro_turns: that it does, of all sessions or rows.
    """

    name: str
    times: Times
    arithmetic: float
    memory: float
    micro_turns: float

    @property
    def over_floor(self) -> float:
        """The time over the larger of the two."""
        return self.times.median / max(self.arithmetic, self.memory)


@dataclasses.dataclass(frozen=True)
class RooflineBench:
    """What was measured.

    Attributes:
      device: its kind.
      rates: of it.
      lines: one for each program.
      parameters: of the model.
      versions: of software, and the number of cores.
    """

    device: str
    rates: Rates
    lines: tuple[Line, ...]
    parameters: int
    versions: dict[str, str]

    def __str__(self) -> str:
        header = ["", "ms (quartiles)", "arithmetic alone", "memory alone", "time / floor", "micro-turns / s"]
        rows = [
            [
                line.name,
                f"{line.times.median * 1e3:.2f} ({line.times.low * 1e3:.2f}–{line.times.high * 1e3:.2f})",
                f"{line.arithmetic * 1e3:.3f} ms",
                f"{line.memory * 1e3:.3f} ms",
                f"{line.over_floor:.1f}",
                f"{line.micro_turns / line.times.median:,.0f}",
            ]
            for line in self.lines
        ]
        rates = ", ".join(f"{rate / 1e12:.1f} TFLOP/s in {dtype}" for dtype, rate in self.rates.operations.items())
        return "\n".join(
            [
                markdown_table([header, *rows], left=1),
                f"{self.parameters / 1e6:.1f} M parameters; {self.device}: {rates}, {self.rates.bytes / 1e9:.0f} GB/s",
                ", ".join(f"{name} {version}" for name, version in self.versions.items()),
            ]
        )


def roofline_bench(
    config: Config,
    repeats: int = 15,
    sessions: Sequence[int] = SESSIONS,
    log: Callable[[str], None] = print,
) -> RooflineBench:
    """Measures on the first device.

    Args:
      config: the run, whose model, rows and types are measured.
      repeats: turns of each program.
      sessions: at once, in the lines of the micro-turn.
      log: takes lines of progress.

    Returns:
      The measurement.

    Raises:
      ValueError: a count is below one.
    """
    used = (config.train.compute_dtype, config.serve.dtype)
    rates = measure_rates(sorted(set(used)))
    counts = count_parameters(config.model)
    log(f"{jax.devices()[0].device_kind}: {rates}")
    lines = [_train_line(config, counts, rates, repeats)]
    for count in sessions:
        log(f"{lines[-1].name}: {lines[-1].times.median * 1e3:.2f} ms")
        lines.append(_turn_line(config, counts, rates, count, repeats))
    return RooflineBench(jax.devices()[0].device_kind, rates, tuple(lines), sum(counts.values()), machine.versions())


def measure_rates(dtypes: Sequence[str], seconds: float = _SECONDS) -> Rates:
    """Measures what the first device does in one large product of each type, and in a large copy.

    Args:
      dtypes: of the products, at JAX's default precision as everywhere in the model.
      seconds: of each measurement.

    Returns:
      The rates.
    """

    def product(dtype: str, doublings: int) -> tuple[float, float]:
        one, other = jax.random.normal(jax.random.key(0), (2, 512 * 2**doublings, 512 * 2**doublings), dtype)
        return 2 * len(one) ** 3, _of_one(jax.jit(jnp.matmul), seconds, one, other)

    def copy(doublings: int) -> tuple[float, float]:
        numbers = jax.random.normal(jax.random.key(0), (2 ** (22 + doublings),))
        return 2 * numbers.nbytes, _of_one(jax.jit(jnp.negative), seconds, numbers)

    return Rates({dtype: _rate(functools.partial(product, dtype)) for dtype in dtypes}, _rate(copy))


def _rate(measure: Callable[[int], tuple[float, float]]) -> float:
    """Work a second of the smallest size that takes `_LARGE`; `measure` takes doublings, gives work and seconds."""
    for doublings in range(6):
        work, taken = measure(doublings)
        if taken >= _LARGE:
            break
    return work / taken


def _of_one(program: Callable[..., jax.Array], seconds: float, *arguments: jax.Array) -> float:
    """Seconds of one call, over calls that are handed to the device one after the other for so long."""
    program(*arguments).block_until_ready()
    calls, taken = 1, 0.0
    while taken < seconds:
        calls = math.ceil(1.2 * calls * seconds / taken) if taken else 2
        begun = time.perf_counter()
        for _ in range(calls):
            out = program(*arguments)
        out.block_until_ready()
        taken = time.perf_counter() - begun
    return taken / calls


def _train_line(config: Config, counts: dict[str, int], rates: Rates, repeats: int) -> Line:
    step, rows = whole_step(config), config.data.batch_size
    return Line(
        name=f"train step, {rows} × {config.data.packing.elements} elements, {config.train.compute_dtype}",
        times=interleaved({"": step}, repeats)[""],
        arithmetic=sum(train_flops(config).useful.values()) / rates.operations[config.train.compute_dtype],
        memory=_TRAIN_MOVES * 4 * sum(counts.values()) / rates.bytes,
        micro_turns=rows * config.data.packing.audio_in / AUDIO_ELEMENTS,
    )


def _turn_line(config: Config, counts: dict[str, int], rates: Rates, sessions: int, repeats: int) -> Line:
    turn = WholeTurn(config, sessions)
    steps = turn()
    operations, moved = micro_turn_work(config, counts, sessions, steps)
    return Line(
        name=f"micro-turn, {sessions} session{'s' * (sessions > 1)}, {steps} text steps, {config.serve.dtype}",
        times=interleaved({"": turn}, repeats, steps_per_turn=1)[""],
        arithmetic=operations / rates.operations[config.serve.dtype],
        memory=(moved + turn.cache_bytes) / rates.bytes,
        micro_turns=sessions,
    )


def micro_turn_work(config: Config, counts: dict[str, int], sessions: int, steps: int) -> tuple[float, float]:
    """What a micro-turn in which all speak must compute and read, but for its caches.

    Args:
      config: the run.
      counts: of `count_parameters`.
      sessions: at once.
      steps: of text.

    Returns:
      Operations, without the pairs of attention, which are few beside them, and bytes of weights.
    """
    model = config.model
    passes = [(sessions * block_sizes(config)[0], 1), (sessions, steps), (sessions, AUDIO_ELEMENTS)]  # (tokens, times)
    elements = sum(tokens * times for tokens, times in passes)
    operations = elements * sum(layer_flops(model).values())
    operations += sessions * steps * 2 * model.d_model * model.vocab_size
    operations += sessions * AUDIO_ELEMENTS * flow_flops(model) * model.flow_steps
    layers = sum(counts[part] for part in _LAYERS)
    weights = sum(times * (layers + _met(model, tokens) * counts["routed experts"]) for tokens, times in passes)
    weights += steps * counts["unembedding"] + AUDIO_ELEMENTS * counts["flow head"]
    return operations, weights * jnp.dtype(config.serve.dtype).itemsize


_LAYERS = ("attention", "dense MLPs", "routers", "shared experts", "branch convolutions", "norms")


def _met(model: ModelConfig, tokens: int) -> float:
    """Share of the experts that so many tokens meet, each choosing at random."""
    return 1 - (1 - model.top_k / model.num_experts) ** tokens
