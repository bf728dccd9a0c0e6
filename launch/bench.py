"""Measures speed beside other implementations, on this machine, and prints a table.

  python -m launch.bench --what=train --config=configs/replica.py
  python -m launch.bench --what=micro_turn --config=configs/replica.py      (both need the extra `parity`)

Run them on a machine that does nothing else: the table says how much other programs took.

  python -m launch.bench --what=roofline --config=configs/replica.py

takes times of the train step and of micro-turns on the device that is here (a GPU, a TPU, a CPU) beside its own rates.

  python -m launch.bench --what=serve
  python -m launch.bench --what=serve --url=ws://127.0.0.1:8000/v1/realtime --clients=1,4 --audio=question.wav

starts servers (launch.serve) of as many places as there will be clients, or takes one that runs, and talks to them in
real time over real sockets: how long N clients wait, and how many are served in real time (needs the extra `serve`).
Without a recording the users' requests are spoken by an offline voice (extra `replica`), as in the next.

  python -m launch.bench --what=long_session --checkpoint=runs/replica --minutes=30 --sessions=1

streams long sessions through a model, faster than real time: whether their last minutes cost what first ones do.

  python -m launch.bench --what=background --checkpoint=runs/replica --sessions=4 --ticks=500

times the server's ticks without a background model, with the embedded one, and with ones that hang, flood and die.
"""

import contextlib
import logging as std_logging
import os
import sys
from collections.abc import Sequence

import numpy as np
from absl import app, flags, logging

from launch import config_flag, huge_pages, server_process
from tml_jax import shipped
from tml_jax.bench.roofline import roofline_bench
from tml_jax.config import INPUT_RATE, ConfigError
from tml_jax.signal import media
from tml_jax.train.checkpoint import CheckpointError

_REPEATS = flags.DEFINE_integer("repeats", 15, "Turns of each program (train, micro_turn, roofline).", lower_bound=1)
_URL = flags.DEFINE_string("url", None, "Of a server that runs; without it, one is started (serve).")
_CLIENTS = flags.DEFINE_list("clients", ["1", "2", "4", "8", "16", "24", "32"], "At once, one number a row (serve).")
_SESSIONS = flags.DEFINE_integer("sessions", 4, "Sessions at once (long_session, background).", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 30.0, "How long each talks (serve).", lower_bound=1.0)
_AUDIO = flags.DEFINE_string(
    "audio", None, "A recording that they say, over and over; without it requests by an offline voice."
)
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "Folder of a trained model (serve, long_session, background); without it, the shipped replica."
)
_TICKS = flags.DEFINE_integer("ticks", 500, "Of each kind of background (background).", lower_bound=1)
_MINUTES = flags.DEFINE_integer("minutes", 30, "How long they talk (long_session).", lower_bound=2)


def _serve() -> object:
    from tml_jax.bench.serve import serve_bench  # here, because it needs the serve extra

    if not all(count.isdecimal() and int(count) for count in _CLIENTS.value):
        raise ConfigError(f"--clients={','.join(_CLIENTS.value)}: expected numbers from 1 on, such as 1,4,16")

    def server(places: int) -> contextlib.AbstractContextManager[str]:
        if _URL.value:
            return contextlib.nullcontext(_URL.value)
        return server_process.serving(_CHECKPOINT.value or shipped.NAME, places, _log)

    clients, key = [int(count) for count in _CLIENTS.value], os.environ.get("TML_API_KEY")
    return serve_bench(server, clients, _SECONDS.value, _audio(), key, _log)


def _long_session() -> object:
    from tml_jax.bench.long_session import long_session_bench

    engine, _ = _engine(delegate=False)
    return long_session_bench(engine, _MINUTES.value, _audio(), _log)


def _background() -> object:
    from tml_jax.background import runner
    from tml_jax.bench.background import background_bench

    std_logging.getLogger(runner.__name__).setLevel(std_logging.CRITICAL)  # backends that die are meant to
    return background_bench(*_engine(delegate=True), _TICKS.value, _log)


def _engine(delegate: bool) -> tuple:
    """A warm engine of the checkpoint, and its tokenizer."""
    from tml_jax.serve.engine import Engine
    from tml_jax.serve.program import load_model

    loaded = load_model(str(shipped.resolve(_CHECKPOINT.value or shipped.NAME)), delegate=delegate)
    engine = Engine(loaded, _SESSIONS.value)
    engine.warm_up()
    return engine, loaded.tokenizer


def _train() -> object:
    from tml_jax.bench.train import train_bench  # here, because it needs the parity extra, as the next

    return train_bench(config_flag.get(), _REPEATS.value, log=_log)


def _micro_turn() -> object:
    from tml_jax.bench.micro_turn import micro_turn_bench

    return micro_turn_bench(config_flag.get(), _REPEATS.value, log=_log)


def _roofline() -> object:
    return roofline_bench(config_flag.get(), _REPEATS.value, log=_log)


def _audio() -> np.ndarray:
    if _AUDIO.value:
        return media.read_audio(_AUDIO.value, INPUT_RATE, channels=1)[0]
    from tml_jax.bench.speech import requests  # here, because it needs the replica extra

    try:
        return requests()
    except ImportError as error:
        raise ConfigError(f"{error}; or give a recording, --audio=FILE") from error


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


_BENCHES = {
    "train": _train,
    "micro_turn": _micro_turn,
    "roofline": _roofline,
    "serve": _serve,
    "long_session": _long_session,
    "background": _background,
}
_WHAT = flags.DEFINE_enum(
    "what",
    "train",
    list(_BENCHES),
    "What to measure: `train`, the train step beside transformers; `micro_turn`, a micro-turn beside transformers with "
    "its cache; `roofline`, both on this device beside what it could do; `serve`, a server under load; `long_session`, "
    "whether long sessions stay as fast; `background`, whether a background costs the ticks anything.",
)


def main(argv: Sequence[str]) -> None:
    """Runs the command; what is wrong with its input ends it with one line."""
    try:
        if len(argv) > 1:
            raise ConfigError(f"argument {argv[1]!r}: every option is a --flag")
        logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
        print(_BENCHES[_WHAT.value]())
    except (ConfigError, CheckpointError, ValueError, OSError) as error:
        raise SystemExit(f"launch.bench: {error}") from error
    except ImportError as error:
        extra = "serve" if _WHAT.value == "serve" else "parity"
        raise SystemExit(f"launch.bench: {error}; python -m pip install -e '.[{extra}]'") from error


if __name__ == "__main__":
    huge_pages.restart()
    app.run(main, flags_parser=config_flag.parse)
