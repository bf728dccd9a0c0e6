"""What a server counts, for Prometheus; one registry for each server."""

import dataclasses

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from tml_jax.background.tasks import State, TaskEvent
from tml_jax.serve.compilations import Compilations
from tml_jax.serve.scheduler import Report, Scheduler

_TASK_BUCKETS = (0.2, 0.4, 0.6, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
_DELAY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0)
_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)


class ServerMetrics:
    """Counters, gauges and the histogram of tick times."""

    def __init__(self) -> None:
        """All at zero."""
        self.registry = CollectorRegistry()
        make = {"registry": self.registry}
        self._seconds = Histogram("tml_tick_seconds", "Input to output of one tick", buckets=_BUCKETS, **make)
        self._turns = Counter("tml_micro_turns", "Micro-turns of all sessions", **make)
        self._late = Counter("tml_ticks_late", "Ticks that ended after the next should have begun", **make)
        self._skipped = Counter("tml_windows_skipped", "Windows of input passed over in an overload", **make)
        self._sessions = Gauge("tml_sessions", "Sessions now", **make)
        self._recompilations = Gauge("tml_recompilations", "The engine's programs compiled since it was warm", **make)
        self.admitted = Counter("tml_sessions_admitted", "Sessions let in", **make)
        self.refused = Counter("tml_sessions_refused", "Sessions refused: full, overloaded, …", ["code"], **make)
        self.cut_off = Counter("tml_sessions_cut_off", "Sessions that the server ended, by why", ["reason"], **make)
        self._slots = Gauge("tml_slots", "Places for sessions", **make)
        self._queue = Gauge("tml_queue", "Tickets in line for a place", **make)
        self._overloaded = Gauge("tml_overloaded", "1 while nobody new is let in because ticks are late", **make)
        self._samples = Counter(
            "tml_input_samples", "Samples of input at 16 kHz, by what became of them", ["what"], **make
        )
        self.held = Gauge("tml_sessions_held", "Sessions that wait for a client that was cut off", **make)
        self.resumed = Counter("tml_sessions_resumed", "Times that a client came back to its session", **make)
        self.expired = Counter("tml_sessions_expired", "Sessions whose client did not come back in time", **make)
        self.slow_readers = Counter("tml_slow_readers", "Connections closed because their client did not read", **make)
        self.errors = Counter("tml_protocol_errors", "Events that were refused", ["code"], **make)
        self.ear_to_voice = Histogram(
            "tml_ear_to_voice_seconds",
            "From the end of what the model heard to the first sound of its answer, where clients say what they played",
            buckets=_DELAY_BUCKETS,
            **make,
        )

        self._tasks = Counter("tml_background_events", "What became of tasks for the background", ["what"], **make)
        self._task_seconds = Histogram(
            "tml_background_seconds", "From asking for a task to its end", ["what"], buckets=_TASK_BUCKETS, **make
        )
        self._running = Gauge("tml_background_tasks", "Tasks that run now, of all sessions", **make)

    def observe_task(self, event: TaskEvent) -> None:
        """Something that happened to a task."""
        self._tasks.labels(event.what).inc()
        if event.what in set(State) - {State.RUNNING}:
            self._task_seconds.labels(event.what).observe(event.seconds)

    def observe(self, report: Report) -> None:
        """One tick; ticks without a session have no time."""
        if report.sessions:
            self._seconds.observe(report.seconds)
        self._turns.inc(report.sessions)
        self._late.inc(report.late)
        self._skipped.inc(report.skipped)
        self._overloaded.set(report.overloaded)
        for what, count in dataclasses.asdict(report.sound).items():
            self._samples.labels(what).inc(count)

    def watch(self, compilations: Compilations) -> None:
        """Shows what was compiled in the process, too."""
        about = "Programs compiled in this process since the server was warm, whatever for"
        Gauge("tml_compilations", about, registry=self.registry).set_function(lambda: compilations.count)

    def text(self, scheduler: Scheduler, queue: int) -> bytes:
        """All of it in the format that Prometheus reads; `queue` tickets are in line."""
        self._slots.set(scheduler.engine.slots)
        self._queue.set(queue)
        self._sessions.set(scheduler.sessions)
        self._running.set(scheduler.tasks)
        self._recompilations.set(scheduler.engine.recompilations)
        return generate_latest(self.registry)
