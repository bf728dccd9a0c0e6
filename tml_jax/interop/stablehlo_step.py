"""The streaming step with plain input: samples, frames and tokens in, samples and tokens out.

What `serve.windows` does on the host between two steps (dMel, pairs of frames, the order of the elements) is part of
the program here, so that whoever runs it needs nothing else. It computes what a `Talker` computes, in the same blocks.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, OWN_FRAMES, PATCH, Config
from tml_jax.data.layout import INPUT_SAMPLES, control_token
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.model.stream import InputBlock, init_state, put_out, take_in_block
from tml_jax.serve.program import Sessions
from tml_jax.serve.windows import block_sizes
from tml_jax.signal.mel import HISTORY, dmel_compiled
from tml_jax.signal.vocoder import init_vocoder, vocode
from tml_jax.tokens import Control, Stream

Arrays = dict[str, jax.Array]

# Name → meaning of what `step` puts out.
OUTPUTS = {
    "tokens": "left-aligned tokens of text that begins in this sound; spoken, or shown between DISPLAY and END",
    "count": "how many of them there are",
    "speak": "the gate: true for SPEAK, false for LISTEN",
    "mel": "log10 mel of the model's voice, 10 ms a frame; at its floor where it listens",
    "samples": "samples at 24 kHz, to be clipped to −1 … 1; heard in the 200 ms after those of the input",
}


@flax.struct.dataclass
class CallerState:
    """What is carried between two calls.

    Attributes:
      sessions: of the model and the vocoder.
      samples: (B, 800) float32, the last that were heard.
      frame: (B, rows, columns, 3) uint8, the last that was shown.
      shown: (B,) bool, whether any was.
    """

    sessions: Sessions
    samples: jax.Array
    frame: jax.Array
    shown: jax.Array


def input_arrays(config: Config, sessions: int) -> dict[str, tuple[jax.ShapeDtypeStruct, str]]:
    """Name → shape, and meaning, of the inputs of a micro-turn."""
    rows, columns = _frame_size(config)
    most = config.serve.max_text_in
    given = {
        "audio": ((INPUT_SAMPLES,), jnp.float32, "samples at 16 kHz, −1 … 1; ignored where `heard` is false"),
        "heard": ((), jnp.bool_, "whether there is a microphone; silence is heard, too"),
        "frames": (
            (2, rows, columns, PATCH[3]),
            jnp.uint8,
            "RGB; the last frame of the first 100 ms and the last frame of the second 100 ms",
        ),
        "frames_given": (
            (2,),
            jnp.bool_,
            "which of the two there are, none where no frame arrived; the last frame of before stands in for the first "
            "one, and where there was none, the second one does",
        ),
        "text": (
            (most,),
            jnp.int32,
            f"left-aligned tokens of typed text, see `tokens`; more than {most} wait for the next micro-turn",
        ),
        "text_count": ((), jnp.int32, f"how many of them there are, 0 … {most}"),
    }
    return {
        name: (jax.ShapeDtypeStruct((sessions, *shape), dtype), meaning)
        for name, (shape, dtype, meaning) in given.items()
    }


def start(seeds: jax.Array, config: Config) -> CallerState:
    """Empty sessions, one for each seed, (B,) int32."""
    batch, (rows, columns) = seeds.shape[0], _frame_size(config)
    stream = init_state(config.model, seeds, config.serve.context, block_sizes(config)[-1])
    return CallerState(
        Sessions(stream, init_vocoder((batch,))),
        jnp.zeros((batch, HISTORY), jnp.float32),
        jnp.zeros((batch, rows, columns, PATCH[3]), jnp.uint8),
        jnp.zeros((batch,), bool),
    )


def take_in(state: CallerState, inputs: Arrays, config: Config) -> tuple[CallerState, InputBlock]:
    """`serve.windows.take_in` and `make_block` of B sessions, for what is compiled.

    Args:
      state: the sessions.
      inputs: what arrived, see `input_arrays`.
      config: the run.

    Returns:
      The state with the new samples and frame, and the block, of the largest size.
    """
    heard, given = inputs["heard"], inputs["frames_given"]
    early, late = inputs["frames"][:, 0], inputs["frames"][:, 1]
    choose = lambda which, a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b)  # noqa: E731
    seen = jnp.any(given, axis=1)
    first = choose(given[:, 0], early, choose(state.shown, state.frame, late))
    last = choose(given[:, 1], late, early)
    levels = jax.vmap(dmel_compiled)(inputs["audio"], state.samples)
    samples = choose(heard, inputs["audio"][:, -HISTORY:], state.samples)

    grid, most = math.prod(config.data.video_grid), config.serve.max_text_in
    text = jnp.clip(inputs["text_count"], 0, most)
    counts = jnp.stack([jnp.ones_like(text), text, grid * seen, AUDIO_ELEMENTS * heard], axis=1).astype(jnp.int32)
    ends = jnp.cumsum(counts, axis=1)  # (B, 4), where the elements of each stream end
    position = jnp.arange(block_sizes(config)[-1])[None]
    part = jnp.sum(position[..., None] >= ends[:, None], axis=-1)  # (B, T), 4 behind the last element
    place = position - jnp.take_along_axis(jnp.pad(ends, ((0, 0), (1, 0))), part, axis=1)
    streams = (Stream.TIME, Stream.TEXT_IN, Stream.VIDEO, Stream.AUDIO_IN, Stream.PADDING)
    stream = jnp.asarray(streams, jnp.int8)[part]
    typed = jnp.take_along_axis(inputs["text"], jnp.minimum(place, most - 1), axis=1)
    token = jnp.where(stream == Stream.TEXT_IN, typed, 0)
    token = jnp.where(stream == Stream.TIME, control_token(Control.TIME, config.model), token)
    slot = jnp.where((stream == Stream.VIDEO) | (stream == Stream.AUDIO_IN), place, 0)
    silent = jnp.zeros((len(heard), 0, OWN_FRAMES, MEL_BINS), jnp.float32)
    elements = ElementArrays(stream, token, slot, levels, _patches(first, last, config), silent)
    state = state.replace(samples=samples, frame=choose(seen, last, state.frame), shown=state.shown | seen)
    return state, InputBlock(elements, ends[:, -1])


def step(state: CallerState, variables: dict[str, Any], inputs: Arrays, config: Config) -> tuple[CallerState, Arrays]:
    """Takes in 200 ms and puts out 200 ms, as a session of `serve.session.Talker` does.

    Args:
      state: the sessions.
      variables: of the model.
      inputs: what arrived, see `input_arrays`.
      config: the run.

    Returns:
      The new state, and the output, see `OUTPUTS`.
    """
    model, context = InteractionModel(config.model), config.serve.context
    state, block = take_in(state, inputs, config)
    sizes = block_sizes(config)

    def reader(size: int) -> Callable[..., Any]:
        """Takes in a block of one of the sizes; the smallest has no room for a frame."""
        whole = block.elements
        text = {name: getattr(whole, name)[:, :size] for name in ("stream", "token", "slot")}
        shorter = InputBlock(whole.replace(**text, video=whole.video[:, : size - sizes[0]]), block.valid)
        return lambda stream: take_in_block(model, variables, stream, shorter, context)

    # The smallest block that holds everything, as `make_block` chooses it.
    needed, seen = jnp.max(block.valid), jnp.any(inputs["frames_given"])
    index = jnp.maximum(sum((needed > size).astype(jnp.int32) for size in sizes[:-1]), seen.astype(jnp.int32))
    hidden, stream = jax.lax.switch(index, [reader(size) for size in sizes], state.sessions.stream)
    stream, output = put_out(model, variables, stream, hidden, block.valid > 0, context)
    vocoder, samples = vocode(state.sessions.vocoder, output.mel)
    said = {"tokens": output.token, "count": output.count, "speak": output.speak, "mel": output.mel}
    return state.replace(sessions=Sessions(stream, vocoder)), {**said, "samples": samples}


def _frame_size(config: Config) -> tuple[int, int]:
    """(rows, columns) of a frame, pixels."""
    return config.data.video_grid[0] * PATCH[1], config.data.video_grid[1] * PATCH[2]


def _patches(first: jax.Array, last: jax.Array, config: Config) -> jax.Array:
    """`patches_of_pair` of B pairs: (B, rows, columns, 3) twice → (B, patches, 2, 40, 40, 3)."""
    (down, across), (_, height, width, colours) = config.data.video_grid, PATCH
    pairs = jnp.stack([first, last], axis=1).reshape(-1, 2, down, height, across, width, colours)
    return pairs.transpose(0, 2, 4, 1, 3, 5, 6).reshape(-1, down * across, *PATCH)
