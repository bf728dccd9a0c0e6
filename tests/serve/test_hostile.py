"""Whatever a client sends: a typed error or an answer, never a crash, and nobody else notices."""

import base64
import concurrent.futures
import contextlib
import json
import logging
import math
import multiprocessing
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest
from dialogue_client import Client
from hostile import hostile_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from served import DELAY, KEY, LIMIT, Served, allocated, receive, resident, send, wait_until
from small import small_config
from synthetic import tokenizer

from tml_jax.bench.batches import noise
from tml_jax.bench.clients import talk_at_once
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.serve import server as server_module
from tml_jax.serve.engine import Engine
from tml_jax.serve.heaps import SPARE, bound_heaps
from tml_jax.serve.program import LoadedModel
from tml_jax.serve.protocol import REALTIME, ProtocolError, parse_event
from tml_jax.serve.sound_formats import to_pcm16
from tml_jax.serve.windows import Arrived

SEED = 5
LATE = DELAY + 2 * MICRO_TURN_SECONDS  # seconds after its window that an answer is late: a tick was missed, or late
HOSTILE_CLIENTS = 4
WINDOW = 3200  # samples
AHEAD = 20  # windows that the steady client sends its sound early


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_a_dialogue_answers_whatever_it_is_sent_with_events_or_a_typed_error(seed, count):
    draw, client = random.Random(seed), Client()
    for _ in range(count):
        try:
            events = client.dialogue.client(parse_event(hostile_frame(draw), REALTIME), 0.0)
        except ProtocolError as error:
            events = [error.event()]
        for event in events:
            json.dumps(event)
        client.turn(draw.random() < 0.3, " a")


class InStep:
    """An engine that takes a steady client's window only once the server has it, however slow this machine is."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._slot, self._taken, self.there = engine, None, 0, 0

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def join(self, seed: int) -> int:
        slot = self._engine.join(seed)
        self._slot = slot if self._slot is None else self._slot  # the steady client is the first to come
        return slot

    def tick(self, inputs):
        tick = self._engine.tick(inputs)
        self._taken += self._slot in inputs
        wait_until(lambda: not self._taken or self.there > self._taken)
        return tick


class Steady:
    """Sends its sound early, and hears of each window that the server has it."""

    def __init__(self, socket, engine: InStep) -> None:
        self._socket, self._engine = socket, engine

    def say(self, index: int, sound: np.ndarray) -> None:
        audio = base64.b64encode(sound.tobytes()).decode()
        send(self._socket, type="duplex.input", offset=index * WINDOW, audio=audio)
        # Events are acted on in order, and of this one the client is told.
        send(self._socket, type="conversation.item.retrieve", item_id="none", event_id=str(index))

    def turn(self) -> dict:
        while True:
            event = json.loads(self._socket.recv(timeout=60))
            if event["type"] == "error":
                assert event["error"]["event_id"] == str(self._engine.there)
                self._engine.there += 1
            else:
                assert event["type"] == "duplex.micro_turn"
                return event


@pytest.fixture(scope="module")
def engine(small_variables):
    bound_heaps()  # as launch.serve does
    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), HOSTILE_CLIENTS + 2)
    engine.warm_up()
    return engine


@contextlib.contextmanager
def crowd_beside(url: str):
    """The hostile clients, in a process that begins with a line."""
    script = pathlib.Path(__file__).with_name("hostile_crowd.py")
    arguments = (url, KEY, str(HOSTILE_CLIENTS), str(LIMIT))
    command = [sys.executable, str(script), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def soak(engine: Engine, windows: int, monkeypatch, caplog) -> tuple[dict[str, int], list[tuple[int, int]], np.ndarray]:
    """Hostile clients beside two decent ones.

    A steady client has to hear, to the bit, what it would hear alone; on a machine too slow for that, the ticks wait
    for its sound. A bystander talks in real time, and every one of its windows has to be answered, in order.

    Returns:
      What the hostile clients did; bytes of memory (resident, allocated), seen ten times; seconds from each window of
      the bystander to its answer.
    """
    monkeypatch.setattr(server_module.secrets, "randbits", lambda bits: SEED)
    sound = 0.1 * np.random.default_rng(1).standard_normal((windows, WINDOW))
    sound = np.frombuffer(to_pcm16(sound.reshape(-1)), "<i2").reshape(windows, WINDOW)
    slot = engine.join(SEED)
    expected = []
    for part in sound:
        turn = engine.tick({slot: Arrived(part.astype(np.float32) / 32768)}).turns[slot]
        expected.append((turn.gate, turn.text, to_pcm16(turn.samples)))
    engine.leave(slot)

    memory, in_step = [], InStep(engine)
    with (
        caplog.at_level(logging.ERROR),
        Served(in_step, resume_seconds=0.2) as served,
        # A process of its own, which keeps all that it is told.
        concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        contextlib.ExitStack() as over,
    ):
        over.callback(setattr, in_step, "there", math.inf)  # nobody waits for a client that has gone
        url = f"ws://127.0.0.1:{served.port}/v1/realtime"
        with served.socket("?duplex=1") as socket:
            receive(socket, "session.created")
            steady = Steady(socket, in_step)
            bystander = pool.submit(talk_at_once, url, 1, windows - AHEAD, noise(), KEY)
            wait_until(lambda: served.scheduler.sessions == 2 or bystander.done())
            crowd = over.enter_context(crowd_beside(url))
            for index, part in enumerate(sound):
                if index == AHEAD:
                    crowd.stdin.write("go\n")
                    crowd.stdin.flush()
                if index >= AHEAD:
                    turn = steady.turn()
                    assert turn["input"]["missing"] == 0
                    heard = (turn["gate"], turn["text"], base64.b64decode(turn["audio"]))
                    assert (turn["index"], heard) == (index - AHEAD, expected[index - AHEAD])
                steady.say(index, part)
                if index % max(1, windows // 10) == 0:
                    memory.append((resident(), allocated()))
            in_step.there = math.inf
            [seen] = bystander.result()
            told = json.loads(crowd.communicate()[0])
        assert seen.index.tolist() == list(range(windows - AHEAD))
        assert served.get("/healthz")[0] == 200
        wait_until(lambda: served.scheduler.sessions == 0 and len(served.server.calls) == 0)
        assert engine.recompilations == 0
    # The client library complains too, of what these clients do to it.
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR and not r.name.startswith("websockets")]
    return told, memory, seen.arrived - MICRO_TURN_SECONDS * (seen.index + 1)


def test_a_crowd_of_hostile_clients_disturbs_nobody(engine, monkeypatch, caplog):
    soak(engine, AHEAD + 20, monkeypatch, caplog)


@pytest.mark.slow
def test_ten_minutes_of_hostile_clients_leave_nothing(engine, monkeypatch, caplog):
    told, memory, waits = soak(engine, 3000, monkeypatch, caplog)
    for what, sizes in zip(("resident", "allocated"), zip(*memory)):
        print(f"{what}: {', '.join(f'{size / 2**20:.0f}' for size in sizes)} MiB")
    print(f"ten minutes: {told['connections']} connections, {told['frames']} frames")
    late, (middle, most) = np.sum(waits > LATE), np.percentile(waits, (50, 99))
    print(f"beside them, in real time: {late} of {len(waits)} answers late, wait p50 {middle:.2f} s, p99 {most:.2f} s")
    resident_more, allocated_more = np.subtract(memory[-1], memory[2])
    assert allocated_more < 16 * 2**20
    assert resident_more < SPARE + 32 * 2**20  # freed memory is kept up to that much, and has holes
