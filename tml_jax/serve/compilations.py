"""Everything that XLA compiles in this process while it serves: each is time that sessions wait."""

import contextlib
import logging
import threading
from collections.abc import Iterator

import jax

from tml_jax.serve.log import log_event

# What `jax.monitoring` calls a program that is compiled, or read from the cache on disk.
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """How many programs there were."""

    def __init__(self) -> None:
        """None yet; `counting_compilations` makes it."""
        self._lock = threading.Lock()
        self.count = 0

    def heard(self, event: str, seconds: float, **more: str | int) -> None:
        """Takes an event of `jax.monitoring`, from any thread."""
        if event == _COMPILED:
            with self._lock:
                self.count += 1
            log_event("compiled", logging.WARNING, seconds=round(seconds, 4), compilations=self.count)


@contextlib.contextmanager
def counting_compilations() -> Iterator[Compilations]:
    """Counts, and logs, every program that is compiled from now on, whoever asks for it."""
    compilations = Compilations()
    jax.monitoring.register_event_duration_secs_listener(compilations.heard)
    try:
        yield compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(compilations.heard)
