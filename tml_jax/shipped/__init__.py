"""The trained replica that comes with the package; its name stands for its folder wherever a checkpoint is given."""

import os
import pathlib

from tml_jax.train.checkpoint_arrays import CheckpointError

NAME = "shipped"
FOLDER = pathlib.Path(__file__).with_name("replica")


def path() -> pathlib.Path:
    """Folder of the shipped replica, laid out like a run.

    Raises:
      CheckpointError: this installation has none.
    """
    if not (FOLDER / "config.json").is_file():
        raise CheckpointError(
            f"no model is shipped with this installation ({FOLDER} has none): train one with launch.train and give "
            "its folder, or make the copy with python -m launch.ship"
        )
    return FOLDER


def resolve(checkpoint: str | os.PathLike) -> pathlib.Path:
    """The folder that a user means: `shipped` is `path()`, everything else itself (`./shipped` is a folder).

    Raises:
      CheckpointError: see `path`.
    """
    return path() if os.fspath(checkpoint) == NAME else pathlib.Path(checkpoint)
