"""Takes a trained model to another runtime.

  python -m launch.export --checkpoint=runs/replica --format=transformers --output=exported/hf

`transformers` writes a folder that `from_pretrained` loads.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from tml_jax.interop.journal import ConvertError
from tml_jax.interop.to_transformers import to_transformers
from tml_jax.train.checkpoint import CheckpointError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run, or of one of its checkpoints.")
_FORMAT = flags.DEFINE_enum("format", None, ["transformers"], "The runtime.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; new.")
_DTYPE = flags.DEFINE_string("dtype", None, "For transformers: bfloat16, float16 or float32; default: as they are.")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConvertError(f"argument {argv[1]!r}: every option is a --flag")
        if not (_CHECKPOINT.value and _FORMAT.value and _OUTPUT.value):
            raise ConvertError("give --checkpoint, --format and --output")
        say = lambda line: print(line, flush=True)  # noqa: E731
        if _FORMAT.value == "transformers":
            to_transformers(_CHECKPOINT.value, _OUTPUT.value, _DTYPE.value, log=say)
    except (ConvertError, CheckpointError, OSError, ValueError) as error:
        for line in str(error).splitlines():
            print(f"launch.export: {line}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    app.run(main)
