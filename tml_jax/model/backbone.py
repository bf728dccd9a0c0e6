"""The decoder: layers, repeated in periods of `global_every`, over packed rows or over carried state.

Where at least two whole periods of sparse layers follow the dense ones, they run in one `nn.scan`: compile time does
not grow with depth, and their parameters are stacked on a leading axis. The other layers stand by themselves. To serve,
all do (`unstacked`): a loop would copy the weights and the caches of a layer out of their stacks for every token, where
a kernel fetches the few that it needs.
"""

from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from tml_jax.config import ModelConfig
from tml_jax.model.attention import Append, Attention, AttentionCache, Packed, init_attention_cache
from tml_jax.model.layers import MLP, RMSNorm, ShortConv
from tml_jax.model.moe import MoE
from tml_jax.parallel.placement import Placement, split_rows
from tml_jax.remat import POLICIES


@flax.struct.dataclass
class LayerCache:
    """Streaming state of one layer: attention, and the inputs of the two branch convolutions (B, taps − 1, D)."""

    attention: AttentionCache
    attention_conv: jax.Array
    mlp_conv: jax.Array


def layer_plan(config: ModelConfig, scanned: bool = True) -> tuple[list[int], int, list[int]]:
    """How the layers are run.

    Args:
      config: the model.
      scanned: whether in a loop, as far as that goes.

    Returns:
      Layers before the scan, number of scanned periods, layers after the scan. A period is `global_every` layers, so
      all have the same kinds in the same order.
    """
    first, every, layers = config.num_dense_layers, config.global_every, config.num_layers
    periods = (layers - first) // every
    if periods < 2 or not scanned:
        return list(range(layers)), 0, []
    return list(range(first)), periods, list(range(first + periods * every, layers))


def unstacked(variables: dict[str, Any], config: ModelConfig) -> dict[str, Any]:
    """Variables of a model whose layers are scanned as those of one whose layers are not.

    Args:
      variables: collections of the model, such as {"params", "balance"}.
      config: the model.

    Returns:
      The same with `layer_0`, `layer_1`, … in place of `periods`.
    """
    before, periods, _ = layer_plan(config)
    found = {}
    for name, collection in variables.items():
        backbone = dict(collection.get("backbone", {}))
        stacks = backbone.pop("periods", {})
        for offset in range(config.global_every):
            for period in range(periods) if stacks else ():
                index = len(before) + period * config.global_every + offset
                stack = stacks.get(f"layer_{offset}", {})
                backbone[f"layer_{index}"] = jax.tree.map(lambda leaf, period=period: leaf[period], stack)
        found[name] = {**collection, "backbone": backbone} if "backbone" in collection else collection
    return found


class DecoderLayer(nn.Module):
    """RMSNorm → attention → short convolution → residual; RMSNorm → MLP or experts → short convolution → residual."""

    config: ModelConfig
    is_global: bool
    is_dense: bool
    placement: Placement | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, where: Packed | Append, cache: LayerCache | None, context: int
    ) -> tuple[jax.Array, LayerCache | None, dict[str, jax.Array]]:
        """Args and returns as `Backbone`, for one layer; extras of sparse layers only, see `MoE`."""
        cfg = self.config
        packed = isinstance(where, Packed)
        segment, valid = (where.segment, None) if packed else (None, where.valid)
        state = (None, None, None) if cache is None else (cache.attention, cache.attention_conv, cache.mlp_conv)
        short_conv = lambda name: ShortConv(cfg.conv_kernel, self.placement, name=name)  # noqa: E731

        with jax.named_scope("attention"):
            y = RMSNorm(cfg.norm_eps, name="attention_norm")(x)
            y, attention = Attention(cfg, self.is_global, self.placement, name="attention")(y, where, state[0], context)
            y, attention_conv = short_conv("attention_conv")(y, segment, state[1], valid)
            x = x + y
        with jax.named_scope("mlp" if self.is_dense else "moe"):
            y = RMSNorm(cfg.norm_eps, name="mlp_norm")(x)
            extras = {}
            if self.is_dense:
                y = MLP(cfg.dense_ffn, name="mlp")(y)
            else:
                y, extras = MoE(cfg, self.placement, name="moe")(y, segment > 0 if packed else None)
            y, mlp_conv = short_conv("mlp_conv")(y, segment, state[2], valid)
            x = x + y
        x = split_rows(self.placement, x)
        new_cache = None if packed else LayerCache(attention, attention_conv, mlp_conv)
        return x, new_cache, extras


