"""Long sessions: whether a tick takes as long, and the process as much memory, after half an hour as at the start.

Sessions with sound and a new frame in every micro-turn go through an engine as fast as it can, not in real time.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import numpy as np

from tml_jax.bench.batches import noise
from tml_jax.config import AUDIO_ELEMENTS, MICRO_TURN_SECONDS, PATCH
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.serve.engine import Engine
from tml_jax.serve.windows import Arrived

TURNS_A_MINUTE = round(60 / MICRO_TURN_SECONDS)
_STATUS = pathlib.Path("/proc/self/status")


@dataclasses.dataclass(frozen=True)
class LongSession:
    """What was measured.

    Attributes:
      sessions: how many, all as long.
      elements: of the sequence of one of them, and those that global layers see.
      seconds: (minutes, 300) of each tick.
      resident: (minutes + 1,) bytes of the process before the first minute and after each; 0 where unknown.
      on_device: the same of all arrays on devices.
      speaks: (minutes, 300) share of the sessions in which the model spoke.
      steps: (minutes, 300) int, of text that each tick had: one for each token, and for the gate.
      recompilations: programs compiled meanwhile.
    """

    sessions: int
    elements: tuple[int, int]
    seconds: np.ndarray
    resident: np.ndarray
    on_device: np.ndarray
    speaks: np.ndarray
    steps: np.ndarray
    recompilations: int

    @property
    def ratio(self) -> float:
        """Median tick of the last minute over that of the first."""
        return float(np.median(self.seconds[-1]) / np.median(self.seconds[0]))

    @property
    def same_work_ratio(self) -> float:
        """The same of ticks that did the same work, so that it does not matter what was said in which minute.

        It is the mean over the kinds of work (so many steps of text; sound or none), weighted by how often each is in
        the minute in which it is rarer. NaN where the two minutes have none in common.
        """
        work = 2 * self.steps + (self.speaks > 0)
        ratios, weights = [], []
        for kind in np.intersect1d(work[0], work[-1]):
            first, last = (self.seconds[minute][work[minute] == kind] for minute in (0, -1))
            ratios.append(np.median(last) / np.median(first))
            weights.append(min(len(first), len(last)))
        return float(np.average(ratios, weights=weights)) if ratios else float("nan")

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
        return "\n".join(
            [
                "| minute | tick p50, ms | p95 | p99 | process, MiB | arrays, MiB | speaks |",
                "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
                *rows,
                "",
                f"{self.sessions} session(s) with sound and video, {count} elements each, of which global layers see "
                f"{seen}; last minute / first minute: {self.ratio:.3f}, of ticks of the same work: "
                f"{self.same_work_ratio:.3f}; recompilations: {self.recompilations}",
            ]
        )


def long_session_bench(
    engine: Engine,
    minutes: int,
    audio: np.ndarray | None = None,
    log: Callable[[str], None] = print,
) -> LongSession:
    """Fills every slot of an engine with a session and measures.

    Args:
      engine: warm, without sessions.
      minutes: of conversation.
      audio: (n,) float32 at 16 kHz, what users say over and over; None for noise.
      log: takes a line for each minute.

    Returns:
      The measurement.

    Raises:
      ValueError: the model's numbers were not finite.
    """
    config = engine.config
    if audio is None:
        audio = noise()
    slots = [engine.join(seed) for seed in range(engine.slots)]
    rows, columns = (size * patch for size, patch in zip(config.data.video_grid, PATCH[1:3]))
    seconds = np.zeros((minutes, TURNS_A_MINUTE))
    speaks, steps = np.zeros_like(seconds), np.zeros_like(seconds, int)
    memory = [_memory()]
    for turn in range(minutes * TURNS_A_MINUTE):
        minute, within = divmod(turn, TURNS_A_MINUTE)
        place = turn * INPUT_SAMPLES + np.arange(INPUT_SAMPLES)
        frame = np.full((rows, columns, 3), turn % 256, np.uint8)
        given = {
            slot: Arrived(np.take(audio, place + slot * len(audio) // len(slots), mode="wrap"), [(0.1, frame)])
            for slot in slots
        }
        tick = engine.tick(given)
        if tick.broken:
            raise ValueError(f"micro-turn {turn}: numbers of session {tick.broken[0]} are not finite")
        seconds[minute, within] = tick.seconds
        spoken = [said.gate == "SPEAK" for said in tick.turns.values()]
        speaks[minute, within] = np.mean(spoken)
        sounds = AUDIO_ELEMENTS * np.asarray(spoken)
        steps[minute, within] = np.max([said.elements_out for said in tick.turns.values()] - sounds)
        if within == TURNS_A_MINUTE - 1:
            memory.append(_memory())
            median = 1e3 * np.median(seconds[minute])
            log(f"minute {minute + 1} of {minutes}: tick {median:.1f} ms, {memory[-1][0] / 2**20:.0f} MiB")
    elements = engine.elements(slots[0]), config.serve.context
    for slot in slots:
        engine.leave(slot)
    resident, on_device = np.asarray(memory).T
    return LongSession(len(slots), elements, seconds, resident, on_device, speaks, steps, engine.recompilations)


def _memory() -> tuple[int, int]:
    """Bytes of this process, and of its arrays on devices."""
    resident = 0
    if _STATUS.exists():
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmRSS"))
        resident = int(line.split()[1]) * 1024
    return resident, sum(array.nbytes for array in jax.live_arrays())
