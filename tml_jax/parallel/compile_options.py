"""Compiler options that the programs of a run are compiled with, by the platform they are compiled for."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

# On CPU the fused library kernels that XLA chooses by default ran the replica's step at 0.6 of the speed it has
# without them (jaxlib 0.10.2, two cores).
_CPU = {"xla_cpu_experimental_ynn_fusion_type": ""}
# The tiny model's initial weights are compiled in 7 s of a processor instead of 17, and then drawn in 0.1 s more.
_CPU_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Gathers stay on the main cores. By the compiler's estimate SparseCores would do them in a quarter of the time, but it
# takes three times as long or more over each (jaxlib 0.10.2, libtpu 0.0.52), and a train step has many.
TPU = {"xla_tpu_offload_gather_to_sparsecore": "false"}


def compiler_options(platform: str) -> dict[str, Any]:
    """Options for `jax.jit(…, compiler_options=…)`.

    Args:
      platform: of the devices compiled for, such as `cpu`.

    Returns:
      The options that this version of the compiler knows; none where it is not the platform of this machine.
    """
    return _known({"cpu": tuple(_CPU.items()), "tpu": tuple(TPU.items())}.get(platform, ()))


def options_for_one_call(platform: str) -> dict[str, Any]:
    """As `compiler_options`, for a program that runs once, so that optimising it costs more than it saves."""
    return _known(tuple(_CPU_ONCE.items()) if platform == "cpu" else ())


@functools.cache
def _known(options: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """These options, or none where the compiler does not know them."""
    if not options:
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=dict(options)).lower(jnp.zeros(())).compile()
    except jax.errors.JaxRuntimeError:  # another version, without this option; or another platform than this machine's
        return {}
    return dict(options)
