"""Evaluates a trained model, or the sound of the vocoder alone.

python -m launch.eval --suite=replica --checkpoint=runs/replica
python -m launch.eval --suite=sound
"""

from collections.abc import Sequence

from absl import app, flags

from launch import huge_pages
from tml_jax.data.shards import DataError
from tml_jax.train.checkpoint import CheckpointError, read_config

_SUITE = flags.DEFINE_enum("suite", "replica", ["replica", "sound"], "What to measure.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of the run; for the suite `replica`.")


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    try:
        if _SUITE.value == "sound":
            from tml_jax.eval.sound import held_out_sound

            print(held_out_sound())
            return
        if _CHECKPOINT.value is None:
            raise CheckpointError("give --checkpoint=RUN, the folder that launch.train made")
        from tml_jax.eval import replica

        print(replica.evaluate(_CHECKPOINT.value, read_config(_CHECKPOINT.value)))
    except (CheckpointError, DataError) as error:
        raise SystemExit(f"launch.eval: {error}") from error


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main)
