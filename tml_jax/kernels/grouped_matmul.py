"""Products of groups of rows with one matrix for each group: rows of the first group first, then those of the next.

On TPU the Pallas kernels of JAX's megablox compute it, whose gradients are grouped products as well. Elsewhere, and as
the reference, `jax.lax.ragged_dot` does; on TPU its weight gradient would be lowered densely.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

ROWS = 128  # the kernel takes a multiple of so many rows
_TILE = (512, 1024, 1024)  # rows, inner and outer width of a tile, at most


def grouped_matmul(
    rows: jax.Array, weights: jax.Array, sizes: jax.Array, *, tpu: bool, interpret: bool = False
) -> jax.Array:
    """rows of group g @ weights[g].

    Args:
      rows: (M, K), sorted by group; rows past the last group may hold anything that is finite.
      weights: (G, K, N), of the same dtype.
      sizes: (G,) int32, rows of each group; they sum to at most M.
      tpu: whether it is compiled for a TPU; then M is a multiple of `ROWS`, K and N of 128.
      interpret: run the TPU kernel in Python, for tests.

    Returns:
      (M, N) of the same dtype; zero past the last group.
    """
    if not (tpu or interpret):
        return jax.lax.ragged_dot(rows, weights, sizes)
    # A last group without a matrix takes the rows that are left; the kernel puts out zero there.
    rest = rows.shape[0] - jnp.sum(sizes, keepdims=True)
    return _kernel(rows, weights, jnp.concatenate([sizes, rest]), interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _kernel(rows: jax.Array, weights: jax.Array, sizes: jax.Array, interpret: bool) -> jax.Array:
    tiling = _tiling(rows.shape[0], *weights.shape[1:])
    return gmm(rows, weights, sizes, rows.dtype, tiling, interpret=interpret)


def _forward(
    rows: jax.Array, weights: jax.Array, sizes: jax.Array, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    return _kernel(rows, weights, sizes, interpret), (rows, weights, sizes)


def _backward(
    interpret: bool, saved: tuple[jax.Array, jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array, None]:
    rows, weights, sizes = saved
    groups, inner, outer = weights.shape
    of_rows = gmm(
        gradient, weights, sizes, rows.dtype, _tiling(rows.shape[0], outer, inner), transpose_rhs=True,
        interpret=interpret,
    )  # fmt: skip
    of_weights = tgmm(
        rows.swapaxes(0, 1), gradient, sizes, weights.dtype, _tiling(rows.shape[0], inner, outer),
        num_actual_groups=groups, interpret=interpret,
    )  # fmt: skip
    return of_rows, of_weights, None


_kernel.defvjp(_forward, _backward)


def _tiling(rows: int, inner: int, outer: int) -> tuple[int, int, int]:
    """The largest tile that divides the rows and is not larger than the widths."""
    return math.gcd(rows, _TILE[0]), min(inner, _TILE[1]), min(outer, _TILE[2])
