"""Compiles an attention kernel for TPUs that are not there; prints what it takes as JSON.

  python tests/kernels/compile_attention.py packed v5e:2x2 '{"time": 1024, "window": 512, "extent": 512}'
  python tests/kernels/compile_attention.py append v5p:2x2x1 '{"time": 64, "slots": 33280, "window": 32768}'

To be run with JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost.
"""

import functools
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tml_jax.kernels.append_attention import append_attention
from tml_jax.kernels.packed_attention import packed_attention

ROWS, WHOLE = PartitionSpec("data"), PartitionSpec()
SIZES = dict(heads=32, kv_heads=8, width=128, rank=16, extent=1024, block=512, dtype="bfloat16", rows=1, slots=None)


def packed(sizes: dict, weight: jax.Array, segment: jax.Array, *operands: jax.Array) -> tuple:
    attend = functools.partial(packed_attention, segment=segment, **sizes)
    out, backward = jax.vjp(attend, *operands)
    return out, backward(weight)


def main(what: str, topology: str, sizes: str) -> None:
    s = SIZES | json.loads(sizes)
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    mesh = Mesh(np.asarray(devices), ("data",))
    rows = s["rows"] * len(devices)

    def given(spec: PartitionSpec, *shape: int, dtype: str = s["dtype"]) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=NamedSharding(mesh, spec))

    query = given(ROWS, rows, s["time"], s["heads"], s["width"])
    relative = given(ROWS, rows, s["time"], s["heads"], s["rank"])
    table = given(WHOLE, s["rank"], s["extent"])
    key = given(ROWS, rows, s["slots"] or s["time"], s["kv_heads"], s["width"])
    where = given(ROWS, rows, s["time"], dtype="int32")
    sizes = dict(window=s["window"], block=s["block"], interpret=False)
    if what == "packed":
        run, operands = functools.partial(packed, sizes), (query, where, query, key, key, relative, table)
        in_specs, out_specs = (*[ROWS] * 6, WHOLE), (ROWS, (*[ROWS] * 4, WHOLE))
    else:
        run, operands = functools.partial(append_attention, **sizes), (query, key, key, relative, table, where)
        in_specs, out_specs = (*[ROWS] * 4, WHOLE, ROWS), ROWS
    sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False))
    lowered = sharded.trace(*operands).lower(lowering_platforms=("tpu",))
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
