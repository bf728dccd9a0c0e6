"""Takes a trained model to another runtime.

  python -m launch.export --checkpoint=runs/replica --format=transformers --output=exported/hf

`transformers` writes a folder that `from_pretrained` loads.
`onnx` writes the front ends and the vocoder as ONNX graphs, for a runtime without JAX.
`stablehlo` writes the whole streaming model as a program that a JAX process without this project runs.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from tml_jax.interop.journal import ConvertError
from tml_jax.interop.stablehlo import export_stablehlo
from tml_jax.interop.to_transformers import to_transformers
from tml_jax.train.checkpoint import CheckpointError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run, or of one of its checkpoints.")
_FORMAT = flags.DEFINE_enum("format", None, ["transformers", "onnx", "stablehlo"], "The runtime.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write; new.")
_DTYPE = flags.DEFINE_string("dtype", None, "For transformers: bfloat16, float16 or float32; default: as they are.")
_SESSIONS = flags.DEFINE_integer("sessions", 1, "For stablehlo: how many sessions run side by side.")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConvertError(f"argument {argv[1]!r}: every option is a --flag")
        if not (_CHECKPOINT.value and _FORMAT.value and _OUTPUT.value):
            raise ConvertError("give --checkpoint, --format and --output")
        for flag, format_ in (("dtype", "transformers"), ("sessions", "stablehlo")):
            if flags.FLAGS[flag].present and _FORMAT.value != format_:
                raise ConvertError(f"--{flag} is for --format={format_}, not for {_FORMAT.value}: leave it out")
        say = lambda line: print(line, flush=True)  # noqa: E731
        if _FORMAT.value == "transformers":
            to_transformers(_CHECKPOINT.value, _OUTPUT.value, _DTYPE.value, log=say)
        elif _FORMAT.value == "onnx":
            from tml_jax.interop.to_onnx import export_onnx  # here, because it needs the onnx extra

            export_onnx(_CHECKPOINT.value, _OUTPUT.value, log=say)
        elif _FORMAT.value == "stablehlo":
            export_stablehlo(_CHECKPOINT.value, _OUTPUT.value, _SESSIONS.value, log=say)
    except ModuleNotFoundError as error:
        message = f"launch.export: {error.name} is not installed: python -m pip install -e '.[onnx]'"
        raise SystemExit(message) from error
    except (ConvertError, CheckpointError, OSError, ValueError) as error:
        for line in str(error).splitlines():
            print(f"launch.export: {line}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    app.run(main)
