"""The count by hand, against numbers worked out here and against the parameters that it multiplies with."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from small import SMALL, small_config

from configs import tml_interaction_small
from tml_jax.config import MeshConfig, from_mapping
from tml_jax.kernels.packed_attention_kernels import Tiling
from tml_jax.model.count import active_parameters, count_parameters
from tml_jax.model.experts import Experts, Routing
from tml_jax.model.flow import TARGET, FlowHead
from tml_jax.model.inputs import PatchNetwork
from tml_jax.parallel.mesh import make_mesh
from tml_jax.parallel.placement import Placement
from tml_jax.parallel.transport import exchange_experts
from tml_jax.remat import POLICIES
from tml_jax.scale.flops import flow_flops, layer_flops, patch_flops, seen_pairs, tile_pairs, train_flops

FLAGSHIP = from_mapping(tml_interaction_small.get_config())


def test_matrices_of_the_layers_are_twice_their_active_parameters():
    model = FLAGSHIP.model
    counts = count_parameters(model)
    active = active_parameters(model, counts) - counts["unembedding"]
    assert sum(layer_flops(model).values()) == pytest.approx(2 * active, rel=0.005)  # but for norms and convolutions


def matrix_parameters(tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree) if leaf.ndim >= 2)


def test_the_flow_head_multiplies_with_each_matrix_once():
    hidden = jax.ShapeDtypeStruct((1, SMALL.d_model), "float32")
    given = jax.ShapeDtypeStruct((1, TARGET), "float32"), jax.ShapeDtypeStruct((1,), "float32"), hidden
    shapes = jax.eval_shape(FlowHead(SMALL).init, jax.random.key(0), *given)
    assert flow_flops(SMALL) == 2 * matrix_parameters(shapes)


def test_the_patch_network_multiplies_with_a_fold_for_each_of_its_cells():
    shapes = jax.eval_shape(
        lambda pixels: PatchNetwork(SMALL).init(jax.random.key(0), pixels, "float32"),
        jax.ShapeDtypeStruct((1, 2, 40, 40, 3), "float32"),
    )["params"]
    cells = [2 * 8 * 8, 2 * 4 * 4, 2, 1]
    assert patch_flops(SMALL) == sum(2 * count * shapes[f"fold_{i}"].size for i, count in enumerate(cells))


@pytest.mark.parametrize(
    ("time", "window", "block", "seen", "tiles"),
    [(8, None, 4, 36, 48), (8, 8, 4, 36, 48), (8, 1, 4, 8, 32), (8, 3, 4, 21, 48), (16, 4, 4, 58, 112)],
)
def test_pairs_that_are_seen_and_pairs_of_the_tiles(time, window, block, seen, tiles):
    brute = sum(min(query + 1, window or time) for query in range(time))
    assert seen_pairs(time, window) == seen == brute
    assert tile_pairs(time, window, block) == tiles


@pytest.mark.parametrize(
    ("window", "stripes", "tiles"),
    [(None, 4, 4 * (7 + 8)), (None, 2, 2 * (5 + 6 + 7 + 8)), (4, 2, 2 * 4 * 2), (12, 4, 4 * 2 * 3), (1, 4, 8)],
)
def test_every_stripe_has_the_tiles_of_the_last(window, stripes, tiles):
    """A row of 64 elements in blocks of 8."""
    kernel = Tiling(64 // stripes, 8, window or 64, 1, True, -(-min((window or 64) - 1, 64 - 64 // stripes) // 8))
    assert tile_pairs(64, window, 8, stripes) == 64 * tiles == 64 * stripes * len(kernel.tiles()[0])


def test_remat_and_room_are_in_the_program_but_not_in_what_is_useful():
    config = small_config()
    counted = {}
    for remat, capacity in (("none", 0.0), ("block", 0.0), ("none", 1.5), ("kept", 0.0)):
        changed = dataclasses.replace(
            config,
            train=dataclasses.replace(config.train, remat=remat),
            mesh=MeshConfig(transport="capacity", capacity=capacity),
        )
        counted[remat, capacity] = train_flops(changed)
    plain, again, roomy, kept = counted.values()
    assert plain.useful == again.useful == roomy.useful == kept.useful
    assert kept.program.pop("keys and values") == pytest.approx(plain.program["keys and values"] * 4 / 3)
    assert kept.program.pop("routed experts") == pytest.approx(plain.program["routed experts"] * (3 + 2 / 3) / 3)
    assert kept.program.items() <= plain.program.items()
    assert again.program["projections"] == pytest.approx(plain.program["projections"] * 4 / 3)
    assert roomy.program["routed experts"] == pytest.approx(plain.program["routed experts"] * 1.5)
    assert roomy.program["unembedding"] == again.program["unembedding"] == plain.useful["unembedding"]


def products(jaxpr: Any) -> int:
    """Products of matrices in a program and in all that it calls."""
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name in ("dot_general", "ragged_dot_general")
        for value in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(value, "jaxpr", value)
            found += products(inner) if hasattr(inner, "eqns") else 0
    return found


@pytest.mark.parametrize("transport", ["capacity", "ring"])
@pytest.mark.parametrize("remat", ["kept", "dots"])
def test_products_of_experts_are_repeated_as_counted(transport, remat):
    mesh = MeshConfig(expert=1, transport=transport, capacity=1.0)
    placement = Placement(make_mesh(mesh, jax.devices()[:1]), transport)
    chosen, weight = jnp.zeros((16, 2), jnp.int32), jnp.ones((16, 2))
    experts = Experts(jnp.zeros((4, 8, 6)), jnp.zeros((4, 8, 6)), jnp.zeros((4, 6, 8)))

    def forward(x: jax.Array, weight: jax.Array, experts: Experts) -> jax.Array:
        return exchange_experts(x, Routing(chosen, weight, weight), experts, placement)[0]

    def count(forward: Callable) -> int:
        step = lambda *given: jax.vjp(forward, *given)[1](jnp.ones((16, 8)))  # noqa: E731
        return products(jax.make_jaxpr(step)(jnp.zeros((16, 8)), weight, experts).jaxpr)

    config = small_config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, remat=remat), mesh=mesh)
    counted = train_flops(config)
    again = counted.program["routed experts"] / counted.useful["routed experts"]
    assert count(forward) == 9
    assert count(jax.checkpoint(forward, policy=POLICIES[remat])) == pytest.approx(9 * again)
