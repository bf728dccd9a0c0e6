"""The few tokens of a micro-turn through the experts that they chose, reading no other expert's weights.

Memory is what this step waits for: a token meets six experts of 256, so all the time goes into fetching weights. The
kernel walks over the chosen experts alone, each fetched once whatever the number of its tokens, while the products of
the one before run. That all tokens meet every chosen expert, with a weight of zero where they did not choose it, costs
nothing beside that.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

_VMEM_BYTES = 48 << 20  # for two sets of tiles, the tokens and the sums
_TILE = 512  # columns of a tile of the hidden width, at most


def few_tokens_mlp(
    x: jax.Array,
    weight: jax.Array,
    matrices: tuple[jax.Array, jax.Array, jax.Array],
    scales: tuple[jax.Array, jax.Array, jax.Array] | None,
    *,
    share: float,
    interpret: bool,
) -> jax.Array:
    """Sum over experts of weight · (silu(x gate) · (x up)) down.

    Args:
      x: (N, D).
      weight: (N, E) float32, of each token for each expert; zero where it did not choose it.
      matrices: gate and up (E, D, F), down (E, F, D), numbers or int8.
      scales: where they are int8, of their columns: (E, 1, F) twice and (E, 1, D).
      share: of the experts that are chosen at all, on average; for the compiler's estimate of the cost alone.
      interpret: run in Python, for tests.

    Returns:
      (N, D) float32.
    """
    tokens, width = x.shape
    count, _, hidden = matrices[0].shape
    scales = tuple(jnp.ones((count, 1, m.shape[2]), jnp.float32) for m in matrices) if scales is None else scales
    chosen = jnp.any(weight != 0, axis=0)
    # Chosen experts first; the steps behind them stay with the last one, so that nothing more is fetched.
    order = jnp.argsort(~chosen, stable=True).astype(jnp.int32)
    active = jnp.sum(chosen, dtype=jnp.int32)
    order = jnp.where(jnp.arange(count) < active, order, order[jnp.maximum(active - 1, 0)])
    columns = jnp.take(weight.T, order, axis=0)[:, :, None]  # (E, N, 1), in the order of the steps
    tile = _TILE if hidden % _TILE == 0 else hidden
    tiles = hidden // tile
    read = 3 * width * hidden * share * count
    kernel = pl.pallas_call(
        _kernel,
        out_shape=jax.ShapeDtypeStruct((tokens, width), jnp.float32),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(count, tiles),
            in_specs=[
                pl.BlockSpec((tokens, width), lambda step, part, order, active: (0, 0)),
                pl.BlockSpec((1, tokens, 1), lambda step, part, order, active: (step, 0, 0)),
                *(pl.BlockSpec((1, width, tile), functools.partial(_place, tiles=tiles)) for _ in range(2)),
                pl.BlockSpec((1, tile, width), functools.partial(_place, tiles=tiles, rows=True)),
                *(pl.BlockSpec((1, 1, tile), functools.partial(_place, tiles=tiles)) for _ in range(2)),
                pl.BlockSpec((1, 1, width), lambda step, part, order, active: (order[step], 0, 0)),
            ],
            out_specs=pl.BlockSpec((tokens, width), lambda step, part, order, active: (0, 0)),
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary", "arbitrary"), vmem_limit_bytes=_VMEM_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=int(2 * tokens * read),
            bytes_accessed=int(read * matrices[0].dtype.itemsize + tokens * width * (x.dtype.itemsize + 4)),
            transcendentals=int(tokens * hidden * share * count),
        ),
        interpret=interpret,
        name="few_tokens_mlp",
    )
    return kernel(order, active[None], x, columns, *matrices, *scales)


def _place(
    step: jax.Array, part: jax.Array, order: jax.Array, active: jax.Array, tiles: int, rows: bool = False
) -> tuple[jax.Array, ...]:
    """Which tile of which expert; steps without an expert stay where the last one ended."""
    part = jnp.where(step < active[0], part, tiles - 1)
    return (order[step], part, 0) if rows else (order[step], 0, part)


def _kernel(order, active, x, weight, gate, up, down, gate_scale, up_scale, down_scale, out) -> None:  # noqa: ANN001  (references to memory)
    del order
    step = pl.program_id(0)

    @pl.when((step == 0) & (pl.program_id(1) == 0))
    def _clear() -> None:
        out[...] = jnp.zeros_like(out)

    @pl.when(step < active[0])
    def _add() -> None:
        matmul = lambda y, matrix: jnp.dot(y, matrix.astype(y.dtype), preferred_element_type=jnp.float32)  # noqa: E731
        hidden = jax.nn.silu(matmul(x[...], gate[0]) * gate_scale[0]) * matmul(x[...], up[0]) * up_scale[0]
        out[...] += matmul((hidden * weight[0]).astype(x.dtype), down[0]) * down_scale[0]
