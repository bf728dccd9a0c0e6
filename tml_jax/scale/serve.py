"""A micro-turn for N sessions at full size, compiled for a topology: how long it takes, and how many sessions fit.

A micro-turn is one input block, then text token by token until the gate, then four audio elements, each through the
whole model. The three kinds of step are compiled by themselves, because the loops around them would count once.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, MICRO_TURN_SECONDS, OWN_FRAMES, PATCH, Config
from tml_jax.model.flow import TARGET
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.model.stream import InputBlock, Said, audio_step, init_state, micro_turn, take_in_block, text_step
from tml_jax.parallel.compile_options import TPU
from tml_jax.parallel.mesh import abstract, make_mesh, parameter_shardings, stream_shardings
from tml_jax.parallel.placement import serving_placement
from tml_jax.scale.chips import Chip
from tml_jax.scale.paper import Rates
from tml_jax.scale.programs import (
    NO_FETCHING_AHEAD,
    NOTHING,
    Cost,
    compile_and_tell,
    cost_of,
    layer_costs,
    memory_of,
)
from tml_jax.scale.serve_flops import step_flops
from tml_jax.serve.weights import weights_for_serving
from tml_jax.serve.windows import block_sizes

TOKENS = Rates().tokens * MICRO_TURN_SECONDS  # that a session says in a micro-turn while it speaks


@dataclasses.dataclass(frozen=True)
class Serving:
    """What is compiled.

    Attributes:
      config: the run.
      mesh: the devices.
      sessions: how many run in one call.
      frames: whether a frame arrives in every micro-turn.
    """

    config: Config
    mesh: Mesh
    sessions: int
    frames: bool


def lower_steps(what: Serving) -> dict[str, Callable[[], jax.stages.Lowered]]:
    """Name → a function that traces a step for TPUs: `micro_turn`, and its parts `input`, `text` and `audio`."""
    config, sessions, context = what.config, what.sessions, what.config.serve.context
    dtype = jnp.dtype(config.serve.dtype)
    model = InteractionModel(config.model, dtype, placement=serving_placement(what.mesh, sessions), scanned=False)
    as_trained = lambda key: init_variables(InteractionModel(config.model), key)  # noqa: E731
    variables = jax.eval_shape(lambda key: weights_for_serving(as_trained(key), config), jax.random.key(0))
    variables = abstract(variables, parameter_shardings(what.mesh, variables))
    block = block_sizes(config)[1 if what.frames else 0]
    patches = config.data.video_grid[0] * config.data.video_grid[1] if what.frames else 0

    def start() -> tuple[Any, ...]:
        many = lambda *shape, dtype=jnp.int32: jnp.zeros((sessions, *shape), dtype)  # noqa: E731
        state = init_state(config.model, jnp.arange(sessions), context, block_sizes(config)[-1], dtype, scanned=False)
        elements = ElementArrays(
            many(block, dtype=jnp.int8), many(block), many(block), many(AUDIO_ELEMENTS, MEL_BINS, dtype=jnp.uint8),
            many(patches, *PATCH, dtype=jnp.uint8), many(0, OWN_FRAMES, MEL_BINS, dtype=jnp.float32),
        )  # fmt: skip
        hidden = many(config.model.d_model, dtype=dtype)
        token = many(config.model.max_text_out)
        said = Said(hidden, state.length, state.caches, token, many(), many(), many(dtype=bool))
        carry = hidden, state.length, state.caches
        return state, InputBlock(elements, many()), said, carry, many(TARGET, dtype=jnp.float32), many(dtype=bool)

    given = jax.eval_shape(start)
    state, inputs, said, carry, noise, speaks = abstract(given, stream_shardings(what.mesh, given, sessions))

    def lower(function: Callable, *arguments: Any, donate: int = 1) -> Callable[[], jax.stages.Lowered]:
        step = jax.jit(function, donate_argnums=donate)
        return lambda: step.trace(variables, *arguments).lower(lowering_platforms=("tpu",))

    return {
        "micro_turn": lower(lambda v, state, inputs: micro_turn(model, v, state, inputs, context), state, inputs),
        "input": lower(lambda v, state, inputs: take_in_block(model, v, state, inputs, context), state, inputs),
        "text": lower(lambda v, said: text_step(model, v, said, context), said),
        "audio": lower(
            lambda v, carry, noise, speaks: audio_step(model, v, carry, noise, speaks, context), carry, noise, speaks
        ),
    }


def text_steps(sessions: int) -> int:
    """Steps of text in a micro-turn in which so many sessions speak: they go on until the last has its gate.

    Taken as independent, each saying so many tokens as by a Poisson law of mean `TOKENS`; the gate is one more.
    """
    most, share, above = 0, math.exp(-TOKENS), 1 - math.exp(-TOKENS)
    while sessions * above > 0.5:
        most += 1
        share *= TOKENS / most
        above -= share
    return most + 1


def serve_report(
    config: Config, devices: list[Any], chip: Chip, sessions: int, frames: bool, log: Callable[[str], None]
) -> dict[str, Any]:
    """Compiles a micro-turn and says what it takes.

    Args:
      config: the run; `serve.mesh` is laid over the devices.
      devices: of a topology.
      chip: what one of them can do.
      sessions: how many run in one call.
      frames: whether a frame arrives in every micro-turn.
      log: takes a line for each program compiled.

    Returns:
      Figures by name, fit for JSON.

    Raises:
      DoesNotFit: it needs more memory than a device has.
      ConfigError: the mesh and the devices or sizes do not go together.
    """
    mesh = make_mesh(config.serve.mesh, devices)
    what = Serving(config, mesh, sessions, frames)
    program = compile_and_tell(lower_steps(what)["micro_turn"](), "a micro-turn", log)
    memory = memory_of(program)
    spent, parts = [program.seconds], {}
    del program
    for name in ("input", "text", "audio"):

        def cost_at(shallow: Config, name: str = name) -> Cost:
            lowered = lower_steps(dataclasses.replace(what, config=shallow))[name]()
            told = f"{shallow.model.num_layers} layers of the {name} step"
            program = compile_and_tell(lowered, told, log, TPU | NO_FETCHING_AHEAD)
            spent.append(program.seconds)
            return cost_of(program)

        # No layer runs in a loop here; the shallow programs are those of `layer_costs` because they compile sooner.
        parts[name] = layer_costs(config, cost_at)
    times = {"input": 1, "text": text_steps(sessions), "audio": AUDIO_ELEMENTS}
    whole, counted = NOTHING, 0.0
    for name, layers in parts.items():
        for count, cost in layers.values():
            whole = whole.plus(cost, times[name] * count)
        counted += times[name] * sum(step_flops(config, mesh.shape, name, sessions, frames).values())
    return {
        "step": "serve",
        "config": config.name,
        "devices": len(devices),
        "sessions": sessions,
        "frames": frames,
        "hbm_bytes_per_device": memory.total,
        "hbm_bytes_parts": dataclasses.asdict(memory),
        "hbm_bytes_available": int(chip.hbm_bytes),
        "flops": whole.flops,
        "analytic_flops": counted,
        "optimal_seconds": whole.seconds,
        "optimal_seconds_by_part": {
            name: math.fsum(count * cost.seconds for count, cost in layers.values()) for name, layers in parts.items()
        },
        "optimal_seconds_of_each": {
            name: {kind: cost.seconds for kind, (_, cost) in layers.items()} for name, layers in parts.items()
        },
        "untimed_operations": whole.untimed,
        "steps_of_a_micro_turn": times,
        "bytes_accessed": whole.bytes_accessed,
        "memory_seconds": whole.bytes_accessed / chip.hbm_rate,
        "collective_bytes": dict(whole.collective_bytes),
        "sent_bytes": whole.sent_bytes,
        "collective_seconds": whole.sent_bytes / chip.ici_rate,
        "share_of_200_ms": whole.seconds / MICRO_TURN_SECONDS,
        "compile_seconds": math.fsum(spent),
        "mesh": {axis: size for axis, size in mesh.shape.items()},
        "context": config.serve.context,
        "weights": config.serve.weights,
    }
