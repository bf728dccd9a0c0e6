"""The flow head: from the hidden state before an audio element to that element's 50 ms of mel.

A rectified flow (arXiv 2209.03003) whose velocity is a small residual MLP with adaptive layer norm, conditioned on the
hidden state and on time, as in MAR (arXiv 2406.11838). Mel is normalised to about zero mean and unit deviation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tml_jax.config import MEL_BINS, OWN_FRAMES, ModelConfig
from tml_jax.model.layers import RMSNorm, fan_in_init
from tml_jax.signal.mel import OWN_MEL_MAX, OWN_MEL_MIN

TARGET = OWN_FRAMES * MEL_BINS  # numbers in one element
_CENTRE, _SCALE = -2.5, 1.25  # log10 mel of speech


def normalise(log_mel: jax.Array) -> jax.Array:
    """Log10 mel (…, 5, 80) → flow target (…, 400)."""
    return ((log_mel - _CENTRE) / _SCALE).reshape(*log_mel.shape[:-2], TARGET)


def denormalise(target: jax.Array) -> jax.Array:
    """Flow target (…, 400) → log10 mel (…, 5, 80), clamped to its range."""
    log_mel = target.reshape(*target.shape[:-1], OWN_FRAMES, MEL_BINS) * _SCALE + _CENTRE
    return jnp.clip(log_mel, OWN_MEL_MIN, OWN_MEL_MAX)


def time_embedding(time: jax.Array, width: int) -> jax.Array:
    """Sines and cosines of flow time (…) in 0 … 1 → (…, width)."""
    frequency = jnp.exp(-jnp.log(1e4) * jnp.arange(width // 2) / (width // 2))
    angle = time[..., None] * 1e3 * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class FlowHead(nn.Module):
    """Velocity field of the flow."""

    config: ModelConfig

    @nn.compact
    def __call__(self, noisy: jax.Array, time: jax.Array, hidden: jax.Array) -> jax.Array:
        """Velocity at a point of the flow.

        Args:
          noisy: (…, 400), between noise (time 0) and data (time 1).
          time: (…) in 0 … 1.
          hidden: (…, D), the hidden state before the element.

        Returns:
          (…, 400) float32.
        """
        cfg = self.config
        width, dtype = cfg.flow_width, hidden.dtype

        def dense(name: str, x: jax.Array, size: int, zero: bool = False) -> jax.Array:
            init = nn.initializers.zeros if zero else fan_in_init(0)
            kernel = self.param(f"{name}_kernel", init, (x.shape[-1], size), jnp.float32)
            bias = self.param(f"{name}_bias", nn.initializers.zeros, (size,), jnp.float32)
            return x @ kernel.astype(dtype) + bias.astype(dtype)

        condition = dense("condition", RMSNorm(cfg.norm_eps, name="condition_norm")(hidden), width)
        condition = condition + dense("time", time_embedding(time, 128).astype(dtype), width)
        condition = jax.nn.silu(condition)
        x = dense("input", noisy.astype(dtype), width)
        for block in range(cfg.flow_blocks):
            shift, scale, gate = jnp.split(dense(f"modulate_{block}", condition, 3 * width, zero=True), 3, axis=-1)
            y = _layer_norm(x, cfg.norm_eps) * (1 + scale) + shift
            y = dense(f"down_{block}", jax.nn.silu(dense(f"up_{block}", y, width)), width)
            x = x + (1 + gate) * y
        shift, scale = jnp.split(dense("modulate_last", condition, 2 * width, zero=True), 2, axis=-1)
        x = _layer_norm(x, cfg.norm_eps) * (1 + scale) + shift
        return dense("output", x, TARGET, zero=True).astype(jnp.float32)


def _layer_norm(x: jax.Array, eps: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)).astype(x.dtype)
