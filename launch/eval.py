"""Evaluates a trained model, the sound of the vocoder alone, or the model against the reference implementation.

python -m launch.eval --suite=replica --checkpoint=runs/replica [--weights=int8]
python -m launch.eval --suite=sound
python -m launch.eval --suite=parity --checkpoint=runs/inkling      (needs the extra `parity`)
"""

import dataclasses
from collections.abc import Sequence

from absl import app, flags

from launch import huge_pages
from tml_jax.config import ConfigError
from tml_jax.interop.journal import ConvertError
from tml_jax.train.checkpoint import CheckpointError, find_checkpoint, read_config

_SUITE = flags.DEFINE_enum("suite", "replica", ["replica", "sound", "parity"], "What to measure.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run; for the suites `replica` and `parity`.")
_REFERENCE = flags.DEFINE_string(
    "reference", None, "For `parity`: a folder that transformers loads; default: the checkpoint, exported for it."
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", None, ["whole", "int8"], "For `replica`: how the experts are kept, in place of config.serve.weights."
)


def _checkpoint() -> str:
    if _CHECKPOINT.value is None:
        raise CheckpointError("give --checkpoint=RUN, the folder that launch.train or launch.convert made")
    return _CHECKPOINT.value


def _sound() -> None:
    from tml_jax.eval.sound import held_out_sound

    print(held_out_sound())


def _replica() -> None:
    from tml_jax.eval import replica

    run_dir, _ = find_checkpoint(_checkpoint())
    config = read_config(run_dir)
    weights = _WEIGHTS.value or config.serve.weights
    config = dataclasses.replace(config, serve=dataclasses.replace(config.serve, weights=weights))
    print(replica.evaluate(_checkpoint(), config))


def _parity() -> None:
    from tml_jax.eval import parity

    errors = parity.compare(_checkpoint(), _REFERENCE.value)
    different = [what for what, error in errors.items() if error > parity.TOLERANCE]
    if different:
        raise SystemExit(f"launch.eval: {len(different)} of {len(errors)} comparisons differ: {'; '.join(different)}")
    print(f"all {len(errors)} comparisons agree to {parity.TOLERANCE:g}")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    try:
        {"sound": _sound, "replica": _replica, "parity": _parity}[_SUITE.value]()
    except (CheckpointError, ConfigError, ConvertError, OSError, ValueError) as error:
        raise SystemExit(f"launch.eval: {error}") from error
    except ImportError as error:
        extra = "parity" if _SUITE.value == "parity" else "replica"
        raise SystemExit(f"launch.eval: {error}; python -m pip install -e '.[{extra}]'") from error


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main)
