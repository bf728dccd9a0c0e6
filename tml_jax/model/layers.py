"""The parts every block is made of: RMSNorm, dense MLP, short convolution."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from tml_jax.parallel.placement import Placement
from tml_jax.parallel.stripes import halo
from tml_jax.remat import keep

Dtype = jnp.dtype


def fan_in_init(*axes: int) -> nn.initializers.Initializer:
    """Normal weights of variance 1 / (product of the sizes of `axes`, the axes a product sums over)."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        fan_in = 1
        for axis in axes:
            fan_in *= shape[axis]
        return jax.random.normal(key, shape, dtype) * fan_in**-0.5

    return init


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32 (arXiv 1910.07467).

    Attributes:
      eps: added to the mean square.
      initial: initial value of the scale.
    """

    eps: float = 1e-6
    initial: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Args: x (..., D). Returns: the same shape and dtype."""
        scale = self.param("scale", nn.initializers.constant(self.initial), (x.shape[-1],), jnp.float32)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + self.eps)
        return scale.astype(x.dtype) * wide.astype(x.dtype)


class MLP(nn.Module):
    """SwiGLU with a learned global scale: the feed-forward of the dense layers."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Args: x (B, T, D). Returns: (B, T, D)."""
        model = x.shape[-1]
        gate = self.param("gate", fan_in_init(0), (model, self.width), jnp.float32).astype(x.dtype)
        up = self.param("up", fan_in_init(0), (model, self.width), jnp.float32).astype(x.dtype)
        down = self.param("down", fan_in_init(0), (self.width, model), jnp.float32).astype(x.dtype)
        scale = self.param("global_scale", nn.initializers.ones, (), jnp.float32).astype(x.dtype)
        tokens = x.reshape(-1, model)  # one axis to sum over in the weights' gradients: no copies turned round on CPU
        hidden = jax.nn.silu(keep(tokens @ gate)) * keep(tokens @ up)
        return (keep(hidden @ down) * scale).reshape(x.shape)


class ShortConv(nn.Module):
    """Depthwise causal convolution with its own residual, in float32.

    Packed, a tap does not reach over the start of its segment. Streaming, the last `taps − 1` inputs are carried.

    Attributes:
      taps: kernel size.
      placement: devices; None on one device.
    """

    taps: int
    placement: Placement | None = None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        segment: jax.Array | None = None,
        state: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Filters a packed row, or appends to a stream.

        Args:
          x: (B, T, C).
          segment: (B, T) int32, packed only.
          state: (B, taps − 1, C) float32, the inputs before x, streaming only.
          valid: (B,) int32, how many of the T positions are real, streaming only.

        Returns:
          (B, T, C) in x's dtype, and the new state (None when packed).
        """
        time, channels = x.shape[1:]
        kernel = self.param("kernel", nn.initializers.normal(0.1), (self.taps, channels), jnp.float32)
        wide = x.astype(jnp.float32)
        before = self.taps - 1
        history = halo(x, before, self.placement).astype(jnp.float32) if state is None else state
        full = jnp.concatenate([history, wide], axis=1)
        if segment is not None:
            segments = jnp.concatenate([halo(segment, before, self.placement), segment], axis=1)
        out = wide
        for tap in range(self.taps):
            reached = full[:, tap : tap + time]
            if segment is not None and tap < before:
                reached = jnp.where((segments[:, tap : tap + time] == segment)[..., None], reached, 0.0)
            out = out + kernel[tap] * reached
        if state is None:
            return out.astype(x.dtype), None
        keep = valid[:, None] + jnp.arange(before)[None]  # the last inputs before the first padding
        return out.astype(x.dtype), jnp.take_along_axis(full, keep[..., None], axis=1)
