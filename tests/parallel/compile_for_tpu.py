"""Compiles the train step or the streaming micro-turn for TPUs that are not there; prints what it takes as JSON.

  python tests/parallel/compile_for_tpu.py step configs/tiny.py v5e:2x4 '{"fsdp": 2, "expert": 2, "tensor": 2}'
  python tests/parallel/compile_for_tpu.py micro_turn configs/tiny.py v5e:2x4 '{"tensor": 2, "data": -1}'

A fifth argument changes fields of the model, such as '{"num_layers": 2}'. To be run with JAX_PLATFORMS=cpu
TPU_SKIP_MDS_QUERY=1 TPU_WORKER_HOSTNAMES=localhost.
"""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, OWN_FRAMES, PATCH, Config, MeshConfig, from_mapping
from tml_jax.data.packing import empty_batch
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.model.stream import InputBlock, init_state, micro_turn
from tml_jax.parallel.mesh import batch_sharding, make_mesh, parameter_shardings, replicated
from tml_jax.serve.session import block_sizes
from tml_jax.train.step import make_train


def compile_step(config: Config, mesh: Mesh) -> jax.stages.Compiled:
    train = make_train(config, mesh)
    batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, empty_batch(config.data.batch_size, config.data.packing)))
    return train.step.trace(train.abstract_state, batch).lower(lowering_platforms=("tpu",)).compile()


def compile_micro_turn(config: Config, mesh: Mesh) -> jax.stages.Compiled:
    model, context, block = InteractionModel(config.model), config.serve.context, block_sizes(config)[-1]
    put = lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)  # noqa: E731
    variables = jax.eval_shape(lambda key: init_variables(model, key), jax.random.key(0))
    variables = jax.tree.map(put, variables, parameter_shardings(mesh, variables))
    state = jax.eval_shape(lambda: init_state(config.model, jnp.arange(1), context, block))
    patches = config.data.video_grid[0] * config.data.video_grid[1]
    zeros = lambda *shape, dtype=jnp.int32: jnp.zeros((1, *shape), dtype)  # noqa: E731
    inputs = lambda: InputBlock(  # noqa: E731
        ElementArrays(
            zeros(block, dtype=jnp.int8), zeros(block), zeros(block), zeros(AUDIO_ELEMENTS, MEL_BINS, dtype=jnp.uint8),
            zeros(patches, *PATCH, dtype=jnp.uint8), zeros(0, OWN_FRAMES, MEL_BINS, dtype=jnp.float32),
        ),
        zeros(),
    )  # fmt: skip
    whole = replicated(mesh)
    state, given = (jax.tree.map(lambda x: put(x, whole), tree) for tree in (state, jax.eval_shape(inputs)))
    step = jax.jit(lambda variables, state, block: micro_turn(model, variables, state, block, context))
    return step.trace(variables, state, given).lower(lowering_platforms=("tpu",)).compile()


def main(what: str, path: str, topology: str, axes: str, model: str = "{}") -> None:
    spec = importlib.util.spec_from_file_location("config_file", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_mapping(module.get_config())
    changed = dataclasses.replace(config.model, **json.loads(model))
    devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    asked = MeshConfig(**json.loads(axes))
    mesh = make_mesh(asked, list(devices))
    rows = batch_sharding(mesh).num_devices // mesh.shape["tensor"]
    data = dataclasses.replace(config.data, batch_size=rows)
    config = dataclasses.replace(config, model=changed, mesh=asked, data=data)
    compiled = {"step": compile_step, "micro_turn": compile_micro_turn}[what](config, mesh)
    memory, text = compiled.memory_analysis(), compiled.as_text()
    found = {
        "kind": devices[0].device_kind,
        "devices": len(devices),
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "collectives": [name for name in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all") if name in text],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
