"""Compiles an attention kernel for TPUs that are not there; prints what it takes as JSON.

  python tests/kernels/compile_attention.py packed v5e:2x2 '{"time": 1024, "window": 512, "extent": 512}'
  python tests/kernels/compile_attention.py striped v5e:2x2 '{"time": 4096, "window": 4096}'
  python tests/kernels/compile_attention.py append v5p:2x2x1 '{"time": 64, "slots": 33280, "window": 32768}'

`striped` cuts every row into a stripe for each device.

To be run with JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tml_jax.config import MeshConfig
from tml_jax.kernels.append_attention import append_attention
from tml_jax.kernels.packed_attention import packed_attention
from tml_jax.model.attention import attend_packed_split
from tml_jax.parallel.mesh import make_mesh
from tml_jax.parallel.placement import Placement

WHOLE = PartitionSpec()
SIZES = dict(heads=32, kv_heads=8, width=128, rank=16, extent=1024, block=512, dtype="bfloat16", rows=1, slots=None)


def with_gradients(attend: Callable, weight: jax.Array, segment: jax.Array, *operands: jax.Array) -> tuple:
    out, backward = jax.vjp(functools.partial(attend, segment=segment), *operands)
    return out, backward(weight)


def main(what: str, topology: str, sizes: str) -> None:
    s = SIZES | json.loads(sizes)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    axis = "sequence" if what == "striped" else "data"
    mesh = make_mesh(MeshConfig(**{axis: len(devices)}), list(devices))
    split, rows = PartitionSpec(axis), s["rows"] * len(devices)
    if what == "striped":
        s["time"] //= len(devices)

    def given(spec: PartitionSpec, *shape: int, dtype: str = s["dtype"]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=NamedSharding(mesh, spec))

    query = given(split, rows, s["time"], s["heads"], s["width"])
    relative = given(split, rows, s["time"], s["heads"], s["rank"])
    table = given(WHOLE, s["rank"], s["extent"])
    key = given(split, rows, s["slots"] or s["time"], s["kv_heads"], s["width"])
    where = given(split, rows, s["time"], dtype="int32")
    sizes = dict(window=s["window"], block=s["block"], interpret=False)
    operands, donated = (query, where, query, key, key, relative, table), ()
    if what == "striped":
        attend = functools.partial(attend_packed_split, window=s["window"], placement=Placement(mesh, "ragged"))
        run = functools.partial(with_gradients, attend)
    elif what == "packed":
        run = functools.partial(with_gradients, functools.partial(packed_attention, **sizes))
        in_specs, out_specs = (*[split] * 6, WHOLE), (split, (*[split] * 4, WHOLE))
    else:
        new = given(split, rows, s["time"], s["kv_heads"], s["width"])
        cache = given(split, rows, s["kv_heads"], s["slots"], s["width"])
        run = functools.partial(append_attention, **sizes)
        operands, donated = (query, new, new, cache, cache, relative, table, where), (3, 4)
        in_specs, out_specs = (*[split] * 6, WHOLE, split), (split, split, split)
    if what != "striped":
        run = jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    lowered = jax.jit(run, donate_argnums=donated).trace(*operands).lower(lowering_platforms=("tpu",))
    compiled = lowered.compile()
    found = {
        "kind": devices[0].device_kind,
        "kernels": lowered.as_text().count("@tpu_custom_call"),
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "flops": compiled.cost_analysis()["flops"],
        "seconds": compiled.cost_analysis()["optimal_seconds"],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
