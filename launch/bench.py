"""Measures speed beside other implementations, on this machine, and prints a table.

  python -m launch.bench --what=train --config=configs/replica.py      (needs the extra `parity`)

Run it on a machine that does nothing else: the table says how much other programs took.
"""

import sys
from collections.abc import Sequence

from absl import app, flags

from launch import config_flag, huge_pages
from tml_jax.bench.train import train_bench
from tml_jax.config import ConfigError

_WHAT = flags.DEFINE_enum("what", "train", ["train"], "What to measure: `train`, the train step beside transformers.")
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns of each program.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        measure = {"train": train_bench}[_WHAT.value]
        print(measure(config_flag.get(), _REPEATS.value, log=lambda line: print(line, file=sys.stderr, flush=True)))
    except (ConfigError, ValueError) as error:
        raise SystemExit(f"launch.bench: {error}") from error
    except ImportError as error:
        raise SystemExit(f"launch.bench: {error}; python -m pip install -e '.[parity]'") from error


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main, flags_parser=config_flag.parse)