class _Period(nn.Module):
    """One period of sparse layers, the body of the scan."""

    config: ModelConfig
    first: int
    remat: str
    context: int
    placement: Placement | None

    @nn.compact
    def __call__(self, x: jax.Array, where: Packed | Append, caches: Any) -> tuple[jax.Array, tuple[Any, Any]]:
        new_caches, extras = {}, {}
        for offset in range(self.config.global_every):
            name = f"layer_{offset}"
            is_global = self.config.is_global(self.first + offset)
            layer = _layer_class(self.remat, scanned=True)(self.config, is_global, False, self.placement, name=name)
            x, new_caches[name], extras[name] = layer(x, where, caches and caches[name], self.context)
        return x, (caches and new_caches, extras)


def _layer_class(remat: str, scanned: bool) -> type[nn.Module]:
    if remat == "none":
        return DecoderLayer
    # In a loop the compiler cannot merge the second computation of a layer with the first; outside of one it would.
    return nn.remat(DecoderLayer, policy=POLICIES[remat], static_argnums=(4,), prevent_cse=not scanned)


class Backbone(nn.Module):
    """All layers and the final norm.

    Attributes:
      config: the model.
      remat: see `TrainConfig.remat`.
      placement: devices and transport; None on one device.
      scanned: whether layers run in a loop, see `layer_plan`.
    """

    config: ModelConfig
    remat: str = "none"
    placement: Placement | None = None
    scanned: bool = True

    @nn.compact
    def __call__(
        self, x: jax.Array, where: Packed | Append, caches: Any = None, context: int = 0
    ) -> tuple[jax.Array, Any, dict[str, Any]]:
        """Runs packed rows, or appends to streams.

        Args:
          x: (B, T, D) embedded elements.
          where: their positions: `Packed` in training, `Append` in streaming.
          caches: streaming state from `init_caches`, or None.
          context: elements that global layers see in streaming.

        Returns:
          Hidden states (B, T, D); the new caches (None when packed); extras by layer name, stacked for scanned
          periods, see `MoE`.
        """
        cfg = self.config
        before, periods, after = layer_plan(cfg, self.scanned)
        new_caches, extras = {}, {}

        def run(x: jax.Array, layers: list[int]) -> jax.Array:
            for index in layers:
                name = f"layer_{index}"
                kinds = cfg.is_global(index), cfg.is_dense(index)
                layer = _layer_class(self.remat, scanned=False)(cfg, *kinds, self.placement, name=name)
                x, new_caches[name], extras[name] = layer(x, where, caches and caches[name], context)
            return x

        x = run(x, before)
        if periods:
            scan = nn.scan(
                _Period,
                variable_axes={"params": 0, "balance": 0, "scales": 0},
                split_rngs={"params": True},
                in_axes=(nn.broadcast, 0),
                out_axes=0,
                length=periods,
            )
            scanned = scan(cfg, len(before), self.remat, context, self.placement, name="periods")
            x, (new_caches["periods"], extras["periods"]) = scanned(x, where, caches and caches["periods"])
        x = run(x, after)
        return RMSNorm(cfg.norm_eps, name="final_norm")(x), caches and new_caches, extras


def init_caches(
    config: ModelConfig, batch: int, context: int, block: int, dtype: jnp.dtype, scanned: bool = True
) -> dict[str, Any]:
    """Empty streaming state for `batch` sessions.

    Args:
      config: the model.
      batch: sessions B.
      context: elements that global layers see.
      block: most elements appended at once.
      dtype: of keys and values.
      scanned: whether layers run in a loop, as in the model that uses them.

    Returns:
      Caches by layer name, those of scanned periods stacked on a leading axis.
    """
    before, periods, after = layer_plan(config, scanned)

    def layer(index: int) -> LayerCache:
        conv = (batch, config.conv_kernel - 1, config.d_model)
        attention = init_attention_cache(config, config.is_global(index), batch, context, block, dtype)
        return LayerCache(attention, jnp.zeros(conv, jnp.float32), jnp.zeros(conv, jnp.float32))

    caches = {f"layer_{index}": layer(index) for index in before + after}
    if periods:
        period = {f"layer_{offset}": layer(len(before) + offset) for offset in range(config.global_every)}
        caches["periods"] = jax.tree.map(lambda x: jnp.broadcast_to(x, (periods, *x.shape)), period)
    return caches
