"""The train step at full size, compiled for a topology: what it takes, and how near it comes to the chips' best."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from tml_jax.config import AUDIO_ELEMENTS, MICRO_TURN_SECONDS, Config
from tml_jax.data.packing import empty_batch
from tml_jax.parallel.mesh import make_mesh
from tml_jax.scale.chips import Chip
from tml_jax.scale.flops import train_flops
from tml_jax.scale.programs import measure
from tml_jax.train.step import make_train

AGREEMENT = 0.1  # the compiler's operations and ours may differ by so much, or no utilisation is given


def lower_train(config: Config, mesh: Mesh) -> jax.stages.Lowered:
    """The train step, traced for TPUs; nothing is allocated."""
    train = make_train(config, mesh)
    rows = config.data.batch_size  # one is made: all of them may be more than the memory of this machine
    of_rows = lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype)  # noqa: E731
    batch = jax.tree.map(of_rows, empty_batch(1, config.data.packing))
    return train.step.trace(train.abstract_state, batch).lower(lowering_platforms=("tpu",))


def one_microbatch(config: Config) -> Config:
    """The run with the first of its microbatches alone, whose loop the compiler would count once anyhow."""
    parts = config.train.accumulate
    data = dataclasses.replace(config.data, batch_size=config.data.batch_size // parts)
    return dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, accumulate=1))


def train_report(config: Config, devices: list[Any], chip: Chip, log: Callable[[str], None]) -> dict[str, Any]:
    """Compiles the train step and says what it takes.

    Args:
      config: the run; its mesh is laid over the devices.
      devices: of a topology.
      chip: what one of them can do.
      log: takes a line for each program compiled.

    Returns:
      Figures by name, fit for JSON. The cost of microbatches is that of one times their number, the optimiser included.
      `mfu` is None, and `no_mfu` says why, where the compiler's operations and ours do not agree, and where so many
      have no time that the rest takes less than all bytes do: then there are no rates either.

    Raises:
      DoesNotFit: it needs more memory than a device has.
      ConfigError: the mesh and the devices or sizes do not go together.
    """
    mesh = make_mesh(config.mesh, devices)
    parts = config.train.accumulate
    figures = measure(config, lambda config: lower_train(config, mesh), log, one_microbatch if parts > 1 else None)
    memory, cost = figures.memory, figures.cost.times(parts)
    count = len(devices)
    counted = train_flops(config, mesh.shape["sequence"])
    program, useful = (sum(parts.values()) / count for parts in (counted.program, counted.useful))
    memory_seconds = cost.bytes_accessed / chip.hbm_rate
    timed = cost.seconds >= memory_seconds
    no_mfu = None
    if not timed:
        no_mfu = f"{cost.untimed:,.0f} operations have no time, and the rest takes less than the bytes alone"
    elif abs(off := cost.flops / program - 1) > AGREEMENT:
        no_mfu = f"the compiler's operations are {off:+.0%} off those counted by hand"
    a_second = 1 / cost.seconds / count * chip.devices if timed else None
    rows, packing = config.data.batch_size, config.data.packing
    micro_turns = rows * packing.audio_in / AUDIO_ELEMENTS
    return {
        "step": "train",
        "config": config.name,
        "devices": count,
        "hbm_bytes_per_device": memory.total,
        "hbm_bytes_parts": dataclasses.asdict(memory),
        "hbm_bytes_available": int(chip.hbm_bytes),
        "flops": cost.flops,
        "analytic_flops": program,
        "useful_flops": useful,
        "flops_by_part": {part: value / count for part, value in counted.program.items()},
        "optimal_seconds": cost.seconds,
        "optimal_seconds_of_each": {kind: each.seconds * parts for kind, (_, each) in figures.layers.items()},
        "layers": {kind: layers for kind, (layers, _) in figures.layers.items() if kind != "rest"},
        "untimed_operations": cost.untimed,
        "mfu": None if no_mfu else useful / cost.seconds / chip.flops,
        **({"no_mfu": no_mfu} if no_mfu else {}),
        "bytes_accessed": cost.bytes_accessed,
        "memory_seconds": memory_seconds,
        "collective_bytes": dict(cost.collective_bytes),
        "sent_bytes": cost.sent_bytes,
        "collective_seconds": cost.sent_bytes / chip.ici_rate,
        "tokens_per_second_per_chip": a_second and rows * packing.elements * a_second,
        "micro_turns_per_second_per_chip": a_second and micro_turns * a_second,
        "hours_of_audio_per_step": micro_turns * MICRO_TURN_SECONDS / 3600,
        "compile_seconds": figures.compile_seconds,
        "remat": config.train.remat,
        "microbatches": config.train.accumulate,
        "rows": rows,
        "mesh": {axis: size for axis, size in mesh.shape.items()},
        "transport": config.mesh.transport,
        "capacity": config.mesh.capacity,
    }
