"""Sessions of ten hours, by a clock that a test moves: what they keep does not grow, time and numbers stay right."""

import base64
import gc
import json
import types

import numpy as np
import pytest
from scripted import SAMPLES
from small import small_config
from synthetic import tokenizer

from tml_jax.background.backend import NoBackend
from tml_jax.background.desk import Background
from tml_jax.background.runner import Runner
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.serve.dialogue import Dialogue
from tml_jax.serve.duplex import DuplexDialogue
from tml_jax.serve.engine import Tick
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.protocol import parse_event
from tml_jax.serve.rtc_dialogue import RtcDialogue
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.sound_formats import to_pcm16
from tml_jax.serve.words import MicroTurn, Span

HOUR = round(3600 / MICRO_TURN_SECONDS)  # ticks
WINDOW = 3200
KINDS = (Dialogue, DuplexDialogue, RtcDialogue)
VOICE = np.full(SAMPLES, 0.1, np.float32)
LOUD = np.full(WINDOW, 0.1, np.float32)
CYCLE = 8  # micro-turns: the user speaks in one, the model in three, and it asks for something now and then


class Stub:
    """In the engine's place: speaks in three of eight micro-turns, and hands something over in one of 48."""

    def __init__(self) -> None:
        self.slots, self.config, self.recompilations, self.turns = len(KINDS), small_config(), 0, {}

    def join(self, seed: int) -> int:
        slot = len(self.turns)
        self.turns[slot] = 0
        return slot

    def leave(self, slot: int) -> tuple:
        return ()

    def tick(self, inputs) -> Tick:
        turns = {}
        for slot in inputs:
            index, self.turns[slot] = self.turns[slot], self.turns[slot] + 1
            speaks = index % CYCLE in (3, 4, 5)
            spans = (Span(f"sum {index:076}"),) if index % 48 == 7 else ()
            gate, sound = ("SPEAK", VOICE) if speaks else ("LISTEN", np.zeros(SAMPLES, np.float32))
            text = f" word{index}" if speaks else ""
            mel = np.zeros((20, 80), np.float32)
            turns[slot] = MicroTurn(index, 0.2 * index, gate, text, "", mel, sound, 0.01, 7, 5, spans)
        return Tick(turns, (), 0.01)


class Caller:
    """A client of one kind that does what its kind does, for hours."""

    def __init__(self, kind, scheduler, number: int) -> None:
        self.turns, self.events, self.scheduler = [], 0, scheduler
        self.live = scheduler.join(self.turns.append, number, stamped=kind is DuplexDialogue)
        self.dialogue = kind(self.live, "small", small_config())
        self.last: MicroTurn | None = None

    def send(self, now: float, **event) -> None:
        self.events += len(self.dialogue.client(parse_event(json.dumps(event), self.dialogue.known), now))

    def speak(self, tick: int, now: float) -> None:
        sound = LOUD if tick % CYCLE == 0 else np.zeros(WINDOW, np.float32)
        if isinstance(self.dialogue, RtcDialogue):
            self.dialogue.hear(sound, 0, now)
            for _ in range(10):
                self.dialogue.play(480)
        elif isinstance(self.dialogue, DuplexDialogue):
            audio = base64.b64encode(to_pcm16(sound)).decode()
            self.send(now, type="duplex.input", offset=WINDOW * tick, audio=audio)
        else:
            self.dialogue._hear(sound, now)

    def hear(self, now: float) -> None:
        for turn in self.turns:
            self.events += len(self.dialogue.micro_turn(turn))
            assert self.last is None or turn.index == self.last.index + 1
            assert turn.start == pytest.approx(turn.index * MICRO_TURN_SECONDS)
            self.last = turn
            if isinstance(self.dialogue, DuplexDialogue) and turn.gate == "SPEAK":
                self.send(now, type="duplex.played", index=turn.index, samples=SAMPLES)
        self.turns.clear()


def reachable(*roots) -> tuple[int, int]:
    """Objects that are held by some, and bytes of the arrays among them."""
    skipped = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType)
    seen, left, size = set(), list(roots), 0
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, skipped):
            continue
        seen.add(id(thing))
        size += thing.nbytes if isinstance(thing, np.ndarray) else 0
        left += gc.get_referents(thing)
    return len(seen), size


@pytest.mark.slow
def test_what_sessions_keep_does_not_grow_with_hours(hours: int = 10):
    clock = types.SimpleNamespace(now=1e6)  # of a machine that has run for days
    metrics, runner = ServerMetrics(), Runner(NoBackend())
    runner.start()
    background = Background(runner, tokenizer(), small_config(), observe=metrics.observe_task)
    scheduler = Scheduler(Stub(), clock=lambda: clock.now, observe=metrics.observe, background=background)
    callers, kept, scheduled = [Caller(kind, scheduler, n) for n, kind in enumerate(KINDS)], [], clock.now
    for tick in range(hours * HOUR):
        clock.now = scheduled
        for caller in callers:
            caller.speak(tick, clock.now)
        scheduled = scheduler.run_tick(scheduled)
        for caller in callers:
            caller.hear(clock.now)
        if (tick + 1) % (HOUR // 2) == 0:
            labels = metrics.text(scheduler, 0).count(b"\n")
            sessions = [reachable(caller.live._buffer, caller.live.desk, caller.dialogue) for caller in callers]
            kept.append((*np.sum(sessions, axis=0), labels))
            objects, size, _ = kept[-1]
            print(f"{(tick + 1) / HOUR:g} h: {objects} objects, {size / 2**20:.1f} MiB of arrays", flush=True)
    runner.stop()
    early, late = np.asarray(kept[5]), np.asarray(kept[-1])  # what fills up is full after three hours
    assert (late <= 1.02 * early + 50).all(), kept
    for caller in callers:
        counts, turns = caller.live.counts, caller.last.index + 1
        assert hours * HOUR - 3 <= turns <= hours * HOUR and caller.events >= turns
        assert counts.heard >= WINDOW * (turns - 1) and counts.late == counts.dropped == counts.beyond == 0
        assert counts.missing <= WINDOW and caller.live._buffer.waiting <= 2 * WINDOW
    assert scheduler.late_ticks == scheduler.skipped_windows == 0
