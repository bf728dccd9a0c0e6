"""Trains a few steps of the tiny model on meshes of eight simulated devices and prints the figures of every step.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python tests/train/mesh_steps.py '[{}, {"fsdp": 2, "tensor": 4}]'

The first mesh given may be {}: one device. All start from the same state and see the same batches. `gradient_error` is
how far the first gradient of any parameter is from that on the first mesh, as a share of its largest entry.
"""

import dataclasses
import json
import pathlib
import sys

import jax
import numpy as np

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "data")]

from small import PACKING, random_batch, random_variables  # noqa: E402

from configs import tiny  # noqa: E402
from tml_jax.config import Config, MeshConfig, from_mapping  # noqa: E402
from tml_jax.parallel.mesh import make_mesh  # noqa: E402
from tml_jax.train.optimizer import make_optimizer  # noqa: E402
from tml_jax.train.step import TrainState, make_train  # noqa: E402

STEPS, ROWS = 3, 8
LENGTH = 144  # of a row: most of it is full, so that a conversation lies across the borders of stripes


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.max(np.abs(one - other)) / np.max(np.abs(other)))


def cut(segment: np.ndarray, stripes: int) -> int:
    """Conversations that lie across a border of stripes."""
    parts = np.split(segment, stripes, axis=1)
    return sum(int(np.sum((here[:, -1] == after[:, 0]) & (here[:, -1] > 0))) for here, after in zip(parts, parts[1:]))


def steps_on(config: Config, axes: dict[str, int], state: TrainState, gradients: list) -> dict:
    mesh_config = MeshConfig(**axes)
    devices = jax.devices() if axes else jax.devices()[:1]
    config = dataclasses.replace(config, mesh=mesh_config)
    train = make_train(config, make_mesh(mesh_config, devices))
    state = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, train.abstract_state)
    figures = []
    for step in range(STEPS):
        batch = random_batch(config, ROWS, step)
        state, metrics = train.step(state, train.put_batch(batch))
        figures.append({name: float(value) for name, value in metrics.items()})
        if step == 0:  # the first moment is then the gradient, but for a factor
            gradients.append(jax.tree.leaves(jax.device_get(state.opt_state[1][0].mu)))
            error = max(map(distance, gradients[-1], gradients[0]))
    query = state.params["backbone"]["periods"]["layer_0"]["moe"]["expert_gate"]
    balance = jax.tree.map(lambda x: np.asarray(x).tolist(), state.balance)
    shard = query.addressable_shards[0].data.size / query.size
    return {"axes": axes, "figures": figures, "balance": balance, "share_of_experts_on_a_device": shard,
            "gradient_error": error, "cut": cut(batch.segment, mesh_config.sequence)}  # fmt: skip


def main(meshes: str) -> None:
    config = from_mapping(tiny.get_config())
    packing = dataclasses.replace(PACKING, elements=LENGTH)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, packing=packing, batch_size=ROWS))
    variables = random_variables(config.model)
    params = variables["params"]
    state = TrainState(np.zeros((), np.int32), params, variables["balance"], make_optimizer(config.train).init(params))
    state = jax.device_get(state)
    gradients = []
    print(json.dumps([steps_on(config, axes, state, gradients) for axes in json.loads(meshes)]))


if __name__ == "__main__":
    main(sys.argv[1])
