"""The mesh and the table of shardings."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from small import SMALL

from configs import tml_interaction_small
from tml_jax.config import MESH_AXES, ConfigError, MeshConfig, from_mapping
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.parallel.mesh import batch_sharding, make_mesh, parameter_shardings
from tml_jax.train.optimizer import make_optimizer


class Device:
    """Stands for one of many devices; a mesh asks no more of them than to be told apart."""

    platform = "cpu"

    def __init__(self, number: int) -> None:
        self.id, self.process_index = number, 0


def devices(count: int) -> list:
    return [Device(number) for number in range(count)]


def shapes_of(config):
    return jax.eval_shape(lambda key: init_variables(InteractionModel(config), key), jax.random.key(0))


@pytest.mark.parametrize(
    ("axes", "count", "sizes"),
    [
        ({}, 1, (1, 1, 1, 1, 1)),
        ({"fsdp": 2, "tensor": 4}, 8, (1, 2, 1, 1, 4)),
        ({"data": -1}, 8, (8, 1, 1, 1, 1)),
        ({"fsdp": -1, "expert": 4}, 64, (1, 16, 4, 1, 1)),
        ({"data": 2, "fsdp": 2, "expert": 2, "sequence": 4, "tensor": -1}, 32, (2, 2, 2, 4, 1)),
    ],
)
def test_devices_are_laid_out_on_the_axes(axes, count, sizes):
    mesh = make_mesh(MeshConfig(**axes), devices(count))
    assert mesh.axis_names == MESH_AXES and mesh.devices.shape == sizes
    assert [device.id for device in mesh.devices.flat] == list(range(count))


@pytest.mark.parametrize(
    ("axes", "count", "message"),
    [
        ({"fsdp": 2}, 8, r"fsdp=2.*needs 2 devices, there are 8.*-1"),
        ({"tensor": 4}, 2, r"tensor=4.*needs 4 devices, there are 2"),
        ({"fsdp": -1, "expert": 3}, 8, r"3 does not divide the 8 devices"),
    ],
)
def test_axes_that_do_not_make_up_the_devices_are_refused(axes, count, message):
    with pytest.raises(ConfigError, match=message):
        make_mesh(MeshConfig(**axes), devices(count))


def spec_of(shardings, path: str) -> PartitionSpec:
    for name in path.split("/"):
        shardings = shardings[name]
    return shardings.spec


def test_parameters_are_split_by_the_table_and_scanned_ones_behind_their_first_axis():
    mesh = AbstractMesh((1, 2, 2, 2, 2), MESH_AXES)
    shardings = parameter_shardings(mesh, shapes_of(SMALL)["params"])
    embed = ("fsdp", "sequence")
    assert spec_of(shardings, "backbone/layer_7/attention/query") == PartitionSpec(embed, "tensor", None)
    assert spec_of(shardings, "backbone/layer_7/attention/out") == PartitionSpec("tensor", None, embed)
    assert spec_of(shardings, "backbone/layer_0/mlp/down") == PartitionSpec("tensor", embed)
    assert spec_of(shardings, "backbone/layer_7/moe/expert_up") == PartitionSpec("expert", embed, "tensor")
    scanned = spec_of(shardings, "backbone/periods/layer_0/moe/expert_down")
    assert scanned == PartitionSpec(None, "expert", "tensor", embed)
    assert spec_of(shardings, "inputs/text_table") == PartitionSpec("tensor", embed)
    assert spec_of(shardings, "unembedding") == PartitionSpec(embed, "tensor")
    assert spec_of(shardings, "backbone/final_norm/scale") == PartitionSpec()


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = AbstractMesh((1, 3, 1, 1, 4), MESH_AXES)  # 32 wide, 2 key heads
    shardings = parameter_shardings(mesh, shapes_of(SMALL)["params"])
    assert spec_of(shardings, "backbone/layer_7/attention/key") == PartitionSpec(None, None, None)
    assert spec_of(shardings, "backbone/layer_7/attention/query") == PartitionSpec(None, "tensor", None)


def test_moments_are_split_like_their_parameters():
    mesh = AbstractMesh((1, 2, 2, 1, 2), MESH_AXES)
    params = shapes_of(SMALL)["params"]
    train = from_mapping(tml_interaction_small.get_config()).train
    state = jax.eval_shape(make_optimizer(train).init, params)[1][0]
    expected = parameter_shardings(mesh, params)
    assert parameter_shardings(mesh, {"mu": state.mu, "nu": state.nu}) == {"mu": expected, "nu": expected}
    assert state.mu["unembedding"].dtype == jnp.bfloat16


def test_the_large_parameters_of_the_flagship_are_split():
    """On 512 chips the experts are split 512 ways, and what every chip holds whole is small."""
    config = from_mapping(tml_interaction_small.get_config())
    mesh = AbstractMesh((1, 512 // config.mesh.expert, config.mesh.expert, 1, 1), MESH_AXES)
    params = shapes_of(config.model)["params"]
    shardings = parameter_shardings(mesh, params)
    held, whole = {}, 0
    for (path, leaf), sharding in zip(jax.tree_util.tree_flatten_with_path(params)[0], jax.tree.leaves(shardings)):
        held[jax.tree_util.keystr(path)] = share = math.prod(sharding.shard_shape(leaf.shape)) / leaf.size
        whole += leaf.size if share == 1 else 0
        assert "expert_" not in path[-1].key or share == 1 / 512
    assert whole < 0.001 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert min(held.values()) == 1 / 512


def test_rows_of_a_batch_are_split_over_all_but_the_tensor_axis_and_each_row_over_its_own():
    mesh = AbstractMesh((2, 2, 2, 3, 4), MESH_AXES)
    assert batch_sharding(mesh).shard_shape((16, 6)) == (2, 6)
    assert batch_sharding(mesh, along=True).shard_shape((16, 6)) == (2, 2)
