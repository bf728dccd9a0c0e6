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
_TIME_WIDTH = 128  # of the time's embedding
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

    def setup(self) -> None:
        """Declares the weights."""
        cfg = self.config
        width = cfg.flow_width
        self.condition_norm = RMSNorm(cfg.norm_eps)
        # Projections that end a branch start at zero.
        sizes = {"condition": (cfg.d_model, width), "time": (_TIME_WIDTH, width), "input": (TARGET, width)}
        for block in range(cfg.flow_blocks):
            sizes |= {f"modulate_{block}": (width, 3 * width), f"up_{block}": (width, width)}
            sizes |= {f"down_{block}": (width, width)}
        sizes |= {"modulate_last": (width, 2 * width), "output": (width, TARGET)}
        dense = {}
        for name, shape in sizes.items():
            init = nn.initializers.zeros if name.startswith(("modulate", "output")) else fan_in_init(0)
            kernel = self.param(f"{name}_kernel", init, shape, jnp.float32)
            dense[name] = kernel, self.param(f"{name}_bias", nn.initializers.zeros, shape[1:], jnp.float32)
        self.dense = dense

    def __call__(self, noisy: jax.Array, time: jax.Array, hidden: jax.Array) -> jax.Array:
        """Velocity at a point of the flow.

        Args:
          noisy: (…, 400), between noise (time 0) and data (time 1).
          time: (…) in 0 … 1.
          hidden: (…, D), the hidden state before the element.

        Returns:
          (…, 400) float32.
        """
        return self.velocity(noisy, self.conditions(time, hidden))

    def conditions(self, time: jax.Array, hidden: jax.Array) -> tuple[jax.Array, ...]:
        """All that does not depend on where the flow is, more than half of the work: once for all steps together.

        Args:
          time: (…) in 0 … 1.
          hidden: (…, D) of as many axes, which are broadcast.

        Returns:
          Shifts, scales and gates of each block, and shift and scale of the last norm: (…, W) each.
        """
        dtype, last = hidden.dtype, self.config.flow_blocks
        condition = self._project("condition", self.condition_norm(hidden))
        condition = condition + self._project("time", time_embedding(time, _TIME_WIDTH).astype(dtype))
        condition = jax.nn.silu(condition)
        by_block = [jnp.split(self._project(f"modulate_{block}", condition), 3, axis=-1) for block in range(last)]
        return (*sum(by_block, []), *jnp.split(self._project("modulate_last", condition), 2, axis=-1))

    def velocity(self, noisy: jax.Array, conditions: tuple[jax.Array, ...]) -> jax.Array:
        """Velocity, given what `conditions` says of a time and hidden states: (…, 400) → (…, 400) float32."""
        cfg, dtype = self.config, conditions[0].dtype
        x = self._project("input", noisy.astype(dtype))
        for block in range(cfg.flow_blocks):
            shift, scale, gate = conditions[3 * block : 3 * block + 3]
            y = _layer_norm(x, cfg.norm_eps) * (1 + scale) + shift
            y = self._project(f"down_{block}", jax.nn.silu(self._project(f"up_{block}", y)))
            x = x + (1 + gate) * y
        shift, scale = conditions[-2:]
        x = _layer_norm(x, cfg.norm_eps) * (1 + scale) + shift
        return self._project("output", x).astype(jnp.float32)

    def _project(self, name: str, x: jax.Array) -> jax.Array:
        kernel, bias = self.dense[name]
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def _layer_norm(x: jax.Array, eps: float) -> jax.Array:
    wide = x.astype(jnp.float32)
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps)).astype(x.dtype)
