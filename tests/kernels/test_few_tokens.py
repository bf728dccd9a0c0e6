"""The kernel for few tokens gives the numbers of the plain reference, whichever experts are chosen."""

import jax.numpy as jnp
import numpy as np
import pytest

from tml_jax.kernels import few_tokens
from tml_jax.model.experts import Experts, Routing, experts_reference

TOKENS, WIDTH, HIDDEN, EXPERTS, TOP = 8, 32, 24, 6, 2


@pytest.mark.parametrize(
    "expert",
    [
        [[0, 1]] * TOKENS,
        [[5, 3]] * TOKENS,
        [[index % EXPERTS, (index + 1) % EXPERTS] for index in range(TOKENS)],
        [[EXPERTS, EXPERTS]] * TOKENS,  # none: all of them are on other devices
        [[2, EXPERTS]] + [[EXPERTS, EXPERTS]] * (TOKENS - 1),
    ],
    ids=["first", "last", "all", "none", "one"],
)
@pytest.mark.parametrize("tile", [24, 8], ids=["whole", "tiles"])
def test_few_tokens(expert, tile, monkeypatch):
    monkeypatch.setattr(few_tokens, "_TILE", tile)
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), jnp.float32)  # noqa: E731
    x, routing = normal(TOKENS, WIDTH), Routing(jnp.asarray(expert), normal(TOKENS, TOP), normal(TOKENS, 0))
    experts = Experts(normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, HIDDEN, WIDTH))
    weight = jnp.zeros((TOKENS, EXPERTS + 1)).at[jnp.arange(TOKENS)[:, None], routing.expert].add(routing.weight)
    matrices = experts.gate, experts.up, experts.down
    found = few_tokens.few_tokens_mlp(x, weight[:, :EXPERTS], matrices, None, share=0.5, interpret=True)
    expected = experts_reference(x, routing, experts)
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1.0, float(jnp.abs(expected).max())))
