"""Whether the background costs the ticks anything: the server's tick without one, with one that works, and bad ones.

Every place of an engine has a session that speaks noise and asks for a task every two seconds; what the model says is
its own. The ticks are the scheduler's (`run_tick`, desks and all), as fast as they go, not in real time, in blocks turn
about, so that what else the machine does falls on all alike.
"""

import asyncio
import collections
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping

import numpy as np

from tml_jax.background.backend import Backend
from tml_jax.background.context import Package
from tml_jax.background.desk import Background, DeskOptions
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import MOST_PIECE, Runner
from tml_jax.background.tasks import Limits, TaskEvent
from tml_jax.bench.batches import noise
from tml_jax.config import MICRO_TURN_SECONDS, Config
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.markdown import markdown_table
from tml_jax.serve.engine import Engine, Tick
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import Span

BLOCK = 50  # ticks of one kind before the next, ten seconds of conversation
ASK_EVERY = 10  # micro-turns from task to task
DEADLINE = 4.0  # seconds of a task
TASK = "6 times 7"
ENDS = ("done", "failed", "expired")


class BadBackend:
    """One that never answers, in one of several ways, until it is told that it is over."""

    def __init__(self, kind: str) -> None:
        """Of a kind of `KINDS` but `none` and `works`."""
        self.kind, self.over = kind, threading.Event()

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        if self.kind == "dies":
            raise ConnectionResetError("the connection is gone")
        while not self.over.is_set():
            if self.kind == "hangs":
                await asyncio.sleep(0.05)
            elif self.kind == "holds its thread":
                self.over.wait(1.0)
            elif self.kind == "floods":
                yield "word " * (MOST_PIECE // 5)
            # `computes` does nothing but hold Python's lock as long as it may.

    async def close(self) -> None:
        """See `Backend`."""


KINDS: Mapping[str, Callable[[str], Backend] | None] = {
    "none": None,
    "works": lambda kind: LocalBackend(LocalTools()),
    "hangs": BadBackend,
    "holds its thread": BadBackend,
    "computes": BadBackend,
    "floods": BadBackend,
    "dies": BadBackend,
}


@dataclasses.dataclass(frozen=True)
class BackgroundBench:
    """What was measured.

    Attributes:
      sessions: in each tick.
      seconds: kind of background → (ticks,) seconds of each.
      events: kind → what became of its tasks, counted.
    """

    sessions: int
    seconds: dict[str, np.ndarray]
    events: dict[str, collections.Counter]

    def __str__(self) -> str:
        head = ["background", "tick p50, ms", "p95", "p99", "most", "asked", *ENDS]
        rows = [head]
        for kind, seconds in self.seconds.items():
            times = [f"{value:.1f}" for value in np.percentile(1e3 * seconds, (50, 95, 99, 100))]
            counts = [str(self.events[kind][what]) for what in ("asked", *ENDS)]
            rows.append([kind, *times, *counts])
        ticks = len(next(iter(self.seconds.values())))
        return f"{markdown_table(rows, left=1)}{self.sessions} session(s), {ticks} ticks of each, {BLOCK} at a time"


class _Asking:
    """An engine whose model asks for a task now and then, besides what it says."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.slots, self.config = engine.slots, engine.config
        self.join, self.leave = engine.join, engine.leave

    def tick(self, inputs: Mapping[int, Arrived]) -> Tick:
        """See `Engine`."""
        tick = self._engine.tick(inputs)
        asks = {
            slot: dataclasses.replace(turn, spans=(Span(TASK),)) if turn.index % ASK_EVERY == 0 else turn
            for slot, turn in tick.turns.items()
        }
        return dataclasses.replace(tick, turns=asks)


def background_bench(
    engine: Engine, tokenizer: Tokenizer, ticks: int, log: Callable[[str], None] = print
) -> BackgroundBench:
    """Measures.

    Args:
      engine: warm, without sessions; all its places are taken.
      tokenizer: of the model's text.
      ticks: of each kind of background, rounded up to whole blocks.
      log: takes a line for each round of blocks.

    Returns:
      The measurement.
    """
    rounds = -(-ticks // BLOCK)
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    events = {kind: collections.Counter() for kind in KINDS}
    for index in range(rounds):
        for kind in KINDS:
            seconds[kind] += _block(engine, tokenizer, kind, lambda event, kind=kind: events[kind].update([event.what]))
        log(f"round {index + 1} of {rounds}")
    return BackgroundBench(engine.slots, {kind: np.asarray(taken) for kind, taken in seconds.items()}, events)


def _block(engine: Engine, tokenizer: Tokenizer, kind: str, observe: Callable[[TaskEvent], None]) -> list[float]:
    """Seconds of `BLOCK` ticks with new sessions and a new background."""
    background, runner, backend = None, None, None
    if KINDS[kind] is not None:
        backend = KINDS[kind](kind)
        runner = Runner(backend)
        runner.start()
        background = _background(runner, tokenizer, engine.config, observe)
    now, taken = 0.0, []
    scheduler = Scheduler(_Asking(engine), delay=0.0, clock=lambda: now, background=background)
    sessions = [scheduler.join(lambda turn: None, seed, stamped=False) for seed in range(engine.slots)]
    try:
        for sound in np.resize(noise(), (BLOCK + 1, INPUT_SAMPLES)):
            for session in sessions:
                session.hear(sound, now)
            began = time.perf_counter()
            scheduler.run_tick(now)
            taken.append(time.perf_counter() - began)
            now += MICRO_TURN_SECONDS
    finally:
        for session in sessions:
            scheduler.leave(session)
        scheduler.run_tick(now)  # empties the places
        if isinstance(backend, BadBackend):
            backend.over.set()
        if runner is not None:
            runner.stop()
    return taken[1:]  # in the first, sessions begin


def _background(
    runner: Runner, tokenizer: Tokenizer, config: Config, observe: Callable[[TaskEvent], None]
) -> Background:
    return Background(runner, tokenizer, config, DeskOptions(Limits(seconds=DEADLINE)), observe)
