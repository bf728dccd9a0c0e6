"""Encoder-free inputs: every stream enters the transformer through one light embedding.

Text through a normed table; audio as a bag of embeddings, one row for each (mel bin, level), summed and normed; the
model's own audio likewise over its 5 × 80 bins; video patches through a hierarchical MLP that folds space and time
(hMLP, arXiv 2203.09795).
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.config import DMEL_LEVELS, MEL_BINS, OWN_FRAMES, PATCH, ModelConfig
from tml_jax.model.layers import RMSNorm, fan_in_init
from tml_jax.parallel.lookup import look_up
from tml_jax.parallel.placement import Placement, split_rows
from tml_jax.parallel.stripes import take_slots
from tml_jax.signal.mel import OWN_MEL_MAX, OWN_MEL_MIN
from tml_jax.tokens import Stream

# Mean and deviation of the pixels after scaling to 0 … 1, as the open weights expect them (those of CLIP).
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


@flax.struct.dataclass
class ElementArrays:
    """A block of B sequences of T elements, with the side arrays that hold what is not a token.

    Attributes:
      stream: (B, T) int8, `tokens.Stream`.
      token: (B, T) int32, read where the stream is made of tokens.
      slot: (B, T) int32, row of the stream's side array.
      audio_in: (B, Na, 80) uint8 dMel levels.
      video: (B, Nv, 2, 40, 40, 3) uint8 pixels.
      audio_out: (B, No, 5, 80) float32 log10 mel.
    """

    stream: jax.Array
    token: jax.Array
    slot: jax.Array
    audio_in: jax.Array
    video: jax.Array
    audio_out: jax.Array


def own_levels(log_mel: jax.Array) -> jax.Array:
    """Quantises the model's own log10 mel to the nearest of 16 evenly spaced levels. Any shape; returns int32."""
    scaled = (log_mel - OWN_MEL_MIN) / (OWN_MEL_MAX - OWN_MEL_MIN) * (DMEL_LEVELS - 1)
    return jnp.clip(jnp.round(scaled), 0, DMEL_LEVELS - 1).astype(jnp.int32)


