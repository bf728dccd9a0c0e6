"""The losses: cross-entropy on text and gates, flow matching on audio. Sums and counts, so that means are exact."""

from typing import Any

import jax
import jax.numpy as jnp

from tml_jax.config import DMEL_LEVELS, ModelConfig, TrainConfig
from tml_jax.data.packing import Batch
from tml_jax.model.attention import Packed
from tml_jax.model.flow import TARGET, normalise
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel
from tml_jax.parallel.stripes import take_positions
from tml_jax.signal.mel import OWN_MEL_MAX, OWN_MEL_MIN
from tml_jax.tokens import Control


def counts(batch: Batch, config: ModelConfig) -> dict[str, jax.Array]:
    """Output tokens, gates and own-audio elements in a batch, known before any forward pass. float32 scalars."""
    outputs = batch.output_from >= 0
    gate = outputs & is_gate(batch.output_token, config)
    total = lambda mask: jnp.sum(mask, dtype=jnp.float32)  # noqa: E731
    return {
        "text_count": total(outputs & ~gate),
        "gate_count": total(gate),
        "flow_count": total(batch.audio_out_from >= 0),
    }


def is_gate(token: jax.Array, config: ModelConfig) -> jax.Array:
    """Which tokens are LISTEN or SPEAK."""
    return (token == config.text_vocab_size + Control.LISTEN) | (token == config.text_vocab_size + Control.SPEAK)


def disturb(audio_out: jax.Array, key: jax.Array, config: TrainConfig) -> jax.Array:
    """Makes own-audio inputs as imperfect as the model's own sound will be, against exposure bias.

    Args:
      audio_out: (B, No, 5, 80) log10 mel.
      key: randomness.
      config: strength.

    Returns:
      The same shape: noise on every value, some elements at the floor.
    """
    noise_key, drop_key = jax.random.split(key)
    level = (OWN_MEL_MAX - OWN_MEL_MIN) / (DMEL_LEVELS - 1)
    noisy = audio_out + config.own_audio_noise * level * jax.random.normal(noise_key, audio_out.shape)
    drop = jax.random.bernoulli(drop_key, config.own_audio_drop, audio_out.shape[:2])
    return jnp.where(drop[..., None, None], OWN_MEL_MIN, noisy)


def loss_sums(
    model: InteractionModel,
    variables: dict[str, Any],
    batch: Batch,
    key: jax.Array,
    config: TrainConfig,
    disturbed: bool,
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """Forward pass and sums of every loss over a batch.

    Args:
      model: the module.
      variables: parameters and router biases.
      batch: packed rows.
      key: randomness of the flow's noise and time, and of the disturbance.
      config: number of draws.
      disturbed: whether own-audio inputs are disturbed (training) or not (evaluation).

    Returns:
      `text_sum`, `gate_sum`, `flow_sum` (per own-audio element, mean over bins and draws), `gate_right`,
      `text_right`; and the extras of the model.
    """
    disturb_key, flow_key = jax.random.split(key)
    with jax.named_scope("disturb"):
        heard_back = disturb(batch.audio_out, disturb_key, config) if disturbed else batch.audio_out
    elements = ElementArrays(batch.stream, batch.token, batch.slot, batch.audio_in, batch.video, heard_back)
    hidden, extras = model.apply(variables, elements, Packed(batch.segment, batch.position))

    def at(position: jax.Array) -> jax.Array:
        return take_positions(hidden, jnp.maximum(position, 0), model.placement)

    with jax.named_scope("text_loss"):
        logits = model.apply(variables, at(batch.output_from), method="logits")
        log_probability = jax.nn.log_softmax(logits)
        token = jnp.clip(batch.output_token, 0, logits.shape[-1] - 1)
        nll = -jnp.take_along_axis(log_probability, token[..., None], axis=-1)[..., 0]
        right = jnp.argmax(logits, axis=-1) == token
        present = batch.output_from >= 0
        gate = present & is_gate(batch.output_token, model.config)
        text = present & ~gate
    flow = jnp.zeros(())
    if batch.audio_out.shape[1]:  # else the rows have no room for sound, and nothing passes through the flow head
        with jax.named_scope("flow_loss"):
            flow = flow_loss(model, variables, at(batch.audio_out_from), batch.audio_out, flow_key, config.flow_draws)
            flow = jnp.where(batch.audio_out_from >= 0, flow, 0.0)
    total = lambda x, mask: jnp.sum(jnp.where(mask, x, 0.0), dtype=jnp.float32)  # noqa: E731
    sums = {
        "text_sum": total(nll, text),
        "gate_sum": total(nll, gate),
        "flow_sum": jnp.sum(flow, dtype=jnp.float32),
        "text_right": total(right.astype(jnp.float32), text),
        "gate_right": total(right.astype(jnp.float32), gate),
    }
    return sums, extras


def flow_loss(
    model: InteractionModel,
    variables: dict[str, Any],
    hidden: jax.Array,
    log_mel: jax.Array,
    key: jax.Array,
    draws: int,
) -> jax.Array:
    """Flow matching: the squared error of the velocity at random points between noise and data.

    Args:
      model: the module.
      variables: its parameters.
      hidden: (B, No, D), the state before each element.
      log_mel: (B, No, 5, 80) targets.
      key: randomness.
      draws: points for each element.

    Returns:
      (B, No) float32, mean over draws and bins.
    """
    target = normalise(log_mel)[:, :, None]
    noise_key, time_key = jax.random.split(key)
    shape = (*target.shape[:2], draws)
    noise = jax.random.normal(noise_key, (*shape, TARGET))
    # Logit-normal times dwell where the velocity is hardest to tell (arXiv 2403.03206).
    time = jax.nn.sigmoid(jax.random.normal(time_key, shape))
    noisy = (1 - time[..., None]) * noise + time[..., None] * target
    condition = jnp.broadcast_to(hidden[:, :, None], (*shape, hidden.shape[-1]))
    velocity = model.apply(variables, noisy, time, condition, method="velocity")
    return jnp.mean((velocity - (target - noise)) ** 2, axis=(2, 3))
