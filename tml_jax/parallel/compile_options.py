"""Compiler options that the step is compiled with, by the platform it is compiled for."""

import functools

import jax
import jax.numpy as jnp

# On CPU the fused library kernels that XLA chooses by default ran the replica's step at 0.6 of the speed it has
# without them (jaxlib 0.10.2, two cores).
_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}
# Gathers stay on the main cores. By the compiler's estimate SparseCores would do them in a quarter of the time, but it
# takes three times as long or more over each (jaxlib 0.10.2, libtpu 0.0.52), and a train step has many.
TPU = {"xla_tpu_offload_gather_to_sparsecore": "false"}


@functools.cache
def compiler_options(platform: str) -> dict[str, str]:
    """Options for `jax.jit(…, compiler_options=…)`.

    Args:
      platform: of the devices compiled for, such as `cpu`.

    Returns:
      The options that this version of the compiler knows; none where it is not the platform of this machine.
    """
    options = {"cpu": _CPU, "tpu": TPU}.get(platform)
    if options is None:
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(jnp.zeros(())).compile()
    except jax.errors.JaxRuntimeError:  # another version, without this option; or another platform than this machine's
        return {}
    return options