def level_table_init(key: jax.Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> jax.Array:
    """Start of a (bins · 16, D) table: rows of a bin rise evenly with the level, plus noise.

    The sum over bins is then nearly a random projection of the spectrum, so that like sounds start alike; with
    unrelated rows a small model spends most of its training on finding that out.
    """
    bins = shape[0] // DMEL_LEVELS
    slope_key, noise_key = jax.random.split(key)
    level = (jnp.arange(DMEL_LEVELS, dtype=dtype) - (DMEL_LEVELS - 1) / 2) / (DMEL_LEVELS / 4)
    slope = 0.02 * jax.random.normal(slope_key, (bins, 1, shape[1]), dtype)
    noise = 0.005 * jax.random.normal(noise_key, (bins, DMEL_LEVELS, shape[1]), dtype)
    return (level[:, None] * slope + noise).reshape(shape)


class BagOfLevels(nn.Module):
    """Sum of one table row for each (bin, level), then RMSNorm.

    Computed as a product with one-hot levels: on every backend faster than gathering and scattering single rows.
    """

    bins: int
    d_model: int
    eps: float
    placement: Placement | None = None

    @nn.compact
    def __call__(self, levels: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Args: levels (…, bins) integer. Returns: (…, D) in dtype."""
        rows = self.bins * DMEL_LEVELS  # row = bin · 16 + level
        table = self.param("table", level_table_init, (rows, self.d_model), jnp.float32)
        one_hot = jax.nn.one_hot(levels, DMEL_LEVELS, dtype=dtype).reshape(*levels.shape[:-1], rows)
        one_hot = split_rows(self.placement, one_hot)
        return RMSNorm(self.eps, name="norm")(one_hot @ table.astype(dtype))


class PatchNetwork(nn.Module):
    """The hMLP: folds cells of space and time into depth, a bias-free projection at each fold."""

    config: ModelConfig

    @nn.compact
    def __call__(self, pixels: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Args: pixels (N, 2, 40, 40, 3), whole numbers 0 … 255. Returns: (N, D) in dtype."""
        cfg = self.config
        x, before = pixels, (1, 1, 1)
        for index, (*covers, channels) in enumerate(cfg.vision_stages):
            last = index == len(cfg.vision_stages) - 1
            x = _fold(x, *(size // was for size, was in zip(covers, before)))
            if index == 0:  # not before: numbers whose innermost axis is three colours take 42 times the room on TPUs
                mean, std = (jnp.tile(jnp.asarray(of), x.shape[-1] // PATCH[3]) for of in (PIXEL_MEAN, PIXEL_STD))
                x = ((x.astype(jnp.float32) / 255.0 - mean) / std).astype(dtype)
            width = cfg.d_model if last else channels
            kernel = self.param(f"fold_{index}", fan_in_init(0), (x.shape[-1], width), jnp.float32)
            x = x @ kernel.astype(dtype)
            if not last:
                x = jax.nn.gelu(RMSNorm(cfg.norm_eps, name=f"norm_{index}")(x), approximate=False)
            before = covers
        return RMSNorm(cfg.norm_eps, name="final_norm")(x).reshape(pixels.shape[0], cfg.d_model)


def _fold(x: jax.Array, frames: int, rows: int, columns: int) -> jax.Array:
    """Cells of so many frames, rows and columns become one: (N, T, H, W, C) → (N, T / frames, …, their numbers)."""
    n, t, h, w, c = x.shape
    x = x.reshape(n, t // frames, frames, h // rows, rows, w // columns, columns * c)
    x = x.transpose(0, 1, 3, 5, 2, 4, 6)
    return x.reshape(n, t // frames, h // rows, w // columns, frames * rows * columns * c)


class InputEmbeddings(nn.Module):
    """All streams into one sequence."""

    config: ModelConfig
    dtype: jnp.dtype
    placement: Placement | None = None

    def setup(self) -> None:
        """Makes the parts."""
        cfg = self.config
        self.table = self.param("text_table", nn.initializers.normal(0.02), (cfg.vocab_size, cfg.d_model), jnp.float32)
        self.text_norm = RMSNorm(cfg.norm_eps)
        self.audio_in = BagOfLevels(MEL_BINS, cfg.d_model, cfg.norm_eps, self.placement)
        self.own_audio = BagOfLevels(OWN_FRAMES * MEL_BINS, cfg.d_model, cfg.norm_eps, self.placement)
        self.video = PatchNetwork(cfg)

    def tokens(self, token: jax.Array) -> jax.Array:
        """(…) int32 → (…, D)."""
        if self.placement is None or self.placement.transport == "whole":
            return self.text_norm(self.table.astype(self.dtype)[token])
        return self.text_norm(look_up(self.table, token, self.dtype, self.placement))

    def heard(self, levels: jax.Array) -> jax.Array:
        """dMel levels (…, 80) → (…, D)."""
        return self.audio_in(levels, self.dtype)

    def spoken(self, log_mel: jax.Array) -> jax.Array:
        """Own log10 mel (…, 5, 80) → (…, D)."""
        levels = own_levels(log_mel)
        return self.own_audio(levels.reshape(*levels.shape[:-2], OWN_FRAMES * MEL_BINS), self.dtype)

    def seen(self, pixels: jax.Array) -> jax.Array:
        """Pixels (…, 2, 40, 40, 3) uint8, or int16 with −1 outside of a still picture → (…, D)."""
        out = self.video(pixels.reshape(-1, *pixels.shape[-4:]), self.dtype)
        return out.reshape(*pixels.shape[:-4], self.config.d_model)

    def __call__(self, elements: ElementArrays) -> jax.Array:
        """Args: elements of B sequences. Returns: (B, T, D); padding holds a token's embedding and is masked later."""
        x = self.tokens(elements.token)
        sides = (
            (Stream.AUDIO_IN, elements.audio_in, self.heard),
            (Stream.VIDEO, elements.video, self.seen),
            (Stream.AUDIO_OUT, elements.audio_out, self.spoken),
        )
        for stream, rows, embed in sides:
            if rows.shape[1] == 0 and not self.is_initializing():
                continue
            embedded = embed(rows if rows.shape[1] else jnp.zeros((rows.shape[0], 1, *rows.shape[2:]), rows.dtype))
            embedded = split_rows(self.placement, embedded)
            here = elements.stream == stream
            slot = jnp.where(here, elements.slot, 0)
            x = jnp.where(here[..., None], take_slots(embedded, slot, self.placement), x)
        return split_rows(self.placement, x)
