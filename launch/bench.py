"""Measures speed beside other implementations, on this machine, and prints a table.

  python -m launch.bench --what=train --config=configs/replica.py
  python -m launch.bench --what=micro_turn --config=configs/replica.py      (both need the extra `parity`)

Run them on a machine that does nothing else: the table says how much other programs took.

  python -m launch.bench --what=serve --url=ws://127.0.0.1:8000/v1/realtime --sessions=4 --audio=question.wav

talks to a server that runs (launch.serve), in real time over real sockets (needs the extra `serve`).
"""

import os
import sys
from collections.abc import Sequence

from absl import app, flags

from launch import config_flag, huge_pages
from tml_jax.config import ConfigError

_HELP = (
    "What to measure: `train`, the train step beside transformers; `micro_turn`, a micro-turn beside transformers with "
    "its cache; `serve`, a server that runs."
)
_WHAT = flags.DEFINE_enum("what", "train", ["train", "micro_turn", "serve"], _HELP)
_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns of each program (train, micro_turn).", lower_bound=1)
_URL = flags.DEFINE_string("url", "ws://127.0.0.1:8000/v1/realtime", "Of the server (serve).")
_SESSIONS = flags.DEFINE_integer("sessions", 4, "Clients at once (serve).", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "How long they talk (serve).", lower_bound=1.0)
_AUDIO = flags.DEFINE_string("audio", None, "What they say, over and over: a recording; without it noise (serve).")


def _serve() -> object:
    from tml_jax.bench.serve import serve_bench  # here, because it needs the serve extra
    from tml_jax.config import INPUT_RATE
    from tml_jax.signal import media

    audio = media.read_audio(_AUDIO.value, INPUT_RATE, channels=1)[0] if _AUDIO.value else None
    return serve_bench(_URL.value, _SESSIONS.value, _SECONDS.value, audio, os.environ.get("TML_API_KEY"))


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        if _WHAT.value == "serve":
            print(_serve())
            return
        log = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
        if _WHAT.value == "micro_turn":
            from tml_jax.bench.micro_turn import micro_turn_bench  # here, because both need the parity extra

            print(micro_turn_bench(config_flag.get(), _REPEATS.value, log=log))
            return
        from tml_jax.bench.train import train_bench

        print(train_bench(config_flag.get(), _REPEATS.value, log=log))
    except (ConfigError, ValueError, OSError) as error:
        raise SystemExit(f"launch.bench: {error}") from error
    except ImportError as error:
        extra = "serve" if _WHAT.value == "serve" else "parity"
        raise SystemExit(f"launch.bench: {error}; python -m pip install -e '.[{extra}]'") from error


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main, flags_parser=config_flag.parse)
