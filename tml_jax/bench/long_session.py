"""Long sessions: whether a tick takes as long, and the process as much memory, after half an hour as at the start.

Sessions with sound and a new frame in every micro-turn go through an engine as fast as it can, not in real time. What a
tick takes on a machine also depends on what else that does, minute by minute. So the last minutes are not compared with
the first of the same sessions, which is long ago, but with the first minutes of sessions that begin then: they hear the
same clip, go through the same compiled programs, and tick turn about with the old ones, a second each.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from tml_jax.bench.batches import noise
from tml_jax.bench.paired import Ticks, ratio, same_work_ratio
from tml_jax.config import AUDIO_ELEMENTS, MICRO_TURN_SECONDS, PATCH
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.eval.estimates import Estimate
from tml_jax.serve.engine import Engine
from tml_jax.serve.windows import Arrived

TURNS_A_MINUTE = round(60 / MICRO_TURN_SECONDS)
BLOCK = 5  # ticks of one side before the other has its turn
COMPARED = 5  # minutes at the end that have sessions beside them
_STATUS = pathlib.Path("/proc/self/status")


@dataclasses.dataclass(frozen=True, eq=False)
class LongSession:
    """What was measured.

    Attributes:
      sessions: how many, all as long.
      elements: of the sequence of one of them, and those that global layers see.
      seconds: (minutes, 300) of each tick.
      resident: (minutes + 1,) bytes of the process before the first minute and after each; 0 where unknown.
      on_device: the same of all arrays on devices.
      speaks: (minutes, 300) share of the sessions in which the model spoke.
      old: the last minutes, in blocks.
      new: first minutes of the sessions beside them, in blocks.
      recompilations: programs compiled meanwhile.
    """

    sessions: int
    elements: tuple[int, int]
    seconds: np.ndarray
    resident: np.ndarray
    on_device: np.ndarray
    speaks: np.ndarray
    old: Ticks
    new: Ticks
    recompilations: int

    @property
    def ratio(self) -> Estimate:
        """Median tick of the last minutes over that of the first minutes beside them."""
        return ratio(self.old.seconds, self.new.seconds)

    @property
    def same_work(self) -> Estimate:
        """The same of ticks of the same work: as many steps of text, sound or none."""
        return same_work_ratio(self.old.seconds, self.new.seconds, self.old.work, self.new.work)

    @property
    def processor(self) -> Estimate:
        """The same of the time that processors worked for them, in which waiting for other programs is not."""
        return same_work_ratio(self.old.processor, self.new.processor, self.old.work, self.new.work)

    def __str__(self) -> str:
        minutes = len(self.seconds)
        shown = sorted({0, *range(4, minutes, 5), minutes - 1})
        rows = []
        for minute in shown:
            percentiles = np.percentile(1e3 * self.seconds[minute], (50, 95, 99))
            memory = self.resident[minute + 1] / 2**20, self.on_device[minute + 1] / 2**20
            numbers = [f"{value:.1f}" for value in (*percentiles, *memory)]
            rows.append(f"| {minute + 1} | " + " | ".join(numbers) + f" | {self.speaks[minute].mean():.0%} |")
        count, seen = self.elements
        compared = self.old.seconds.size // TURNS_A_MINUTE
        figures = {
            "all ticks": self.ratio,
            "ticks of the same work": self.same_work,
            "their processor time": self.processor,
        }
        told = [f"{name} {e.value:.3f} ({e.low:.3f}–{e.high:.3f}, n = {e.count})" for name, e in figures.items()]
        return "\n".join(
            [
                "| minute | tick p50, ms | p95 | p99 | process, MiB | arrays, MiB | speaks |",
                "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
                *rows,
                "",
                f"{self.sessions} session(s) with sound and video, {count} elements each, of which global layers see "
                f"{seen}; recompilations: {self.recompilations}",
                f"last {compared} minutes / first minute of sessions that tick turn about with them (95% intervals): "
                + "; ".join(told),
            ]
        )


class _Side:
    """Sessions of one age: every slot of an engine."""

    def __init__(self, engine: Engine, audio: np.ndarray) -> None:
        self.engine, self._audio = engine, audio
        self.slots = [engine.join(seed) for seed in range(engine.slots)]

    def tick(self, turn: int) -> tuple[float, float, float, int]:
        """A micro-turn that hears what comes at `turn`: seconds, those of processors, who speaks, kind of work."""
        config, audio, slots = self.engine.config, self._audio, self.slots
        rows, columns = (size * patch for size, patch in zip(config.data.video_grid, PATCH[1:3]))
        place = turn * INPUT_SAMPLES + np.arange(INPUT_SAMPLES)
        frame = np.full((rows, columns, 3), turn % 256, np.uint8)
        given = {
            slot: Arrived(np.take(audio, place + slot * len(audio) // len(slots), mode="wrap"), [(0.1, frame)])
            for slot in slots
        }
        worked = time.process_time()
        tick = self.engine.tick(given)
        worked = time.process_time() - worked
        if tick.broken:
            raise ValueError(f"micro-turn {turn}: numbers of session {tick.broken[0]} are not finite")
        spoken = np.asarray([said.gate == "SPEAK" for said in tick.turns.values()])
        # Text steps, one for each token and for the gate, and whether sound was made.
        steps = np.max([said.elements_out for said in tick.turns.values()] - AUDIO_ELEMENTS * spoken)
        return tick.seconds, worked, float(spoken.mean()), int(2 * steps + spoken.any())

    def leave(self) -> None:
        """Ends the sessions."""
        for slot in self.slots:
            self.engine.leave(slot)


def long_session_bench(
    engine: Engine,
    minutes: int,
    audio: np.ndarray | None = None,
    log: Callable[[str], None] = print,
) -> LongSession:
    """Fills every slot of an engine with a session and measures.

    Args:
      engine: warm, without sessions.
      minutes: of conversation, at least two.
      audio: (n,) float32 at 16 kHz, what users say over and over; None for noise.
      log: takes a line for each minute.

    Returns:
      The measurement.

    Raises:
      ValueError: there are too few minutes, or the model's numbers were not finite.
    """
    if minutes < 2:
        raise ValueError(f"minutes = {minutes}: expected at least 2, a first one and a last one")
    audio = noise() if audio is None else audio
    old, other = _Side(engine, audio), engine.beside()  # before memory is looked at
    memory, ticks = [_memory()], []
    beside: list[tuple] = []
    for minute in range(minutes):
        turns = range(minute * TURNS_A_MINUTE, (minute + 1) * TURNS_A_MINUTE)
        if minute < max(1, minutes - COMPARED):
            ticks += [old.tick(turn) for turn in turns]
        else:
            new = _Side(other, audio)
            for number, first in enumerate(turns[::BLOCK]):
                block = range(first, min(first + BLOCK, turns.stop))
                for side, kept in ((old, ticks), (new, beside))[:: -1 if number % 2 else 1]:
                    kept += [side.tick(turn) for turn in block]
            new.leave()
        memory.append(_memory())
        median = 1e3 * np.median([tick[0] for tick in ticks[-TURNS_A_MINUTE:]])
        log(f"minute {minute + 1} of {minutes}: tick {median:.1f} ms, {memory[-1][0] / 2**20:.0f} MiB")
    elements = engine.elements(old.slots[0]), engine.config.serve.context
    old.leave()
    seconds, _, speaks, _ = (np.asarray(column).reshape(minutes, -1) for column in zip(*ticks))
    resident, on_device = np.asarray(memory).T
    sides = _blocks(ticks[-len(beside) :]), _blocks(beside)
    count = len(old.slots)
    return LongSession(count, elements, seconds, resident, on_device, speaks, *sides, engine.recompilations)


def _blocks(ticks: list[tuple]) -> Ticks:
    seconds, worked, _, work = (np.asarray(column).reshape(-1, BLOCK) for column in zip(*ticks))
    return Ticks(seconds, worked, work)


def _memory() -> tuple[int, int]:
    """Bytes of this process, and of its arrays on devices."""
    resident = 0
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS"))
        resident = int(line.split()[1]) * 1024
    return resident, sum(array.nbytes for array in jax.live_arrays())
