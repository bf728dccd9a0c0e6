"""Whatever a client sends: a typed error or an answer, never a crash, and nobody else notices."""

import base64
import concurrent.futures
import contextlib
import json
import logging
import math
import random
import threading
import time

import numpy as np
import pytest
from dialogue_client import Client
from hostile import heavy_frames, hostile_frame
from hypothesis import given, settings
from hypothesis import strategies as st
from served import DELAY, KEY, LIMIT, Served, receive, resident, send, wait_until
from small import small_config
from synthetic import tokenizer
from websockets.exceptions import WebSocketException

from tml_jax.bench.batches import noise
from tml_jax.bench.clients import talk_at_once
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.serve import scheduler as scheduler_module
from tml_jax.serve import server as server_module
from tml_jax.serve.engine import Engine
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


class Hostile(threading.Thread):
    """A client that does everything wrong, one connection after another, until it is told to stop."""

    def __init__(self, served: Served, seed: int) -> None:
        super().__init__(daemon=True)
        self._served, self._draw, self.over = served, random.Random(seed), threading.Event()
        self.connections, self.frames = 0, 0

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._connection()
            except (WebSocketException, OSError, TimeoutError):
                pass  # thrown out, as it should be; or no place is free
            self.connections += 1

    def _connection(self) -> None:
        draw = self._draw
        with self._served.socket("?model=small" + draw.choice(("", "&duplex=1", "&resumable=1"))) as socket:
            if draw.random() < 0.3:
                self._take_over(socket)
            for _ in range(draw.randrange(60)):
                way = draw.randrange(40)
                if way == 0:
                    socket.send(draw.randbytes(1000))
                elif way == 1 and draw.random() < 0.05:
                    socket.send("x" * (LIMIT + 1))
                elif way == 2:
                    socket.socket.close()  # half open: no goodbye
                    return
                elif way == 3:
                    time.sleep(draw.random())  # reads nothing meanwhile
                elif way == 4:
                    socket.recv(timeout=1)
                elif way == 5:
                    socket.send(draw.choice(heavy_frames()))
                else:
                    socket.send(hostile_frame(draw))
                self.frames += 1
                if self.over.is_set():
                    return

    def _take_over(self, socket) -> None:
        """Comes back to a session while what was sent to it is decoded."""
        created = json.loads(socket.recv(timeout=5))
        resume = created.get("session", {}).get("resume")
        if resume is None:
            return
        for frame in heavy_frames():
            socket.send(frame)
        with self._served.socket(f"?resume={resume['token']}&after={created['event_id']}") as again:
            for _ in range(20):
                again.send(heavy_frames()[2])
            again.send(heavy_frames()[1])


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
    engine = Engine(LoadedModel(small_config(), tokenizer(), small_variables), HOSTILE_CLIENTS + 2)
    engine.warm_up()
    return engine


def soak(engine: Engine, windows: int, monkeypatch, caplog) -> tuple[list[Hostile], list[int], np.ndarray]:
    """Hostile clients beside two decent ones.

    A steady client has to hear, to the bit, what it would hear alone; on a machine too slow for that, the ticks wait
    for its sound. A bystander talks in real time, and every one of its windows has to be answered, in order.

    Returns:
      The hostile clients; memory, seen ten times; seconds from each window of the bystander to its answer.
    """
    monkeypatch.setattr(server_module.secrets, "randbits", lambda bits: SEED)
    monkeypatch.setattr(scheduler_module, "MAX_BEHIND", 1e6)  # a busy machine must not lose windows here,
    monkeypatch.setattr(scheduler_module, "OVERLOADED", 10**6)  # nor keep the crowd out
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
        concurrent.futures.ThreadPoolExecutor() as pool,
        contextlib.ExitStack() as over,
    ):
        over.callback(setattr, in_step, "there", math.inf)  # nobody waits for a client that has gone
        url = f"ws://127.0.0.1:{served.port}/v1/realtime"
        with served.socket("?duplex=1") as socket:
            receive(socket, "session.created")
            steady = Steady(socket, in_step)
            bystander = pool.submit(talk_at_once, url, 1, windows - AHEAD, noise(), KEY)
            wait_until(lambda: served.scheduler.sessions == 2 or bystander.done())
            clients = [Hostile(served, seed) for seed in range(HOSTILE_CLIENTS)]
            for index, part in enumerate(sound):
                if index == AHEAD:
                    for client in clients:
                        client.start()
                if index >= AHEAD:
                    turn = steady.turn()
                    assert turn["input"]["missing"] == 0
                    heard = (turn["gate"], turn["text"], base64.b64decode(turn["audio"]))
                    assert (turn["index"], heard) == (index - AHEAD, expected[index - AHEAD])
                steady.say(index, part)
                if index % max(1, windows // 10) == 0:
                    memory.append(resident())
            over.close()
            [seen] = bystander.result()
            wait_until(lambda: all(client.frames for client in clients))  # on a busy machine they come in slowly
            for client in clients:
                client.over.set()
            for client in clients:
                client.join(30)
        assert seen.index.tolist() == list(range(windows - AHEAD))
        assert served.get("/healthz")[0] == 200
        wait_until(lambda: served.scheduler.sessions == 0 and len(served.server.calls) == 0)
        assert engine.recompilations == 0
    # The client library complains too, of what these clients do to it.
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR and not r.name.startswith("websockets")]
    return clients, memory, seen.arrived - MICRO_TURN_SECONDS * (seen.index + 1)


def test_a_crowd_of_hostile_clients_disturbs_nobody(engine, monkeypatch, caplog):
    soak(engine, AHEAD + 20, monkeypatch, caplog)


@pytest.mark.slow
def test_ten_minutes_of_hostile_clients_leave_nothing(engine, monkeypatch, caplog):
    clients, memory, waits = soak(engine, 3000, monkeypatch, caplog)
    connections, frames = (sum(getattr(client, name) for client in clients) for name in ("connections", "frames"))
    megabytes = [f"{size / 2**20:.0f}" for size in memory]
    print(f"ten minutes: {connections} connections, {frames} frames, memory {', '.join(megabytes)} MiB")
    late, (middle, most) = np.sum(waits > LATE), np.percentile(waits, (50, 99))
    print(f"beside them, in real time: {late} of {len(waits)} answers late, wait p50 {middle:.2f} s, p99 {most:.2f} s")
    assert memory[-1] - memory[2] < 32 * 2**20
