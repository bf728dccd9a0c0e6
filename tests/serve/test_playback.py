"""What was heard of the model: clients of ?duplex=1 say so, and the background and the metrics hold to it."""

import json

import numpy as np
import pytest
from dialogue_client import FakeLive
from scripted import SAMPLES, Line, ScriptedEngine
from served import Served, receive, send, wait_until
from small import small_config
from synthetic import tokenizer

from tml_jax.background.desk import Background
from tml_jax.background.runner import Runner
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.serve.duplex import DuplexDialogue
from tml_jax.serve.protocol import DUPLEX, ProtocolError, parse_event
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.words import MicroTurn

LOUD = np.full(SAMPLES, 0.25, np.float32)


class Watched:
    """A background that keeps what it is given, and knows no answer."""

    def __init__(self) -> None:
        self.packages = []

    async def run(self, package):
        self.packages.append(package)
        yield "nothing"

    async def close(self) -> None:
        """Nothing to end."""


@pytest.fixture
def background():
    backend = Watched()
    runner = Runner(backend)
    runner.start()
    yield backend, Background(runner, tokenizer(), small_config())
    runner.stop()


def said(package) -> list[tuple]:
    return [
        (turn.parts[0]["text"], len(turn.parts) > 1, round(turn.end - turn.start, 6))
        for turn in package.turns
        if turn.speaker == "assistant" and "input_audio" in [part["type"] for part in turn.parts]
    ]


def test_a_task_is_given_what_was_heard_and_the_server_measures_from_ear_to_voice(background):
    """The model says four words and yields; the client cuts the third off early and leaves the fourth out."""
    backend, desk = background

    def script(index, arrived) -> Line:
        if index < 4:
            return Line(LOUD, f" word{index}")
        return Line(tasks=("who is it",) if any(text.text == "go" for text in arrived.texts) else ())

    def words(text: str) -> dict:
        return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}

    with Served(ScriptedEngine(script), desk) as served:
        with served.socket("?duplex=1") as socket:
            send(socket, type="conversation.item.create", item=words("hello"))
            for index, samples in enumerate((SAMPLES, SAMPLES, 1000, 0)):
                assert receive(socket, "duplex.micro_turn")["index"] == index
                send(socket, type="duplex.played", index=index, samples=samples)
            send(socket, type="duplex.played", index=1, samples=0)  # a second time
            send(socket, type="duplex.played", index=99, samples=SAMPLES)  # never sent
            send(socket, type="conversation.item.create", item=words("go"))
            wait_until(lambda: backend.packages)
            metrics = served.get("/metrics")[1]
        (package,) = backend.packages
    assert said(package) == [("word0 word1", True, 0.6)]
    assert "word2" not in json.dumps(package.turns[0].parts) and "word3" not in str(package)
    assert "tml_ear_to_voice_seconds_count 3.0" in metrics
    total = float(metrics.split("tml_ear_to_voice_seconds_sum ")[1].split()[0])
    assert total / 3 > 0.25  # the server waits 0.5 s for sound here, and this client plays in no time


class Live(FakeLive):
    counts = None

    def heard_until(self, index):
        return 100.0 + 0.2 * (index + 1)


def dialogue_that_spoke(*gates: str) -> tuple[DuplexDialogue, list]:
    delays = []
    dialogue = DuplexDialogue(Live(), "small", small_config(), delays.append)
    mel = np.zeros((20, 80), np.float32)
    for index, gate in enumerate(gates):
        made = MicroTurn(index, 0.2 * index, gate, "", "", mel, LOUD, 0.0)
        dialogue._live.counts = made.spans  # nothing to count
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tml_jax.serve.duplex.dataclasses.asdict", lambda counts: {})
            dialogue.micro_turn(made)
    return dialogue, delays


def played(dialogue: DuplexDialogue, now: float, **fields) -> None:
    assert dialogue.client(parse_event(json.dumps({"type": "duplex.played", **fields}), DUPLEX), now) == []


def test_ear_to_voice_is_from_the_end_of_the_window_to_the_first_sample_played():
    dialogue, delays = dialogue_that_spoke("SPEAK", "SPEAK", "LISTEN")
    played(dialogue, 100.9, index=0, samples=4800)  # it began at 100.7, and its window ended at 100.2
    played(dialogue, 101.0, index=1, samples=1200)  # cut off after 50 ms
    played(dialogue, 101.0, index=2, samples=4800)  # silence
    played(dialogue, 101.0, index=1, samples=4800)
    played(dialogue, 101.0, index=-1, samples=0)
    assert delays == pytest.approx([0.5, 0.55]) and dialogue._live.unheard == [(0, 4800), (1, 1200)]
    for samples in (-1, 4801):
        with pytest.raises(ProtocolError) as error:
            played(dialogue, 101.0, index=0, samples=samples)
        assert (error.value.code, error.value.param) == ("invalid_value", "samples")


def test_what_a_client_never_speaks_of_takes_bounded_room(monkeypatch):
    monkeypatch.setattr("tml_jax.serve.duplex.MAX_UNPLAYED", 10)
    assert list(dialogue_that_spoke(*["SPEAK"] * 50)[0]._unplayed) == list(range(40, 50))


def test_a_window_ends_when_its_last_sound_could_have_come(background):
    now = [100.0]
    scheduler = Scheduler(ScriptedEngine(lambda index, arrived: Line()), delay=0.06, clock=lambda: now[0])
    session = scheduler.join(lambda turn: None, 1, stamped=False)
    session.hear(np.zeros(1600, np.float32), now[0])  # 100 ms, which began at 99.9
    assert session.heard_until(0) == pytest.approx(100.1)
    for _ in range(5):
        now[0] += MICRO_TURN_SECONDS
        scheduler.run_tick(now[0])
    assert session.heard_until(0) == pytest.approx(100.1) and session.heard_until(3) == pytest.approx(100.7)
