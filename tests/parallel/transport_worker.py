"""Runs what moves tokens between eight simulated devices against references; prints a line for each case that holds."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp
import numpy as np

from tml_jax.config import BATCH_AXES, MeshConfig
from tml_jax.model.experts import Experts, Routing, experts_reference
from tml_jax.parallel.lookup import look_up
from tml_jax.parallel.mesh import make_mesh
from tml_jax.parallel.placement import Placement
from tml_jax.parallel.transport import exchange_experts
from tml_jax.remat import POLICIES

TOKENS, WIDTH, HIDDEN, EXPERTS, TOP = 256, 16, 12, 16, 3
MESHES = {
    "e8": MeshConfig(expert=8),
    "d2e2t2": MeshConfig(data=2, expert=2, tensor=2),
    "f2e4": MeshConfig(fsdp=2, expert=4),
    "e4t2": MeshConfig(expert=4, tensor=2),
}


def inputs(skew: int, top: int = TOP, dtype: jnp.dtype = jnp.float32) -> tuple:
    """Tokens, routing and weights; most tokens choose the first experts (skew 1), the last (-1), or any (0)."""
    rng = np.random.default_rng(3)
    normal = lambda *shape: jnp.asarray(rng.standard_normal(shape), dtype)  # noqa: E731
    scores = rng.standard_normal((TOKENS, EXPERTS)) - skew * np.arange(EXPERTS)
    expert = jnp.asarray(np.argsort(-scores, axis=1)[:, :top], jnp.int32)
    experts = Experts(normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, WIDTH, HIDDEN), normal(EXPERTS, HIDDEN, WIDTH))
    return normal(TOKENS, WIDTH), expert, normal(TOKENS, top), experts, normal(TOKENS, WIDTH)


def forward_and_gradients(product, x, expert, weight, experts, cotangent):
    def forward(x, weight, experts):
        return product(x, Routing(expert, weight, weight), experts)

    (out, dropped), backward = jax.vjp(forward, x, weight, experts, has_aux=False)
    return out, backward((cotangent, np.zeros((), jax.dtypes.float0))), dropped


def reference(x, routing, experts):
    return experts_reference(x, routing, experts), jnp.zeros((), jnp.int32)


def exact(transport: str, name: str, remat: str = "") -> None:
    mesh = make_mesh(MESHES[name])
    placement = Placement(mesh, transport, batch_axes=() if transport == "whole" else BATCH_AXES)
    product = functools.partial(exchange_experts, placement=placement)
    if remat:
        product = jax.checkpoint(product, policy=POLICIES[remat])
    found_of = jax.jit(functools.partial(forward_and_gradients, product))
    for skew in (0, 1, -1):
        given = inputs(skew)
        found = found_of(*given)
        assert found[2] == 0, found[2]
        same(found, forward_and_gradients(reference, *given), 2e-5)
    print(" ".join(filter(None, ("ok:", transport, name, remat, "exact"))))


def same(found: tuple, expected: tuple, tolerance: float) -> None:
    """Whether outputs and gradients are the same, to this share of the largest number of each."""
    for one, other in zip(jax.tree.leaves(found[:2]), jax.tree.leaves(expected[:2]), strict=True):
        one, other = (np.asarray(each, np.float32) for each in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


def with_room(expert: np.ndarray, senders: int, room: int) -> np.ndarray:
    """Which pairs (N, k) are among the first `room` that their sender has for their expert, in the order they come."""
    fits = np.zeros(expert.shape, bool)
    for rows in np.split(np.arange(len(expert)), senders):
        seen = np.zeros(EXPERTS + 1, int)
        for token in rows:
            for choice, chosen in enumerate(expert[token]):
                fits[token, choice] = chosen < EXPERTS and seen[chosen] < room
                seen[chosen] += 1
    return fits


@contextlib.contextmanager
def small_tiles() -> Iterator[None]:
    """Buffers are whole tiles of 128 rows, more than these few tokens fill: `ROWS` is made small for the test."""
    from tml_jax.parallel import transport as module

    before, module.ROWS = module.ROWS, 8
    try:
        yield
    finally:
        module.ROWS = before


def gradients_of_what_is_kept(
    transport: str = "capacity", top: int = TOP, dtype: jnp.dtype = jnp.float32, tolerance: float = 2e-5
) -> None:
    """With pairs dropped and padding between, numbers are those of a product in which these pairs weigh nothing.

    Which pairs `capacity` keeps is worked out here; of the others it is told by the gradients of the weights.
    """
    mesh = make_mesh(MESHES["f2e4"])
    senders = mesh.size
    room = 8 * -(-TOKENS // senders * top // EXPERTS // 8)  # of one sender for one expert
    run = functools.partial(exchange_experts, placement=Placement(mesh, transport, capacity=1.0))
    found_of = jax.jit(functools.partial(forward_and_gradients, run))
    for skew in (1, -1):
        x, expert, weight, experts, cotangent = inputs(skew, top, dtype)
        padded = jnp.where(jnp.arange(TOKENS)[:, None] % 5 == 0, EXPERTS, expert)
        with small_tiles() if transport != "capacity" else contextlib.nullcontext():
            found = found_of(x, padded, weight, experts, cotangent)
        if transport == "capacity":
            fits = with_room(np.asarray(padded), senders, room)
        else:
            fits = np.asarray(found[1][1]) != 0

        def kept(x, routing, experts, fits=fits):
            weight = jnp.where(fits, routing.weight, 0)
            return reference(x, Routing(jnp.minimum(routing.expert, EXPERTS - 1), weight, weight), experts)

        assert found[2] == np.sum(~fits & (np.asarray(padded) < EXPERTS)) > 0, found[2]
        same(found, forward_and_gradients(kept, x, padded, weight, experts, cotangent), tolerance)
    print(f"ok: {transport} keeps what fits, {top} of {jnp.dtype(dtype).name}")


def kept_pairs(placement: Placement) -> tuple[int, int]:
    """How many pairs arrived, told from the outside, and how many were said to be dropped.

    Every expert answers with ones, whatever it is given, so that a token's output counts its pairs.
    """
    x, expert, _, _, _ = inputs(1)
    x = jnp.ones_like(x)
    gate = jnp.full((EXPERTS, WIDTH, HIDDEN), 30.0 / WIDTH)
    up = jnp.full((EXPERTS, WIDTH, HIDDEN), 1.0 / WIDTH)
    down = jnp.full((EXPERTS, HIDDEN, WIDTH), 1.0 / (30.0 * HIDDEN))
    routing = Routing(expert, jnp.ones((TOKENS, TOP)), jnp.ones((TOKENS, TOP)))
    out, dropped = jax.jit(lambda *given: exchange_experts(*given, placement))(x, routing, Experts(gate, up, down))
    return round(float(jnp.sum(out[:, 0]))), int(dropped)


def counts_drops(transport: str) -> None:
    mesh = make_mesh(MESHES["e8"])
    with small_tiles():
        kept, dropped = kept_pairs(Placement(mesh, transport, capacity=1.0))
    assert dropped > 0 and kept + dropped == TOKENS * TOP, (kept, dropped)
    print(f"ok: {transport} counts what it drops")


def padding_takes_no_room() -> None:
    mesh = make_mesh(MESHES["e8"])
    x, expert, weight, experts, _ = inputs(1)
    padded = jnp.where(jnp.arange(TOKENS)[:, None] % 2 == 0, expert, EXPERTS)
    for transport in ("ring", "ragged", "capacity"):
        placement = Placement(mesh, transport)
        run = jax.jit(functools.partial(exchange_experts, placement=placement))
        out, dropped = run(x, Routing(padded, weight, weight), experts)
        expected = experts_reference(x, Routing(expert, weight, weight), experts)
        assert dropped == 0
        np.testing.assert_allclose(out[::2], expected[::2], atol=2e-5 * np.abs(expected).max())
        assert not np.any(out[1::2])
    print("ok: padding takes no room")


def looks_up(name: str) -> None:
    mesh = make_mesh(MESHES[name])
    rng = np.random.default_rng(5)
    table, cotangent = (jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in ((48, 16), (8, 5, 16)))
    token = jnp.asarray(rng.integers(0, 48, (8, 5)), jnp.int32)  # a token comes more than once: its gradients add up

    def rows_and_gradient(rows: Callable[[jax.Array], jax.Array]) -> tuple:
        out, backward = jax.vjp(rows, table)
        return out, *backward(cotangent)

    placed = Placement(mesh, "ring")
    found = jax.jit(lambda: rows_and_gradient(lambda table: look_up(table, token, jnp.float32, placed)))()
    for one, other in zip(found, rows_and_gradient(lambda table: table[token]), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
    print(f"ok: {name} looks up")


if __name__ == "__main__":
    for name in ("d2e2t2", "f2e4"):
        looks_up(name)
    for transport in ("ring", "ragged", "capacity"):
        for name in ("e8", "d2e2t2", "f2e4"):
            exact(transport, name)
        counts_drops(transport)
    exact("capacity", "f2e4", "kept")
    exact("whole", "e4t2")
    for transport in ("capacity", "ring", "ragged"):
        gradients_of_what_is_kept(transport)
    gradients_of_what_is_kept(top=1)
    gradients_of_what_is_kept(dtype=jnp.bfloat16, tolerance=3e-2)
    padding_takes_no_room()
