"""A model that says what a test wrote down, and remembers all that it was given."""

import dataclasses
from collections.abc import Callable

import numpy as np
from small import small_config

from tml_jax.serve.engine import Tick
from tml_jax.serve.windows import Arrived
from tml_jax.serve.words import MicroTurn, Span

SAMPLES = 4800


@dataclasses.dataclass(frozen=True)
class Line:
    """What it says in one micro-turn; without samples it listens."""

    samples: np.ndarray | None = None
    text: str = ""
    display: str = ""
    tasks: tuple[str, ...] = ()


class ScriptedEngine:
    """Stands where the engine stands. `script` makes a line of a micro-turn's number and input."""

    def __init__(self, script: Callable[[int, Arrived], Line], slots: int = 1) -> None:
        self.script, self.slots, self.config = script, slots, small_config()
        self.recompilations, self.unfinished = 0, ()
        self.arrived: dict[int, list[Arrived]] = {}

    def join(self, seed: int) -> int:
        slot = next(slot for slot in range(self.slots) if slot not in self.arrived)
        self.arrived[slot] = []
        return slot

    def leave(self, slot: int) -> tuple[Span, ...]:
        del self.arrived[slot]
        return self.unfinished

    def tick(self, inputs) -> Tick:
        turns = {}
        for slot, arrived in inputs.items():
            index = len(self.arrived[slot])
            self.arrived[slot].append(arrived)
            line = self.script(index, arrived)
            gate = "LISTEN" if line.samples is None else "SPEAK"
            sound = np.zeros(SAMPLES, np.float32) if line.samples is None else line.samples
            mel = np.zeros((20, 80), np.float32)
            spans = tuple(map(Span, line.tasks))
            turns[slot] = MicroTurn(index, 0.2 * index, gate, line.text, line.display, mel, sound, 0.01, spans=spans)
        return Tick(turns, (), 0.01)
