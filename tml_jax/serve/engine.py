"""Many live sessions on one model: N slots of one batch, one compiled call for all of them every 200 ms.

Shapes never change: the block has always the room of the largest input, and a slot without input is idle (it takes
nothing in, puts nothing out, and its state stays). So two programs are all there is, the micro-turn and the start of a
session, and both are compiled before the first one. It is also why a session gives the same bits whatever runs beside
it: its rows go through the same program, whoever comes, leaves, types or shows a frame. The price is that everybody's
input costs as much as the largest could; on a CPU, the largest that there is (`model.portions`).
"""

import copy
import dataclasses
import time
from collections.abc import Mapping

import jax

from tml_jax.config import Config
from tml_jax.data.elements import input_elements
from tml_jax.serve.program import LoadedModel, Program
from tml_jax.serve.windows import Arrived, Ear, InputError, block_sizes, make_block, take_in
from tml_jax.serve.words import MicroTurn, Mouth, Span, micro_turn_of_row


class FullError(RuntimeError):
    """Every slot has its session."""


@dataclasses.dataclass(frozen=True)
class Tick:
    """What one call gave.

    Attributes:
      turns: slot → its micro-turn, of every session that had input.
      broken: slots whose numbers were not finite. Their sessions are over and their slots empty.
      seconds: from input to output.
    """

    turns: dict[int, MicroTurn]
    broken: tuple[int, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class _Seat:
    """The host's side of a session: what it carries between micro-turns, and the number of the next."""

    ear: Ear
    mouth: Mouth
    index: int = 0


class Engine:
    """N slots for sessions that come and go. To be used by one thread at a time."""

    def __init__(self, loaded: LoadedModel, slots: int) -> None:
        """Puts the model and N empty slots on the device.

        Args:
          loaded: the model.
          slots: most sessions at once; each takes the memory of a whole context.

        Raises:
          ValueError: slots is not positive.
        """
        if slots < 1:
            raise ValueError(f"slots = {slots}: expected at least 1")
        self.slots = slots
        self._program = Program(loaded)
        self._length = block_sizes(loaded.config)[-1]
        self._tokenizer = loaded.tokenizer
        self._seats: dict[int, _Seat] = {}
        self._sessions = self._program.start([0] * slots)
        self._warm: int | None = None

    def beside(self) -> "Engine":
        """Another engine with the same compiled programs and weights, and as many slots, all empty."""
        other = copy.copy(self)
        other._seats, other._sessions = {}, self._program.start([0] * self.slots)
        return other

    @property
    def config(self) -> Config:
        """Of the model."""
        return self._program.loaded.config

    @property
    def taken(self) -> frozenset[int]:
        """Slots with a session."""
        return frozenset(self._seats)

    @property
    def recompilations(self) -> int:
        """Programs compiled since `warm_up`; more than none means that sessions waited for the compiler."""
        return 0 if self._warm is None else self._program.compiled - self._warm

    def warm_up(self) -> None:
        """Compiles both programs. Before the first session, or it would be lost.

        Raises:
          RuntimeError: there are sessions.
        """
        if self._seats:
            raise RuntimeError(f"warm_up with sessions in slots {sorted(self._seats)}: call it before the first join")
        fullest = input_elements([0] * (self._length - 1), None, None, self.config.model)
        block = make_block([fullest] * self.slots, self.config, self._length)
        for _ in range(2):  # the second time with the state as the programs return it
            self._clear(0)
            self._sessions, output, _ = self._program.step(self._sessions, block)
        jax.block_until_ready(output)
        self._warm = self._program.compiled

    def join(self, seed: int) -> int:
        """A new session, in an empty slot that holds nothing of the sessions before it.

        Args:
          seed: of its noise.

        Returns:
          The slot.

        Raises:
          FullError: there is no empty slot.
        """
        slot = next((slot for slot in range(self.slots) if slot not in self._seats), None)
        if slot is None:
            raise FullError(f"all {self.slots} slots are taken: wait until a session leaves")
        self._clear(slot, seed)
        self._seats[slot] = _Seat(Ear(), Mouth(self._tokenizer, self.config))
        return slot

    def elements(self, slot: int) -> int:
        """Elements of the sequence of the session in a slot so far.

        Raises:
          KeyError: the slot is empty.
        """
        if slot not in self._seats:
            raise KeyError(slot)
        return int(self._sessions.stream.length[slot])

    def leave(self, slot: int) -> tuple[Span, ...]:
        """Ends a session.

        Args:
          slot: its slot.

        Returns:
          The task that its model was in the midst of asking for, if there is one.

        Raises:
          KeyError: the slot is empty.
        """
        return self._seats.pop(slot).mouth.left()

    def tick(self, inputs: Mapping[int, Arrived]) -> Tick:
        """One micro-turn of every session that has input; the others stay as they are.

        Args:
          inputs: slot → what arrived in its window.

        Returns:
          What they put out.

        Raises:
          InputError: what arrived is nothing that the model takes; no session has changed.
          KeyError: a slot is empty; no session has changed.
        """
        began = time.perf_counter()
        if not inputs:
            return Tick({}, (), 0.0)
        taken = {slot: self._take_in(slot, arrived) for slot, arrived in inputs.items()}
        rows = [taken[slot][1] if slot in taken else None for slot in range(self.slots)]
        block = make_block(rows, self.config, self._length)
        self._sessions, output, samples = self._program.step(self._sessions, block)
        output, samples = jax.device_get((output, samples))
        took = time.perf_counter() - began

        turns, broken = {}, []
        for slot, (ear, _) in taken.items():
            seat = self._seats[slot]
            if not output.finite[slot]:
                del self._seats[slot]
                self._clear(slot)
                broken.append(slot)
                continue
            turns[slot] = micro_turn_of_row(seat.index, slot, block.valid, output, samples, seat.mouth, took)
            self._seats[slot] = dataclasses.replace(seat, ear=ear, index=seat.index + 1)
        return Tick(turns, tuple(broken), took)

    def _take_in(self, slot: int, arrived: Arrived) -> tuple:
        try:
            return take_in(self._seats[slot].ear, arrived, self._tokenizer, self.config)
        except InputError as error:
            raise InputError(f"slot {slot}: {error}") from error

    def _clear(self, slot: int, seed: int = 0) -> None:
        self._sessions = self._program.join(self._sessions, slot, seed)
