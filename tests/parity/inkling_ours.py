"""Our side of the comparison with the reference, filled from its tensors in memory."""

import functools

import jax
import numpy as np

from tml_jax.config import ModelConfig
from tml_jax.eval import parity
from tml_jax.interop.inkling import from_tensors
from tml_jax.model.interaction import InteractionModel, init_variables


def empty_variables(config: ModelConfig) -> dict:
    """Zeros in the shapes of the model's variables."""
    shapes = jax.eval_shape(functools.partial(init_variables, InteractionModel(config)), jax.random.key(0))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)


class Ours(parity.Ours):
    """Our model with the reference's weights."""

    def __init__(self, config: ModelConfig, state: dict[str, np.ndarray]):
        variables, self.report = from_tensors(state, config, empty_variables(config))
        super().__init__(config, variables)
