"""Serves a trained model to many people at once, over the OpenAI Realtime protocol.

  python -m launch.serve --checkpoint=runs/replica --port=8000
  python -m launch.serve                                          (the model that comes with the package)

All programs are compiled before the first session. `/healthz` and `/metrics` tell how it goes. SIGTERM and Ctrl-C let
no new session in, wait up to --drain_seconds for those there are, and end. What happens to sessions is logged on
stderr, a line for each event, as text or as JSON (--log_format).
"""

import asyncio
import os
import re
import socket
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from launch import background, config_flag
from tml_jax import shipped
from tml_jax.background.desk import Background
from tml_jax.serve.engine import Engine
from tml_jax.serve.heaps import bound_heaps
from tml_jax.serve.log import logging_to
from tml_jax.serve.program import load_model
from tml_jax.serve.scheduler import Report, Scheduler
from tml_jax.serve.tick_log import TickLog
from tml_jax.train.checkpoint import CheckpointError

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of a trained model; without it, the shipped replica.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 for all of this machine's.")
_PORT = flags.DEFINE_integer("port", 8000, "Port to listen at; 0 takes a free one.", lower_bound=0, upper_bound=65535)
_SESSIONS = flags.DEFINE_integer("sessions", 4, "Most sessions at once.", lower_bound=1)
_DELAY = flags.DEFINE_float("delay_ms", 60.0, "How long each 200 ms wait for sound on its way.", lower_bound=0.0)
_API_KEY = flags.DEFINE_multi_string(
    "api_key",
    [],
    "What clients must send, more than once for several keys; better in the environment, as TML_API_KEY, with spaces "
    "between keys. Without one everybody may come.",
)
_ORIGIN = flags.DEFINE_multi_string("origin", [], "Another site whose pages may connect, such as https://example.org.")
_NAME = flags.DEFINE_string("name", "", "Of this engine among several behind a proxy (see launch/deploy).")
_LOG_FORMAT = flags.DEFINE_enum("log_format", "text", ["text", "json"], "How each event is logged on stderr.")
_DRAIN = flags.DEFINE_float("drain_seconds", 30.0, "How long to wait for sessions at the end.", lower_bound=0.0)
_RESUME = flags.DEFINE_float(
    "resume_seconds", 30.0, "How long a session waits for a client that was cut off; 0 for not at all.", lower_bound=0.0
)

_SESSION_SECONDS = flags.DEFINE_float(
    "session_seconds", 0.0, "How long a session may last; 0 for as long as its client likes.", lower_bound=0.0
)
_PER_KEY = flags.DEFINE_integer(
    "sessions_per_key",
    0,
    "Most sessions at once, and tickets in line, of one API key; without keys, of one address. 0 for no limit.",
    lower_bound=0,
)
_QUEUE = flags.DEFINE_integer("queue", 100, "Most tickets in line for a place; 0 for no limit.", lower_bound=0)
_EVENTS = flags.DEFINE_float(
    "events_per_second", 1000.0, "Of one session, over time; ten times as many at once. 0 for no limit.", 0.0
)
_BYTES = flags.DEFINE_float(
    "bytes_per_second",
    4.0 * 2**20,
    "Of one session and its answers, over time; ten times as many at once. 0 for none.",
    0.0,
)
_REQUEST = flags.DEFINE_float(
    "request_seconds", 10.0, "How long a new connection may take for its first request; 0 for ever.", lower_bound=0.0
)


_ORIGIN_FORM = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#]+")


def _try_address(host: str, port: int) -> None:
    """Makes sure that an address can be listened at: said now, not after minutes of compiling.

    Raises:
      OSError: it cannot.
    """
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(f"--host={host} --port={port}: {reason}; --port=0 takes a free one") from error


def main(argv: Sequence[str]) -> None:
    """Runs the command. What is wrong with its input ends it with one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    try:
        from tml_jax.serve.compilations import counting_compilations
        from tml_jax.serve.limits import Limits
        from tml_jax.serve.metrics import ServerMetrics
        from tml_jax.serve.server import Server, ServerOptions, serve
    except ModuleNotFoundError as error:
        raise SystemExit(f"launch.serve: {error}: serving needs the serve extra, pip install -e '.[serve]'") from error
    logging.set_verbosity(logging.WARNING)  # Orbax says much at INFO
    bound_heaps()  # before there are threads
    try:
        folder = shipped.resolve(_CHECKPOINT.value or shipped.NAME)
        if not folder.is_dir():
            ways = f"--checkpoint={shipped.NAME} is the one that comes with the package, launch.train makes others"
            raise FileNotFoundError(f"--checkpoint={folder}: no such folder; {ways}")
        if _CHECKPOINT.value is None:
            print(f"serving the shipped replica ({folder}); --checkpoint=RUN serves another model", flush=True)
        keys = tuple(_API_KEY.value or os.environ.get("TML_API_KEY", "").split())
        limits = Limits(
            _EVENTS.value, _BYTES.value, _SESSION_SECONDS.value, _PER_KEY.value, _QUEUE.value, _REQUEST.value
        )
        _try_address(_HOST.value, _PORT.value)
        for origin in _ORIGIN.value:
            if not _ORIGIN_FORM.fullmatch(origin):
                raise ValueError(f"--origin={origin}: expected a scheme and a host, such as https://example.org")
        model, resume = folder.resolve().name, _RESUME.value
        options = ServerOptions(
            model, keys, tuple(_ORIGIN.value), resume_seconds=resume, name=_NAME.value, limits=limits
        )
        runner, desks = background.make_runner(), background.desk_options()
        loaded = load_model(str(folder), delegate=runner is not None)
        engine = Engine(loaded, _SESSIONS.value)
        print("compiling, which may take a minute", flush=True)
        engine.warm_up()
        metrics, ticks, helper = ServerMetrics(), TickLog(engine), None
        if runner is not None:
            helper = Background(runner, loaded.tokenizer, loaded.config, desks, metrics.observe_task)

        def observe(report: Report) -> None:
            metrics.observe(report)
            ticks.observe(report)

        scheduler = Scheduler(engine, delay=_DELAY.value / 1000, observe=observe, background=helper)
        server = Server(scheduler, metrics, options)
        with logging_to(sys.stderr, _LOG_FORMAT.value), counting_compilations() as compilations:
            metrics.watch(compilations)
            scheduler.start()
            if runner is not None:
                runner.start()
            try:
                asyncio.run(serve(server, scheduler, _HOST.value, _PORT.value, _DRAIN.value))
            finally:
                scheduler.stop()
                if runner is not None:
                    runner.stop()
    except KeyboardInterrupt:  # while it loads or compiles; later ones end it in order
        config_flag.interrupted("serve", "it was not ready yet")
    except (OSError, ValueError, CheckpointError) as error:
        raise SystemExit(f"launch.serve: {error}") from error


if __name__ == "__main__":
    config_flag.run(main)
