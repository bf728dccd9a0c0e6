"""What the log says of the clock."""

import logging

from tml_jax.serve.engine import Engine
from tml_jax.serve.log import log_event
from tml_jax.serve.scheduler import Report


class TickLog:
    """Logs ticks that were not as they should be: late ones, the begin and end of an overload, recompilations."""

    def __init__(self, engine: Engine) -> None:
        """Of an engine that is warm."""
        self._engine = engine
        self._overloaded, self._recompilations = False, engine.recompilations

    def observe(self, report: Report) -> None:
        """One tick; called from its thread."""
        if report.late:
            seconds = round(report.seconds, 4)
            log_event("tick_late", logging.WARNING, seconds=seconds, sessions=report.sessions)
        if report.skipped:
            log_event("windows_skipped", logging.WARNING, windows=report.skipped, sessions=report.sessions)
        if report.overloaded != self._overloaded:
            self._overloaded = report.overloaded
            log_event("overload_began" if report.overloaded else "overload_ended", logging.WARNING)
        if self._engine.recompilations != self._recompilations:
            self._recompilations = self._engine.recompilations
            log_event("recompiled", logging.WARNING, recompilations=self._recompilations)
