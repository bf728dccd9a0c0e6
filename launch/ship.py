"""Makes a light copy of a trained run, to ship with the package: weights, tokenizer, figures and model card.

  python -m launch.ship --checkpoint=runs/replica --output=tml_jax/shipped/replica

The run must have been evaluated (launch.train does that, or launch.eval). Run and copy are then compared on held-out
conversations, which takes about a minute. `--checkpoint=shipped` stands for the copy afterwards.
"""

import pathlib
from collections.abc import Sequence

from absl import app, flags, logging

from launch import config_flag
from tml_jax.config import ConfigError
from tml_jax.data.shards import DataError
from tml_jax.interop.journal import ConvertError
from tml_jax.shipped import make
from tml_jax.train.checkpoint import CheckpointError, find_checkpoint, read_config

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run, or of one of its checkpoints.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; new.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", "float16", make.DTYPES, "Of the matrices.")
_COMPARE = flags.DEFINE_integer(
    "compare", 16, "Held-out conversations on which run and copy are compared; 0: none.", lower_bound=0
)
_CONFIG_FILE = flags.DEFINE_string(
    "config_file", None, "What the run was trained with, for the card's command; default: configs/NAME.py."
)
_LICENCE = flags.DEFINE_multi_string("licence", [], "SOURCE: LICENCE, for each source that was not generated.")
_NOTE = flags.DEFINE_string("note", "", "What the card says of the recipe besides, such as what the run began with.")
_ABILITIES = flags.DEFINE_string(
    "abilities", None, "Folder that launch.eval --suite=interactivity wrote of this run, to lie beside the card."
)


def _licences() -> dict[str, str]:
    found = {}
    for argument in _LICENCE.value:
        source, colon, licence = argument.partition(":")
        if not (colon and source.strip() and licence.strip()):
            raise ValueError(f'--licence={argument!r}: expected SOURCE: LICENCE, such as "fisher: CC-BY-4.0"')
        found[source.strip()] = licence.strip()
    return found


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
    try:
        run, _ = find_checkpoint(_CHECKPOINT.value)
        config = read_config(run)
        file = pathlib.Path(_CONFIG_FILE.value or f"configs/{config.name}.py")
        command = config_flag.training_command(config, str(file)) if _CONFIG_FILE.value or file.is_file() else ""
        abilities = None if _ABILITIES.value is None else pathlib.Path(_ABILITIES.value)
        options = make.ShipOptions(_DTYPE.value, _COMPARE.value, command, _licences(), _NOTE.value, abilities)
        make.ship(_CHECKPOINT.value, _OUTPUT.value, options, log=lambda line: print(line, flush=True))
    except (CheckpointError, ConfigError, ConvertError, DataError, OSError, ValueError) as error:
        raise SystemExit(f"launch.ship: {error}") from error
    except KeyboardInterrupt:
        config_flag.interrupted("ship", "nothing is kept")


if __name__ == "__main__":
    app.run(main)
