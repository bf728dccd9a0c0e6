"""Prints the parameters of a model by part; nothing is allocated.

python -m launch.params --config=configs/tml_interaction_small.py
"""

from collections.abc import Sequence

from absl import app

from launch import config_flag
from tml_jax.config import ConfigError
from tml_jax.model.count import active_parameters, count_parameters


def main(argv: Sequence[str]) -> None:
    """Runs the command; a wrong configuration ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        config = config_flag.get()
    except ConfigError as error:
        config_flag.refuse("params", error)
    counts = count_parameters(config.model)
    for part, number in counts.items():
        print(f"{part:<20} {number:>16,}")
    print(f"total_parameters={sum(counts.values())}")
    print(f"active_parameters={active_parameters(config.model, counts)}")


if __name__ == "__main__":
    app.run(main, flags_parser=config_flag.parse)
