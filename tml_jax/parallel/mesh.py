"""The device mesh, and the one table from logical axes to mesh axes."""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from tml_jax.config import BATCH_AXES, MESH_AXES, ConfigError, MeshConfig

# Logical axis → mesh axes. `embed` is gathered for use (fsdp), so it must be an axis that no product sums over
# across devices more often than needed; heads and hidden widths are split over `tensor`, experts over `expert`. What
# devices along `sequence` would otherwise hold twice, parameters and their moments, is split over them too.
LOGICAL_TO_MESH: dict[str, str | tuple[str, ...] | None] = {
    "row": BATCH_AXES,
    "along_row": "sequence",
    "embed": ("fsdp", "sequence"),
    "heads": "tensor",
    "hidden": "tensor",
    "vocab": "tensor",
    "expert": "expert",
    "none": None,
}

# Parameter (last part of its path, with the part before it where needed) → logical axes. Parameters not named here
# are small and replicated. Scanned parameters have one more axis in front, never split.
PARAMETER_AXES: dict[str, tuple[str, ...]] = {
    "attention/query": ("embed", "heads", "none"),
    "attention/key": ("embed", "heads", "none"),
    "attention/value": ("embed", "heads", "none"),
    "attention/relative": ("embed", "heads", "none"),
    "attention/out": ("heads", "none", "embed"),
    "mlp/gate": ("embed", "hidden"),
    "mlp/up": ("embed", "hidden"),
    "mlp/down": ("hidden", "embed"),
    "moe/router": ("embed", "none"),
    "moe/expert_gate": ("expert", "embed", "hidden"),
    "moe/expert_up": ("expert", "embed", "hidden"),
    "moe/expert_down": ("expert", "hidden", "embed"),
    "moe/shared_gate": ("none", "embed", "hidden"),
    "moe/shared_up": ("none", "embed", "hidden"),
    "moe/shared_down": ("none", "hidden", "embed"),
    "inputs/text_table": ("vocab", "embed"),
    "audio_in/table": ("none", "embed"),
    "own_audio/table": ("none", "embed"),
    "unembedding": ("embed", "vocab"),
}


def make_mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """Lays devices out on the axes of `MESH_AXES`: on TPUs along the torus, so that neighbours on an axis are near.

    Slices, between which there is only the data centre's network (DCN), lie along `data`: gradients alone cross it.

    Args:
      config: devices along each axis.
      devices: devices to use, all by default.

    Returns:
      The mesh.

    Raises:
      ConfigError: the axes do not multiply to the number of devices, or there are slices that do not divide `data`.
    """
    devices = list(jax.devices()) if devices is None else devices
    sizes = [getattr(config, axis) for axis in MESH_AXES]
    named = math.prod(size for size in sizes if size != -1)
    if -1 in sizes:
        if len(devices) % named:
            raise ConfigError(f"config.mesh = {sizes}: {named} does not divide the {len(devices)} devices")
        sizes[sizes.index(-1)] = len(devices) // named
    if math.prod(sizes) != len(devices):
        wanted = ", ".join(f"{axis}={size}" for axis, size in zip(MESH_AXES, sizes))
        raise ConfigError(
            f"config.mesh ({wanted}) needs {math.prod(sizes)} devices, there are {len(devices)}: "
            "change the axes, or set one to -1"
        )
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if sizes[0] % slices:
        raise ConfigError(
            f"config.mesh.data = {sizes[0]}: there are {slices} slices, and they must divide it, because other axes "
            "would be too slow across the network between them"
        )
    if slices > 1:
        inside, across = (sizes[0] // slices, *sizes[1:]), (slices, *[1] * (len(sizes) - 1))
        grid = mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    elif devices[0].platform == "tpu":
        grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    else:
        grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))


def axis_size(mesh: Mesh, axes: str | tuple[str, ...] | None) -> int:
    """Devices along a mesh axis, or along several together; 1 along none."""
    return math.prod(mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))


def parameter_shardings(mesh: Mesh, tree: Any) -> Any:
    """Shardings of a tree of parameters, or of anything laid out like it (optimiser moments).

    Args:
      mesh: the devices.
      tree: arrays or ShapeDtypeStructs whose paths end like the parameters'.

    Returns:
      The same tree of NamedSharding. An axis that a mesh axis does not divide stays whole.
    """

    def sharding(path: tuple, leaf: Any) -> NamedSharding:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        axes = PARAMETER_AXES.get("/".join(names[-2:]), PARAMETER_AXES.get(names[-1] if names else "", ()))
        axes = ("none",) * (leaf.ndim - len(axes)) + axes if axes and leaf.ndim >= len(axes) else ()
        spec = []
        for axis, size in zip(axes, leaf.shape):
            target = LOGICAL_TO_MESH[axis]
            spec.append(target if size % axis_size(mesh, target) == 0 else None)
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def session_axes(mesh: Mesh, sessions: int) -> tuple[str, ...] | None:
    """Mesh axes over which the state of so many streamed sessions is split; None where they do not divide it."""
    return BATCH_AXES if sessions % axis_size(mesh, BATCH_AXES) == 0 else None


def abstract(tree: Any, shardings: Any) -> Any:
    """Shapes and types of a tree of arrays, or of their shapes, with shardings."""
    put = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # noqa: E731
    return jax.tree.map(put, tree, shardings)


def stream_shardings(mesh: Mesh, tree: Any, sessions: int) -> Any:
    """Shardings of what a micro-turn carries: sessions over the batch axes, key/value heads over `tensor`.

    Args:
      mesh: the devices.
      tree: arrays or ShapeDtypeStructs whose first axis is that of the sessions.
      sessions: how many there are; where the batch axes do not divide them, every device has all.

    Returns:
      The same tree of NamedSharding.
    """
    rows = session_axes(mesh, sessions)

    def sharding(path: tuple, leaf: Any) -> NamedSharding:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        heads = names[-1] in ("key", "value") and leaf.shape[1] % axis_size(mesh, LOGICAL_TO_MESH["heads"]) == 0
        return NamedSharding(mesh, PartitionSpec(rows, *((LOGICAL_TO_MESH["heads"], None, None) if heads else ())))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh, along: bool = False) -> NamedSharding:
    """Sharding of batches (B, …), or of what stands along their rows (B, N, …): rows, and then their parts as well."""
    axes = ("row", "along_row") if along else ("row",)
    return NamedSharding(mesh, PartitionSpec(*(LOGICAL_TO_MESH[axis] for axis in axes)))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())
