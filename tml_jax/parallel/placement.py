"""Where a model runs: the part of the configuration that its layers need to know about devices."""

import dataclasses

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tml_jax.config import STRIPE_AXES, MeshConfig
from tml_jax.parallel.mesh import LOGICAL_TO_MESH, axis_size


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where a model runs.

    Attributes:
      mesh: the devices, with the axes of `parallel.mesh`.
      transport: `ring`, `ragged`, `capacity` or `whole`.
      capacity: size of the buffers, in parts of what an even load needs; 0 makes room for any load.
      batch_axes: mesh axes over which the rows of a batch, or their stripes (see `parallel.stripes`), are split; none
        of them with `whole`.
    """

    mesh: Mesh
    transport: str
    capacity: float = 0.0
    batch_axes: tuple[str, ...] = STRIPE_AXES

    @property
    def tpu(self) -> bool:
        """Whether the program is compiled for TPUs."""
        return self.mesh.devices.flat[0].platform == "tpu"

    @property
    def stripes(self) -> int:
        """How many stripes a row is cut into."""
        return axis_size(self.mesh, LOGICAL_TO_MESH["along_row"])

    def split_rows(self, x: jax.Array) -> jax.Array:
        """Keeps an array (B, …) split by rows; left to itself the compiler gathers whole batches here and there."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, PartitionSpec(self.batch_axes)))


def split_rows(placement: Placement | None, x: jax.Array) -> jax.Array:
    """`Placement.split_rows`; on one device there is nothing to split."""
    return x if placement is None else placement.split_rows(x)


def training_placement(mesh: Mesh, config: MeshConfig) -> Placement | None:
    """Where a train step runs; None where the products of one CPU device are the faster ones."""
    return None if _is_one_cpu(mesh) else Placement(mesh, config.transport, config.capacity)


def serving_placement(mesh: Mesh, sessions: int) -> Placement | None:
    """Where a micro-turn of so many sessions runs; None on one CPU device."""
    axes = ("data",) if sessions % mesh.shape["data"] == 0 else ()
    return None if _is_one_cpu(mesh) else Placement(mesh, "whole", batch_axes=axes)


def _is_one_cpu(mesh: Mesh) -> bool:
    return mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
