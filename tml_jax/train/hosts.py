"""One run on many hosts: which rows of a batch a process builds, how they meet, and whether all mean the same run."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from tml_jax.config import ConfigError
from tml_jax.data.packing import Batch
from tml_jax.parallel.mesh import batch_sharding


def batch_shardings(mesh: Mesh) -> Batch:
    """Shardings of a batch: all stands along the rows but the numbers of their records."""
    along = {field.name: field.name != "record" for field in dataclasses.fields(Batch)}
    return Batch(**{name: batch_sharding(mesh, value) for name, value in along.items()})


def local_rows(mesh: Mesh, batch_size: int, process: int | None = None) -> tuple[int, ...]:
    """Rows of the global batch that the devices of a process hold.

    They are not always a block of its own: where the axes `sequence` and `tensor` are longer than a host has devices,
    several hosts need the same rows, and on a mesh laid along a torus, of which a host has a patch, its rows need not
    be neighbours.

    Args:
      mesh: the devices of all processes.
      batch_size: rows of the global batch, a multiple of the devices along `BATCH_AXES`.
      process: number of the process; this one by default.

    Returns:
      Rows in 0 … batch_size − 1, rising.
    """
    process = jax.process_index() if process is None else process
    places = batch_sharding(mesh).devices_indices_map((batch_size,))
    mine = [index for device, (index,) in places.items() if device.process_index == process]
    return tuple(sorted({row for index in mine for row in range(batch_size)[index]}))


def put_rows(mesh: Mesh, rows: tuple[int, ...], batch_size: int, batch: Batch) -> Batch:
    """The global batch on the devices, from the rows that each process has built.

    Args:
      mesh: the devices of all processes.
      rows: what `local_rows` gives for this process.
      batch_size: rows of the global batch.
      batch: those rows, in numpy, (len(rows), …) each.

    Returns:
      The batch (batch_size, …), split as `batch_shardings` says.
    """

    def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        def part(index: tuple[slice, ...]) -> np.ndarray:
            wanted = range(batch_size)[index[0]]
            first = rows.index(wanted[0])  # rows rise, and a device's are next to each other
            return x[first : first + len(wanted), *index[1:]]

        return jax.make_array_from_callback((batch_size, *x.shape[1:]), sharding, part)

    return jax.tree.map(put, batch, batch_shardings(mesh))


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Makes sure that all processes have the same facts. Call it on all of them; on one process it does nothing.

    Processes that differ would wait for each other for ever, or train on a mixture of two runs.

    Args:
      facts: by name, in the same order everywhere; compared by their `repr`.

    Raises:
      ConfigError: one differs; raised on every process.
    """
    if jax.process_count() == 1:
        return
    digests = [hashlib.sha256(repr(fact).encode()).digest()[:8] for fact in facts.values()]
    mine = np.frombuffer(b"".join(digests), np.uint32).reshape(len(facts), 2)
    everyone = multihost_utils.process_allgather(mine)
    for number, name in enumerate(facts):
        others = np.flatnonzero(np.any(everyone[:, number] != everyone[0, number], axis=1))
        if others.size:
            raise ConfigError(
                f"process {others[0]} has another {name} than process 0: give all the same flags and files, with "
                "--run_dir and config.data.directory on storage that all hosts share"
            )
