"""Whatever is compiled in the process while it serves is counted, and nothing before and after."""

import io
import json

import jax
import jax.numpy as jnp

from tml_jax.serve.compilations import counting_compilations
from tml_jax.serve.log import logging_to


def compile_something(number: int) -> None:
    jax.jit(lambda x: x * number)(jnp.ones(3)).block_until_ready()


def test_every_program_counts_whoever_asks_for_it():
    compile_something(1)
    stream = io.StringIO()
    with logging_to(stream, "json"), counting_compilations() as compilations:
        assert compilations.count == 0
        compile_something(2)
        once = compilations.count
        jnp.ones(3) + 1  # known already, or not: what matters is the next
        compile_something(3)
        assert compilations.count > once > 0
    counted = compilations.count
    compile_something(4)
    assert compilations.count == counted
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(said) == counted and {line["event"] for line in said} == {"compiled"}
