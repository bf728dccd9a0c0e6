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
from tml_jax.model.portions import Portions, append_some, some_go_on
from tml_jax.tokens import Control, Stream

# Tokens the model is never let say: those of the input side, and DELEGATE where nobody is there to take the task.
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
    """The input of one micro-turn for B sessions: `elements` (B, T) left-aligned, `valid` (B,) how many are real.

    A session with none is idle: it puts out nothing, and goes on later as if there had been no call.
    """

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
    config: ModelConfig,
    seeds: jax.Array,
    context: int,
    block: int,
    dtype: jnp.dtype = jnp.float32,
    scanned: bool = True,
) -> StreamState:
    """Empty sessions.

    Args:
      config: the model.
      seeds: (B,) int, one a session; a session's noise depends on nothing else.
      context: elements that global layers see.
      block: most elements appended at once.
      dtype: of keys and values.
      scanned: whether layers run in a loop, as in the model that uses it.

    Returns:
      The state of B sessions.
    """
    batch = seeds.shape[0]
    raw = jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed)))(seeds)
    # Every array is a buffer of its own, so that a step may take the state over (donate it).
    length, micro_turn = jnp.zeros((batch,), jnp.int32), jnp.zeros((batch,), jnp.int32)
    return StreamState(init_caches(config, batch, context, block, dtype, scanned), length, micro_turn, raw)


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


def choose_token(logits: jax.Array, count: jax.Array, config: ModelConfig, delegate: bool = False) -> jax.Array:
    """Decides on the next output token: whether to stay silent first, then what to put out.

    LISTEN wins only where it is likelier than everything else together. Against single tokens it would win whenever
    the model is sure that it is its turn but wavers between words.

    Args:
      logits: (B, text_vocab_size + control tokens).
      count: (B,) int32, tokens already put out in this micro-turn; at `max_text_out` only a gate may follow.
      config: the model.
      delegate: whether it may hand over tasks.

    Returns:
      (B,) int32 tokens.
    """
    barred = [control for control in NOT_SAID if not (delegate and control == Control.DELEGATE)]
    listen, speak = (config.text_vocab_size + control for control in (Control.LISTEN, Control.SPEAK))
    said = jnp.ones((config.logits_size,), bool).at[jnp.asarray(barred) + config.text_vocab_size].set(False)
    gates = jnp.zeros((config.logits_size,), bool).at[jnp.asarray([listen, speak])].set(True)
    allowed = jnp.where((count == config.max_text_out)[:, None], gates, said)
    log_probability = jax.nn.log_softmax(jnp.where(allowed, logits, -jnp.inf))
    other = jnp.argmax(log_probability.at[:, listen].set(-jnp.inf), axis=-1)
    return jnp.where(log_probability[:, listen] > jnp.log(0.5), listen, other).astype(jnp.int32)


def micro_turn(
    model: InteractionModel,
    variables: dict[str, Any],
    state: StreamState,
    block: InputBlock,
    context: int,
    delegate: bool = False,
    portions: Portions | None = None,
) -> tuple[StreamState, MicroTurnOutput]:
    """Takes in 200 ms and puts out 200 ms.

    Args:
      model: the module.
      variables: parameters and router biases.
      state: the sessions.
      block: what they take in.
      context: elements that global layers see, as in `init_state`.
      delegate: whether the model may hand over tasks.
      portions: how the work is cut where it costs less in pieces; None does all at once.

    Returns:
      The new state, and the output.
    """
    hidden, state = take_in_block(model, variables, state, block, context, portions)
    return put_out(model, variables, state, hidden, block.valid > 0, context, delegate, portions)


