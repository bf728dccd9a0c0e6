"""Streaming: one micro-turn at a time, appended to carried state.

A micro-turn appends its input block, then takes text tokens one by one until the gate, then, if the gate is SPEAK,
four audio elements, each drawn from the flow and fed back. Everything has fixed shapes and runs in one compiled call
for B sessions at once.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, OWN_FRAMES, ModelConfig
from tml_jax.model.attention import Append
from tml_jax.model.backbone import init_caches
from tml_jax.model.flow import TARGET, denormalise
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.tokens import Control, Stream

# Tokens the model is never let say: those of the input side, and what no data teaches yet.
NOT_SAID = (Control.TIME, Control.FROM_USER, Control.FROM_BACKGROUND, Control.LOST_AUDIO, Control.DELEGATE)


@flax.struct.dataclass
class StreamState:
    """What a session carries from micro-turn to micro-turn.

    Attributes:
      caches: keys, values and convolution inputs of every layer.
      length: (B,) int32, elements so far.
      micro_turn: (B,) int32, micro-turns so far.
      seed: (B, 2) uint32, raw key of the flow noise of each session.
    """

    caches: dict[str, Any]
    length: jax.Array
    micro_turn: jax.Array
    seed: jax.Array


@flax.struct.dataclass
class InputBlock:
    """The input of one micro-turn for B sessions: `elements` (B, T) left-aligned, `valid` (B,) how many are real."""

    elements: ElementArrays
    valid: jax.Array


@flax.struct.dataclass
class MicroTurnOutput:
    """What B sessions put out.

    Attributes:
      token: (B, max_text_out) int32, text and control tokens before the gate.
      count: (B,) int32, how many of them there are.
      speak: (B,) bool, the gate.
      mel: (B, 20, 80) float32 log10 mel, at its floor where the session listens.
      finite: (B,) bool, false where logits or mel were not finite numbers; such a session listens.
    """

    token: jax.Array
    count: jax.Array
    speak: jax.Array
    mel: jax.Array
    finite: jax.Array


def init_state(
    config: ModelConfig, seeds: jax.Array, context: int, block: int, dtype: jnp.dtype = jnp.float32
) -> StreamState:
    """Empty sessions.

    Args:
      config: the model.
      seeds: (B,) int, one a session; a session's noise depends on nothing else.
      context: elements that global layers see.
      block: most elements appended at once.
      dtype: of keys and values.

    Returns:
      The state of B sessions.
    """
    batch = seeds.shape[0]
    raw = jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed)))(seeds)
    # Every array is a buffer of its own, so that a step may take the state over (donate it).
    length, micro_turn = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch,), jnp.int32)
    return StreamState(init_caches(config, batch, context, block, dtype), length, micro_turn, raw)


def flow_noise(seed: jax.Array, micro_turn: jax.Array, temperature: float) -> jax.Array:
    """Noise of the four audio elements of a micro-turn.

    Args:
      seed: (B, 2) uint32.
      micro_turn: (B,) int32.
      temperature: scale.

    Returns:
      (B, 4, 400) float32, the same for a session and micro-turn wherever and beside whomever it runs.
    """

    def one(seed: jax.Array, micro_turn: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed), micro_turn)
        return jax.random.normal(key, (AUDIO_ELEMENTS, TARGET))

    return temperature * jax.vmap(one)(seed, micro_turn)


def choose_token(logits: jax.Array, count: jax.Array, config: ModelConfig) -> jax.Array:
    """Decides on the next output token: whether to stay silent first, then what to put out.

    LISTEN wins only where it is likelier than everything else together. Against single tokens it would win whenever
    the model is sure that it is its turn but wavers between words.

    Args:
      logits: (B, text_vocab_size + control tokens).
      count: (B,) int32, tokens already put out in this micro-turn; at `max_text_out` only a gate may follow.
      config: the model.

    Returns:
      (B,) int32 tokens.
    """
    listen, speak = (config.text_vocab_size + control for control in (Control.LISTEN, Control.SPEAK))
    said = jnp.ones((config.logits_size,), bool).at[jnp.asarray(NOT_SAID) + config.text_vocab_size].set(False)
    gates = jnp.zeros((config.logits_size,), bool).at[jnp.asarray([listen, speak])].set(True)
    allowed = jnp.where((count == config.max_text_out)[:, None], gates, said)
    log_probability = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
    other = jnp.argmax(log_probability.at[:, listen].set(-jnp.inf), axis=-1)
    return jnp.where(log_probability[:, listen] > jnp.log(0.5), listen, other).astype(jnp.int32)


def micro_turn(
    model: InteractionModel, variables: dict[str, Any], state: StreamState, block: InputBlock, context: int
) -> tuple[StreamState, MicroTurnOutput]:
    """Takes in 200 ms and puts out 200 ms.

    Args:
      model: the module.
      variables: parameters and router biases.
      state: the sessions.
      block: what they take in.
      context: elements that global layers see, as in `init_state`.

    Returns:
      The new state, and the output.
    """
    hidden, state = take_in_block(model, variables, state, block, context)
    return put_out(model, variables, state, hidden, context)


def take_in_block(
    model: InteractionModel, variables: dict[str, Any], state: StreamState, block: InputBlock, context: int
) -> tuple[jax.Array, StreamState]:
    """The first half of `micro_turn`: appends the input.

    Returns:
      The hidden state after the last element (B, D), and the state, still in the same micro-turn.
    """
    with jax.named_scope("input"):
        where = Append(state.length, block.valid)
        hidden, caches = model.apply(variables, block.elements, where, state.caches, context, method="append")
        return hidden, state.replace(caches=caches, length=state.length + block.valid)


def put_out(
    model: InteractionModel, variables: dict[str, Any], state: StreamState, hidden: jax.Array, context: int
) -> tuple[StreamState, MicroTurnOutput]:
    """The second half of `micro_turn`: text, gate and sound, from what `take_in_block` returns."""
    config = model.config
    batch = hidden.shape[0]
    listen, speak = (config.text_vocab_size + control for control in (Control.LISTEN, Control.SPEAK))

    def append(
        elements: ElementArrays, valid: jax.Array, length: jax.Array, caches: Any
    ) -> tuple[jax.Array, jax.Array, Any]:
        where = Append(length, valid)
        hidden, caches = model.apply(variables, elements, where, caches, context, method="append")
        return hidden, length + valid, caches

    def text_step(carry: tuple) -> tuple:
        hidden, length, caches, token, count, gate, finite = carry
        active = gate < 0
        logits = model.apply(variables, hidden, method="logits")
        sound_mind = jnp.all(jnp.isfinite(logits), axis=-1)
        # Without numbers to choose by, a gate must still come, or the micro-turn would never end.
        chosen = jnp.where(sound_mind, choose_token(logits, count, config), listen)
        finite = finite & (sound_mind | ~active)
        is_gate = (chosen == listen) | (chosen == speak)
        stream = jnp.where(is_gate, Stream.GATE, Stream.TEXT_OUT).astype(jnp.int8)
        after, length, caches = append(_token_elements(stream, chosen), active.astype(jnp.int32), length, caches)
        said_now = active & ~is_gate
        column = jnp.arange(config.max_text_out)[None] == count[:, None]
        token = jnp.where(column & said_now[:, None], chosen[:, None], token)
        gate = jnp.where(active & is_gate, chosen, gate)
        hidden = jnp.where(active[:, None], after, hidden)
        return hidden, length, caches, token, count + said_now, gate, finite

    with jax.named_scope("text"):
        token = jnp.zeros((batch, config.max_text_out), jnp.int32)
        count, gate = jnp.zeros((batch,), jnp.int32), jnp.full((batch,), -1, jnp.int32)
        carry = (hidden, state.length, state.caches, token, count, gate, jnp.ones((batch,), bool))
        carry = jax.lax.while_loop(lambda carry: jnp.any(carry[-2] < 0), text_step, carry)
    hidden, length, caches, token, count, gate, finite = carry
    speaks = gate == speak
    noise = flow_noise(state.seed, state.micro_turn, config.flow_temperature)

    def audio_step(carry: tuple, noise: jax.Array) -> tuple[tuple, jax.Array]:
        hidden, length, caches = carry
        mel = denormalise(model.apply(variables, noise, hidden, method="mel"))
        after, length, caches = append(_own_audio_elements(mel), speaks.astype(jnp.int32), length, caches)
        return (jnp.where(speaks[:, None], after, hidden), length, caches), mel

    def sound(carry: tuple) -> tuple[tuple, jax.Array]:
        return jax.lax.scan(audio_step, carry, noise.transpose(1, 0, 2))

    def silence(carry: tuple) -> tuple[tuple, jax.Array]:
        return carry, jnp.zeros((AUDIO_ELEMENTS, batch, OWN_FRAMES, MEL_BINS), jnp.float32)

    with jax.named_scope("audio"):
        (_, length, caches), mel = jax.lax.cond(jnp.any(speaks), sound, silence, (hidden, length, caches))
    mel = mel.transpose(1, 0, 2, 3).reshape(batch, AUDIO_ELEMENTS * OWN_FRAMES, MEL_BINS)
    mel = jnp.where(speaks[:, None, None], mel, denormalise(jnp.full((TARGET,), -jnp.inf))[0, 0])
    state = StreamState(caches, length, state.micro_turn + 1, state.seed)
    return state, MicroTurnOutput(token, count, speaks, mel, finite & jnp.all(jnp.isfinite(mel), axis=(1, 2)))


def _side(batch: int, audio_out: jax.Array | None = None) -> dict[str, jax.Array]:
    if audio_out is None:
        audio_out = jnp.zeros((batch, 0, OWN_FRAMES, MEL_BINS), jnp.float32)
    return {
        "audio_in": jnp.zeros((batch, 0, MEL_BINS), jnp.uint8),
        "video": jnp.zeros((batch, 0, 2, 40, 40, 3), jnp.uint8),
        "audio_out": audio_out,
    }


def _token_elements(stream: jax.Array, token: jax.Array) -> ElementArrays:
    """(B,) streams and tokens → one element each."""
    return ElementArrays(stream[:, None], token[:, None], jnp.zeros_like(token)[:, None], **_side(token.shape[0]))


def _own_audio_elements(mel: jax.Array) -> ElementArrays:
    """(B, 5, 80) log10 mel → one element each."""
    batch = mel.shape[0]
    zeros = jnp.zeros((batch, 1), jnp.int32)
    stream = jnp.full((batch, 1), Stream.AUDIO_OUT, jnp.int8)
    return ElementArrays(stream, zeros, zeros, **_side(batch, mel[:, None]))
