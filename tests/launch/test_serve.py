"""The command: a server from a checkpoint, and its end."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from small import SMALL, small_config
from trained_run import make_run
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tml_jax.tokens import Control

DEPLOY = pathlib.Path(__file__).parents[2] / "launch/deploy"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, small_variables):
    return make_run(tmp_path_factory.mktemp("serve") / "run", small_config(), small_variables)


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.serve", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_server_of_a_checkpoint_talks_until_it_is_told_to_end(run_folder):
    flags = [f"--checkpoint={run_folder}", "--port=0", "--sessions=3", "--drain_seconds=0.2", "--log_format=json"]
    with start(*flags) as server:
        try:
            lines = []
            for line in server.stdout:
                lines.append(line)
                if line.startswith("listening at"):
                    break
            assert lines and "for 3 sessions" in lines[-1], server.stderr.read()[-3000:]
            url = re.search(r"ws://\S+", lines[-1])[0]
            with connect(url, proxy=None) as client:
                assert '"session.created"' in client.recv(timeout=60)
                server.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosed) as closed:
                    while True:
                        client.recv(timeout=60)
            assert closed.value.rcvd.code == 1001
            assert server.wait(60) == 0, server.stderr.read()[-3000:]
            logged = [json.loads(line) for line in server.stderr if line.startswith("{")]
            events = [line["event"] for line in logged if line["event"] not in ("log", "tick_late")]
            assert events == ["listening", "session_opened", "drain_began", "session_cut_off", "drain_ended"]
            assert "ending: 1 sessions have 0.2 s" in server.stdout.read()
        finally:
            server.kill()


@pytest.mark.slow
def test_with_a_background_the_model_may_hand_over_tasks(tmp_path, small_variables):
    """Weights that make the model say DELEGATE whenever it may, and so tasks without a text."""
    variables = jax.tree.map(jnp.copy, small_variables)
    said = SMALL.text_vocab_size + jnp.asarray([Control.DELEGATE, Control.END])
    variables["params"]["unembedding"] = variables["params"]["unembedding"].at[:, said].multiply(8)
    run = make_run(tmp_path / "run", small_config(), variables)
    flags = [f"--checkpoint={run}", "--port=0", "--sessions=3", "--drain_seconds=0.1", "--background=local"]
    with start(*flags) as server:
        try:
            line = next((line for line in server.stdout if line.startswith("listening at")), None)
            assert line, server.stderr.read()[-3000:]
            with connect(re.search(r"ws://\S+", line)[0] + "?duplex=1", proxy=None) as client:
                content = [{"type": "input_text", "text": "red box"}]
                item = {"type": "message", "role": "user", "content": content}
                client.send(json.dumps({"type": "conversation.item.create", "item": item}))
                happened = []
                while not happened:
                    happened = json.loads(client.recv(timeout=60)).get("tasks")
                assert happened[0]["what"] in ("asked", "malformed")
            server.send_signal(signal.SIGTERM)
            assert server.wait(60) == 0, server.stderr.read()[-3000:]
        finally:
            server.kill()


def test_what_is_wrong_is_said_in_one_line(run_folder, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags, expected in (
            ([f"--checkpoint={tmp_path / 'none'}"], "no such folder"),
            ([f"--checkpoint={run_folder}", "--sessions=3", f"--port={port}"], "address already in use"),
        ):
            with start(*flags) as server:
                assert server.wait(120) == 1
                last = server.stderr.read().strip().splitlines()[-1]
                assert last.startswith("launch.serve: ") and expected in last.lower()


def test_what_is_deployed_fits_together():
    cluster, proxy = ((DEPLOY / name).read_text() for name in ("kubernetes.yaml", "haproxy.cfg"))
    helped = subprocess.run([sys.executable, "-m", "launch.serve", "--help"], capture_output=True, text=True).stdout
    for flag in re.findall(r"- --(\w+)=", cluster):
        assert re.search(rf"^ +--(\[no\])?{flag}:", helped, re.MULTILINE), flag
    servers = re.findall(r"server (\S+) .\$\{(\w+)-", proxy)
    engines = re.findall(r"name: (ENGINE_\d), value: .(\S+?)\.engines\.", cluster)
    assert sorted(servers) == sorted(2 * [(pod, name) for name, pod in engines])
    replicas, stateful = re.search(
        r"kind: StatefulSet\n.*?name: (\S+)\n.*?replicas: (\d)", cluster, re.DOTALL
    ).groups()[::-1]
    assert [pod for _, pod in engines] == [f"{stateful}-{index}" for index in range(int(replicas))]