def take_in_block(
    model: InteractionModel,
    variables: dict[str, Any],
    state: StreamState,
    block: InputBlock,
    context: int,
    portions: Portions | None = None,
) -> tuple[jax.Array, StreamState]:
    """The first half of `micro_turn`: appends the input.

    Returns:
      The hidden state after the last element (B, D), and the state, still in the same micro-turn.
    """

    def append(elements: ElementArrays, length: jax.Array, valid: jax.Array, caches: Any) -> tuple[jax.Array, Any]:
        return model.apply(variables, elements, Append(length, valid), caches, context, method="append")

    with jax.named_scope("input"):
        batch, size = block.elements.stream.shape
        if portions is None or size <= portions.elements:
            hidden, caches = append(block.elements, state.length, block.valid, state.caches)
        else:
            none = jnp.zeros((batch, model.config.d_model), model.dtype)
            given = block.elements, state.length, block.valid, state.caches
            hidden, caches = append_some(append, *given, portions.elements, none)
        return hidden, state.replace(caches=caches, length=state.length + block.valid)


def put_out(
    model: InteractionModel,
    variables: dict[str, Any],
    state: StreamState,
    hidden: jax.Array,
    active: jax.Array,
    context: int,
    delegate: bool = False,
    portions: Portions | None = None,
) -> tuple[StreamState, MicroTurnOutput]:
    """The second half of `micro_turn`: text, gate and sound, from what `take_in_block` returns.

    `active` (B,) bool: the sessions that have this micro-turn; the others listen, and their state stays.
    """
    config, batch = model.config, hidden.shape[0]
    token = jnp.zeros((batch, config.max_text_out), jnp.int32)
    count = jnp.zeros((batch,), jnp.int32)
    gate = jnp.where(active, -1, config.text_vocab_size + Control.LISTEN).astype(jnp.int32)
    said = Said(hidden, state.length, state.caches, token, count, gate, jnp.ones((batch,), bool))
    noise = flow_noise(state.seed, state.micro_turn, config.flow_temperature)
    if portions is None or batch <= portions.sessions:
        said, mel = _go_on(model, variables, said, noise, context, delegate)
    else:
        with jax.named_scope("text"):
            said = text_step(model, variables, said, context, delegate)
        if "periods" in said.caches:
            raise ValueError("portions of sessions with scanned layers: serve a model made with scanned=False")
        listen = config.text_vocab_size + Control.LISTEN

        def go_on(said: Said, noise: jax.Array, chosen: jax.Array) -> tuple[Said, jax.Array]:
            held = said.replace(gate=jnp.where(chosen, said.gate, listen))
            after, mel = _go_on(model, variables, held, noise, context, delegate)
            return after.replace(gate=jnp.where(chosen, after.gate, said.gate)), mel

        silence = jnp.zeros((batch, AUDIO_ELEMENTS * OWN_FRAMES, MEL_BINS), jnp.float32)
        said, mel = some_go_on(go_on, said, noise, said.gate != listen, portions.sessions, silence)
    speaks = said.gate == config.text_vocab_size + Control.SPEAK
    mel = jnp.where(speaks[:, None, None], mel, denormalise(jnp.full((TARGET,), -jnp.inf))[0, 0])
    finite = said.finite & jnp.all(jnp.isfinite(mel), axis=(1, 2))
    state = StreamState(said.caches, said.length, state.micro_turn + active, state.seed)
    return state, MicroTurnOutput(said.token, said.count, speaks, mel, finite)


