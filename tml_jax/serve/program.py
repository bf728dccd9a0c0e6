"""A loaded model and its compiled programs over a batch of sessions: the micro-turn, and the start of a session."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from tml_jax.config import Config, MeshConfig
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.model.interaction import InteractionModel
from tml_jax.model.portions import Portions
from tml_jax.model.stream import InputBlock, MicroTurnOutput, StreamState, init_state, micro_turn
from tml_jax.parallel.mesh import abstract, make_mesh, parameter_shardings, stream_shardings
from tml_jax.parallel.placement import serving_placement
from tml_jax.serve.weights import convert_for_serving, load_rounded
from tml_jax.serve.windows import block_sizes
from tml_jax.signal.vocoder import VocoderState, init_vocoder, vocode_sounding
from tml_jax.train.checkpoint import (
    find_checkpoint,
    find_tokenizer,
    on_one_device,
    read_config,
    restore_params_for_inference,
    saved_model,
)

_TOGETHER = 8  # sessions that write and speak at once on a CPU


@flax.struct.dataclass
class Sessions:
    """Device state of B sessions: the model's and the vocoder's."""

    stream: StreamState
    vocoder: VocoderState


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A trained model in the memory of its devices.

    Attributes:
      config: the run.
      tokenizer: its tokens.
      variables: its weights.
      mesh: the devices; None on one.
      kept: whether the weights are already as `weights_for_serving` makes them, not as the model trains.
    """

    config: Config
    tokenizer: Tokenizer
    variables: dict[str, Any]
    mesh: Mesh | None = None
    kept: bool = False


def load_model(
    checkpoint: str, step: int | None = None, weights: str | None = None, delegate: bool | None = None
) -> LoadedModel:
    """Loads a trained model, over the devices of the configuration's `serve.mesh`.

    Args:
      checkpoint: folder of a run, or of one of its checkpoints.
      step: which checkpoint; None takes the newest.
      weights: `whole` or `int8`, in place of `serve.weights`.
      delegate: in place of `serve.delegate`.

    Returns:
      The model.

    Raises:
      CheckpointError: there is no such checkpoint, or it is damaged.
      ConfigError: `serve.mesh` does not fit the devices.
    """
    run_dir, folder = find_checkpoint(checkpoint, step)
    config = read_config(run_dir)
    given = {"weights": weights, "delegate": delegate}
    given = {name: value for name, value in given.items() if value is not None}
    config = dataclasses.replace(config, serve=dataclasses.replace(config.serve, **given))
    mesh = None if config.serve.mesh == MeshConfig() else make_mesh(config.serve.mesh)
    saved = saved_model(folder)  # every device reads its own part alone
    where = on_one_device(saved) if mesh is None else abstract(saved, parameter_shardings(mesh, saved))
    tokenizer = Tokenizer.load(find_tokenizer(run_dir))
    if config.serve.weights == "int8":
        return LoadedModel(config, tokenizer, load_rounded(folder, where, config, mesh), mesh, kept=True)
    return LoadedModel(config, tokenizer, restore_params_for_inference(folder, None, where)[2], mesh)


class Program:
    """The compiled programs of a model. Both take the state over: use only the one they return."""

    def __init__(self, loaded: LoadedModel) -> None:
        """Puts the model on its device; compiles nothing yet.

        Args:
          loaded: the model.
        """
        mesh = loaded.mesh
        self.loaded = loaded
        variables = jax.device_put(loaded.variables) if mesh is None else loaded.variables
        self.variables = variables if loaded.kept else convert_for_serving(variables, loaded.config, mesh)
        config = loaded.config

        def step(variables: dict[str, Any], sessions: Sessions, block: InputBlock) -> tuple:
            placement = None if mesh is None else serving_placement(mesh, len(block.valid))
            dtype = jnp.dtype(config.serve.dtype)
            model = InteractionModel(config.model, dtype, placement=placement, scanned=False)
            rows = len(block.valid)
            device = next(iter(jax.tree.leaves(self.variables)[0].devices()))
            on_cpu = device.platform == "cpu"
            portions = Portions(block_sizes(config)[1], _TOGETHER) if on_cpu and mesh is None else None
            context, delegate = config.serve.context, config.serve.delegate
            stream, output = micro_turn(model, variables, sessions.stream, block, context, delegate, portions)
            # A CPU does stream by stream anyway, so it need not do the silent ones. Others do all at once.
            together = math.gcd(rows, 4) if on_cpu else rows
            vocoder, samples = vocode_sounding(sessions.vocoder, output.mel, block.valid > 0, together)
            return self._as_it_came(Sessions(stream, vocoder)), output, samples

        def join(sessions: Sessions, slot: jax.Array, seed: jax.Array) -> Sessions:
            put = lambda every, one: jax.lax.dynamic_update_slice_in_dim(every, one, slot, axis=0)  # noqa: E731
            return self._as_it_came(jax.tree.map(put, sessions, self._empty(seed[None])))

        self._step = jax.jit(step, donate_argnums=1)
        self._join = jax.jit(join, donate_argnums=0)

    def _empty(self, seeds: jax.Array) -> Sessions:
        config = self.loaded.config
        block, dtype = block_sizes(config)[-1], jnp.dtype(config.serve.dtype)
        stream = init_state(config.model, seeds, config.serve.context, block, dtype, scanned=False)
        return Sessions(stream, init_vocoder((len(seeds),)))

    def _as_it_came(self, sessions: Sessions) -> Sessions:
        """Over a mesh: laid out as `start` does, or the next step would be compiled anew."""
        mesh = self.loaded.mesh
        if mesh is None:
            return sessions
        rows = len(sessions.stream.length)
        return jax.lax.with_sharding_constraint(sessions, stream_shardings(mesh, sessions, rows))

    def start(self, seeds: Sequence[int]) -> Sessions:
        """Empty sessions, one for each seed."""
        sessions, mesh = self._empty(jnp.asarray(seeds)), self.loaded.mesh
        if mesh is not None:
            return jax.device_put(sessions, stream_shardings(mesh, sessions, len(seeds)))
        # On the model's device for good: the state that a step returns is, and another kind would compile again.
        return jax.device_put(sessions, next(iter(jax.tree.leaves(self.variables)[0].devices())))

    def step(self, sessions: Sessions, block: InputBlock) -> tuple[Sessions, MicroTurnOutput, jax.Array]:
        """One micro-turn of B sessions in one call.

        Args:
          sessions: their state, taken over.
          block: their input, see `windows.make_block`.

        Returns:
          The new state, the output, and (B, 4800) float32 samples at 24 kHz.
        """
        return self._step(self.variables, sessions, block)

    def join(self, sessions: Sessions, slot: int, seed: int) -> Sessions:
        """Puts an empty session into a slot: whatever was there is overwritten by zeros.

        Args:
          sessions: the state of B sessions, taken over.
          slot: which of them.
          seed: of the new session's noise.

        Returns:
          The new state.
        """
        return self._join(sessions, np.int32(slot), np.int32(seed))

    @property
    def compiled(self) -> int:
        """How many programs have been compiled."""
        return self._step._cache_size() + self._join._cache_size()
