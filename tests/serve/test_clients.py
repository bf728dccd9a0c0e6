"""Clients that people use, unmodified, each in a process of its own, hold a spoken session and do a task of the model.
README, "Clients"."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from companion import COUNTING, LOUD, Companion
from scripted import ScriptedEngine
from served import KEY, Served

from tml_jax.serve.dialogue import Dialogue

pytestmark = pytest.mark.clients
CLIENTS = pathlib.Path(__file__).parent / "clients"
PYTHON = os.environ.get("TML_CLIENTS_PYTHON", sys.executable)
NODE_MODULES = os.environ.get("TML_CLIENTS_NODE_MODULES", "node_modules")


def command(client: str) -> list[str]:
    """The command of a client; skips where it is not installed."""
    if client == "agents":
        package = pathlib.Path(NODE_MODULES, "@openai/agents/package.json")
        if shutil.which("node") is None or not package.is_file():
            pytest.skip(f"no node, or no {package}: npm install @openai/agents zod, set TML_CLIENTS_NODE_MODULES")
        return ["node", str(CLIENTS / "agents.cjs")]
    package = {"pipecat": "pipecat.services.openai", "livekit": "livekit.plugins.openai"}[client]
    if subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True).returncode:
        pytest.skip(f"{PYTHON} has no {package}: see the README, and set TML_CLIENTS_PYTHON")
    return [PYTHON, str(CLIENTS / f"{client}_call.py")]


class Recorder(Companion):
    """Keeps what it was given when its caller has left, too."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = []

    def __call__(self, index, arrived):
        self.arrived.append(arrived)
        return super().__call__(index, arrived)


@pytest.mark.parametrize("client", ["agents", "pipecat", "livekit"])
def test_a_real_client_writes_does_a_task_speaks_and_interrupts(client, monkeypatch, client_background):
    run, model, sent = command(client), Recorder(), []
    act = Dialogue.client
    monkeypatch.setattr(Dialogue, "client", lambda self, event, now: sent.append(event) or act(self, event, now))
    with Served(ScriptedEngine(model), client_background) as served:
        url = f"ws://127.0.0.1:{served.port}/v1/realtime"
        environment = {**os.environ, "NODE_PATH": NODE_MODULES, "PYTHONPATH": ""}
        done = subprocess.run([*run, url, KEY], capture_output=True, text=True, timeout=150, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        metrics = served.get("/metrics")[1]
    assert "tml_protocol_errors_total{" not in metrics
    assert 'tml_background_events_total{what="done"} 1.0' in metrics
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    assert seen["errors"] == [] and seen["interruptions"] >= 1

    first, told, *counted, last = seen["answers"]
    counted = " ".join(counted).split()
    assert (first, told, last) == ("you wrote hello", "I read #1. 7", "I am silent")
    assert seen["tasks"] == ["3 + 4"]
    assert 5 <= len(counted) < 20 and counted == "".join(COUNTING).split()[: len(counted)]
    assert seen["heard_ms"] >= 200 * (len(counted) + 3)

    assert [text.text for arrived in model.arrived for text in arrived.texts] == ["hello", "what is 3 + 4"]
    heard = np.concatenate([arrived.audio for arrived in model.arrived if arrived.audio is not None])
    spoken = heard[np.abs(heard) > LOUD]
    assert 1.0 < len(spoken) / 16_000 < 4.0
    assert abs(np.argmax(np.abs(np.fft.rfft(heard))) * 16_000 / len(heard) - 300) < 2  # the caller's tone

    cut = [event.fields for event in sent if event.type == "conversation.item.truncate"]
    assert cut and all(event["audio_end_ms"] >= 0 for event in cut)
