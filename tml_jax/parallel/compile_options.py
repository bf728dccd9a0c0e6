"""Compiler options that the step is compiled with, by the platform it is compiled for."""

import functools

import jax
import jax.numpy as jnp

# On CPU the fused library kernels that XLA chooses by default ran the replica's step at 0.6 of the speed it has
# without them (jaxlib 0.10.2, two cores).
_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """Options for `jax.jit(…, compiler_options=…)`.

    Args:
      platform: of the devices compiled for, such as `cpu`.

    Returns:
      The options that this version of the compiler knows; none on other platforms.
    """
    if platform != "cpu":
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=_CPU).lower(jnp.zeros(())).compile()
    except jax.errors.JaxRuntimeError:  # another version, without this option
        return {}
    return _CPU
