"""Converts a release of the open Inkling weights into a checkpoint to train from and to talk with.

  python -m launch.convert --source=HF_FOLDER --target=runs/inkling --mtp=drop
  python -m launch.convert --source=HF_FOLDER --target=runs/inkling --mtp=keep --config=configs/inkling_small.py

The sizes of the model come from the release's config.json, everything else from --config. What the release lacks is
initialised and listed. The same command goes on where it was interrupted. The way back is
`launch.export --format=transformers`.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from configs import inkling_small
from launch import config_flag
from tml_jax.config import Config, ConfigError, MeshConfig, from_mapping
from tml_jax.interop.convert import DROP, KEEP, from_release
from tml_jax.interop.journal import ConvertError
from tml_jax.interop.tensor_files import TensorFileError

_SOURCE = flags.DEFINE_string("source", None, "Folder of the release: config.json, tokenizer.json, safetensors files.")
_TARGET = flags.DEFINE_string("target", None, "Folder of the run to make.")
_MTP = flags.DEFINE_enum(
    "mtp", None, [KEEP, DROP], "The release's layers for predicting several tokens at once, which this model lacks."
)


def _default_config() -> Config:
    """Of the released sizes, but laid over no mesh: another size of the family may not divide it."""
    return dataclasses.replace(from_mapping(inkling_small.get_config()), mesh=MeshConfig())


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with a line for each thing."""
    try:
        if len(argv) > 1:
            raise ConvertError(f"argument {argv[1]!r}: every option is a --flag")
        if not _SOURCE.value or not _TARGET.value:
            raise ConvertError("give --source, the folder of a release, and --target, the folder to make")
        logging.set_verbosity(logging.ERROR)  # Orbax tells much of each array
        config = config_flag.get() if "config" in flags.FLAGS else _default_config()
        from_release(_SOURCE.value, _TARGET.value, config, _MTP.value, log=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        raise SystemExit("launch.convert: interrupted; the same command goes on") from None
    except (ConvertError, ConfigError, TensorFileError, OSError, ValueError) as error:
        for line in str(error).splitlines():
            print(f"launch.convert: {line}", file=sys.stderr)
        raise SystemExit(1) from error
    print(f"its configuration, sizes of the model included: {_TARGET.value}/config.json")
    print(
        f"train: python -m launch.train --config=FILE --config.train.init_from={_TARGET.value}, where FILE has the "
        "same `model` (configs/inkling_small.py for the released sizes)"
    )


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
