"""A server in a process of its own, as `launch.serve` makes one, with a script in the model's place.

NAME SLOTS DRAIN_SECONDS are its arguments; `test_proxy.py` starts it with its own search path.
"""

import asyncio
import sys

import numpy as np
from scripted import SAMPLES, Line, ScriptedEngine

from tml_jax.serve.log import logging_to
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.server import Server, ServerOptions, serve


def main(name: str, slots: str, drain_seconds: str) -> None:
    """Serves until SIGTERM; says on which port."""
    engine = ScriptedEngine(lambda index, arrived: Line(np.zeros(SAMPLES, np.float32), f" {name}"), int(slots))
    metrics = ServerMetrics()
    scheduler = Scheduler(engine, observe=metrics.observe)
    server = Server(scheduler, metrics, ServerOptions(name=name))
    scheduler.start()
    with logging_to(sys.stderr, "json"):
        asyncio.run(serve(server, scheduler, "127.0.0.1", 0, float(drain_seconds)))
    scheduler.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
