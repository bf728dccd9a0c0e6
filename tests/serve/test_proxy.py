"""Two engines in processes of their own behind a real HAProxy with the configuration of `launch/deploy`."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket as sockets
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from served import receive, type_in, wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

pytestmark = pytest.mark.proxy
HERE = pathlib.Path(__file__).parent
CONFIGURATION = HERE.parents[1] / "launch/deploy/haproxy.cfg"
SLOTS = 2


class Engine:
    """A process that serves."""

    def __init__(self, name: str, drain_seconds: float) -> None:
        command = [sys.executable, str(HERE / "engine_process.py"), name, str(SLOTS), str(drain_seconds)]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        self.name, self.process = name, subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)

    def wait(self) -> "Engine":
        line = self.process.stdout.readline()
        assert line.startswith("listening at ws://127.0.0.1:"), line
        self.port = int(line.split("/v1")[0].rsplit(":", 1)[1])
        return self


class House:
    """Engines and the proxy before them."""

    def __init__(self, engines: list[Engine], port: int, counts: int) -> None:
        self.engines, self.port, self.counts = {engine.name: engine for engine in engines}, port, counts

    def dial(self, query: str = "?resumable=1", port: int | None = None):
        return connect(f"ws://127.0.0.1:{port or self.port}/v1/realtime{query}", proxy=None)

    def enter(self, query: str = "?resumable=1", port: int | None = None) -> "Guest":
        return Guest(self.dial(query, port))

    def ready(self) -> float | None:
        """How many engines the proxy takes for ready; None before it has begun."""
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.counts}/metrics") as answer:
            return float(re.search(r'haproxy_backend_active_servers{proxy="engines"} (\S+)', answer.read().decode())[1])

    def status(self, path: str, port: int | None = None) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.port}{path}", timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


class Guest:
    """A client with a session."""

    def __init__(self, socket) -> None:
        self.socket, self.created = socket, receive(socket, "session.created")
        self.token = self.created["session"]["resume"]["token"]
        self.engine = self.token.partition(".")[0]

    def speak(self) -> None:
        """Opens a response and hears who answers."""
        self.socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": "AAAA" * 1600}))
        assert receive(self.socket, "response.output_audio_transcript.delta")["delta"].strip() == self.engine

    def resume(self, house: House):
        """Loses its connection without a goodbye and comes back."""
        with contextlib.suppress(OSError):
            self.socket.socket.shutdown(sockets.SHUT_RDWR)
        return house.dial(f"?resume={self.token}&after={self.created['event_id']}")


@pytest.fixture
def house():
    if shutil.which("haproxy") is None:
        pytest.skip("no haproxy: apt-get install haproxy")
    with contextlib.ExitStack() as ended:
        engines = [Engine(name, drain_seconds=20.0) for name in ("engine-0", "engine-1")]
        for engine in engines:
            ended.callback(engine.process.wait)
            ended.callback(engine.process.kill)
        with sockets.create_server(("127.0.0.1", 0)) as free, sockets.create_server(("127.0.0.1", 0)) as other:
            port, counts = free.getsockname()[1], other.getsockname()[1]
        addresses = {"LISTEN": f"127.0.0.1:{port}", "METRICS": f"127.0.0.1:{counts}"}
        for index, engine in enumerate(engines):
            addresses[f"ENGINE_{index}"] = f"127.0.0.1:{engine.wait().port}"
        environment = dict(os.environ, **addresses)
        proxy = subprocess.Popen(["haproxy", "-db", "-f", CONFIGURATION], stderr=subprocess.DEVNULL, env=environment)
        ended.callback(proxy.wait)
        ended.callback(proxy.kill)
        house = House(engines, port, counts)
        wait_until(lambda: house.ready() == 2)
        yield house


def test_sessions_are_spread_and_stay_and_one_too_many_waits_in_the_line_of_an_engine(house):
    guests = [house.enter() for _ in range(2 * SLOTS)]
    assert sorted(guest.engine for guest in guests) == ["engine-0", "engine-0", "engine-1", "engine-1"]
    for guest in guests:
        guest.speak()
    wait_until(lambda: house.ready() == 0)

    def refused(query: str, port: int | None = None) -> dict:
        with house.dial(query, port) as socket:
            return receive(socket, "error")["error"]

    error = refused("?resumable=1")
    assert error["code"] == "server_full" and error["queue_position"] == 1
    ticket = error["ticket"]
    home = ticket.partition(".")[0]
    for _ in range(4):
        assert refused(f"?ticket={ticket}")["queue_position"] == 1
    for name, engine in house.engines.items():  # the engine that gave it keeps its place, the other has not seen it
        assert refused("", engine.port)["queue_position"] == (2 if name == home else 1)
    left = next(guest for guest in guests if guest.engine == home)
    left.socket.close()
    came = house.enter(f"?resumable=1&ticket={ticket}")
    assert came.engine == left.engine
    assert house.status("/") == 200 == house.status("/healthz")
    assert house.status("/metrics") == 404 == house.status("/readyz")
    assert house.status("/metrics", house.engines["engine-0"].port) == 200


def test_a_full_engine_is_passed_over_at_once(house):
    for full, other in (("engine-0", "engine-1"), ("engine-1", "engine-0")):
        port = house.engines[full].port
        inside = [house.enter(port=port) for _ in range(SLOTS)]  # the proxy knows nothing of these
        guests = [house.enter() for _ in range(SLOTS)]
        assert {guest.engine for guest in guests} == {other}
        for guest in inside + guests:
            guest.socket.close()
        wait_until(lambda: house.ready() == 2)


def test_who_was_cut_off_comes_back_to_the_engine_that_holds_the_session(house):
    for home in house.engines:
        guests = [house.enter() for _ in range(2 * SLOTS)]
        for guest in guests:
            if guest.engine != home:  # with fewer connections it is where nobody in particular would be sent
                guest.socket.close()
        for guest in [guest for guest in guests if guest.engine == home]:
            type_in(guest.socket, "hello")  # a session in which nothing was said is not held
            receive(guest.socket, "conversation.item.done")
            guest.socket = guest.resume(house)
            receive(guest.socket, "session.resumed")
            guest.speak()
        for guest in guests:
            guest.socket.close()
        wait_until(lambda: house.ready() == 2)
    with house.dial("?resume=engine-9.token&after=event_1") as socket:
        assert receive(socket, "error")["error"]["code"] == "resume_unknown"


def test_an_engine_that_drains_gets_nobody_and_keeps_whom_it_has(house):
    guests = [house.enter(), house.enter()]
    going, staying = guests
    engine = house.engines[going.engine]
    engine.process.send_signal(signal.SIGTERM)
    wait_until(lambda: house.status("/healthz", engine.port) == 503)
    newcomer = house.enter()
    assert newcomer.engine == staying.engine != going.engine
    for guest in (going, staying, newcomer):
        guest.speak()
    going.socket.close()
    assert engine.process.wait(20) == 0  # as soon as its last session has ended


def test_an_engine_that_dies_is_left_out_and_its_clients_begin_anew(house):
    guests = [house.enter(), house.enter()]
    gone, staying = guests
    house.engines[gone.engine].process.kill()
    with pytest.raises(ConnectionClosed):
        while True:
            gone.socket.recv(timeout=60)
    with gone.resume(house) as socket:
        assert receive(socket, "error")["error"]["code"] == "resume_unknown"
    assert house.enter().engine == staying.engine
    staying.speak()