def _go_on(
    model: InteractionModel, variables: dict[str, Any], said: "Said", noise: jax.Array, context: int, delegate: bool
) -> tuple["Said", jax.Array]:
    """Text until all have their gate, then the sound of those that speak: (B, 20, 80) log10 mel, anything elsewhere."""
    config, batch = model.config, len(noise)
    with jax.named_scope("text"):
        more = lambda said: jnp.any(said.gate < 0)  # noqa: E731
        said = jax.lax.while_loop(more, lambda said: text_step(model, variables, said, context, delegate), said)
    speaks = said.gate == config.text_vocab_size + Control.SPEAK

    def sound(carry: tuple) -> tuple[tuple, jax.Array]:
        step = lambda carry, noise: audio_step(model, variables, carry, noise, speaks, context)  # noqa: E731
        return jax.lax.scan(step, carry, noise.transpose(1, 0, 2))

    def silence(carry: tuple) -> tuple[tuple, jax.Array]:
        return carry, jnp.zeros((AUDIO_ELEMENTS, batch, OWN_FRAMES, MEL_BINS), jnp.float32)

    with jax.named_scope("audio"):
        carry = said.hidden, said.length, said.caches
        (hidden, length, caches), mel = jax.lax.cond(jnp.any(speaks), sound, silence, carry)
    mel = mel.transpose(1, 0, 2, 3).reshape(batch, AUDIO_ELEMENTS * OWN_FRAMES, MEL_BINS)
    return said.replace(hidden=hidden, length=length, caches=caches), mel


@flax.struct.dataclass
class Said:
    """Where B sessions are on the way to their gate.

    Attributes:
      hidden: (B, D), after the last element.
      length: (B,) int32, elements so far.
      caches: as in `StreamState`.
      token: (B, max_text_out) int32, said so far in this micro-turn.
      count: (B,) int32, how many of them there are.
      gate: (B,) int32, the gate's token; negative where there is none yet.
      finite: (B,) bool, false where logits were not finite numbers.
    """

    hidden: jax.Array
    length: jax.Array
    caches: dict[str, Any]
    token: jax.Array
    count: jax.Array
    gate: jax.Array
    finite: jax.Array


def text_step(
    model: InteractionModel, variables: dict[str, Any], said: Said, context: int, delegate: bool = False
) -> Said:
    """One more token, or the gate, for every session that has no gate yet."""
    config = model.config
    listen, speak = (config.text_vocab_size + control for control in (Control.LISTEN, Control.SPEAK))
    active = said.gate < 0
    logits = model.apply(variables, said.hidden, method="logits")
    sound_mind = jnp.all(jnp.isfinite(logits), axis=-1)
    # Without numbers to choose by, a gate must still come, or the micro-turn would never end.
    chosen = jnp.where(sound_mind, choose_token(logits, said.count, config, delegate), listen)
    is_gate = (chosen == listen) | (chosen == speak)
    stream = jnp.where(is_gate, Stream.GATE, Stream.TEXT_OUT).astype(jnp.int8)
    elements, where = _token_elements(stream, chosen), Append(said.length, active.astype(jnp.int32))
    after, caches = model.apply(variables, elements, where, said.caches, context, method="append")
    said_now = active & ~is_gate
    column = jnp.arange(config.max_text_out)[None] == said.count[:, None]
    return Said(
        hidden=jnp.where(active[:, None], after, said.hidden),
        length=said.length + where.valid,
        caches=caches,
        token=jnp.where(column & said_now[:, None], chosen[:, None], said.token),
        count=said.count + said_now,
        gate=jnp.where(active & is_gate, chosen, said.gate),
        finite=said.finite & (sound_mind | ~active),
    )


def audio_step(
    model: InteractionModel,
    variables: dict[str, Any],
    carry: tuple[jax.Array, jax.Array, Any],
    noise: jax.Array,
    speaks: jax.Array,
    context: int,
) -> tuple[tuple[jax.Array, jax.Array, Any], jax.Array]:
    """50 ms of sound for every session that speaks.

    Args:
      model: the module.
      variables: parameters and router biases.
      carry: hidden states, lengths and caches.
      noise: (B, 400), what the flow starts from.
      speaks: (B,) bool.
      context: elements that global layers see.

    Returns:
      The new carry, and (B, 5, 80) log10 mel.
    """
    hidden, length, caches = carry
    mel = denormalise(model.apply(variables, noise, hidden, method="mel"))
    where = Append(length, speaks.astype(jnp.int32))
    after, caches = model.apply(variables, _own_audio_elements(mel), where, caches, context, method="append")
    return (jnp.where(speaks[:, None], after, hidden), length + where.valid, caches), mel


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
