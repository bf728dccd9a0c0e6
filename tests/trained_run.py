"""A run folder with one checkpoint of random weights, as training leaves it."""

import pathlib
from typing import Any

import jax.numpy as jnp
from small import random_variables
from synthetic import tokenizer

from tml_jax.config import Config
from tml_jax.train import checkpoint
from tml_jax.train.step import TrainState


def make_run(folder: pathlib.Path, config: Config, variables: dict[str, Any] | None = None) -> pathlib.Path:
    """Writes config.json, tokenizer.json and the checkpoint of step 1.

    Args:
      folder: new folder.
      config: of the run.
      variables: of the model; random ones by default.

    Returns:
      The folder.
    """
    checkpoint.write_config(folder, config)
    tokenizer().save(folder / checkpoint.TOKENIZER)
    variables = random_variables(config.model) if variables is None else variables
    state = TrainState(jnp.ones((), jnp.int32), variables["params"], variables["balance"], {"count": jnp.zeros(())})
    with checkpoint.Checkpoints(folder, keep=1) as checkpoints:
        checkpoints.save(state, {"next_step": 1, "tokenizer": tokenizer().fingerprint, "data": ""})
    return folder
