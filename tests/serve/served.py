"""A server in this process on a real socket, and how tests speak to it."""

import asyncio
import ctypes
import gc
import json
import pathlib
import threading
import time
from collections.abc import Callable

from aiohttp import ClientSession
from websockets.sync.client import connect

from tml_jax.serve.listening import listen
from tml_jax.serve.metrics import ServerMetrics
from tml_jax.serve.scheduler import Scheduler
from tml_jax.serve.server import Server, ServerOptions

KEY = "the-key"
LIMIT = ServerOptions.max_message
DELAY = 0.5  # seconds, that a busy machine does not use up, so that no sound of a test is lost
SLOW = {"max_behind": 1e6, "late_in_a_row": 10**6}  # nor does it lose windows, or let nobody in


class Served:
    """A server in a thread of its own."""

    def __init__(self, engine, background=None, keys=(KEY,), overload=SLOW, **options) -> None:
        self.metrics = ServerMetrics()
        if background is not None:
            background.observe = self.metrics.observe_task
        observe = self.metrics.observe
        self.scheduler = Scheduler(engine, delay=DELAY, observe=observe, background=background, **overload)
        friends = ("https://friend.example",)
        self.options = ServerOptions(**{"model": "small", "api_keys": keys, "origins": friends} | options)
        self.server = Server(self.scheduler, self.metrics, self.options)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)

    def __enter__(self) -> "Served":
        self.scheduler.start()
        self.thread.start()
        self.port = self.call(self._start())
        return self

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    async def _start(self) -> int:
        self.listening = await listen(self.server.app(), self.server.timer, "127.0.0.1", 0)
        return self.listening.port

    def __exit__(self, *error) -> None:
        self.call(self.server.drain(0.0))
        self.call(self.listening.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.scheduler.stop()

    def socket(self, path: str = "?model=small", **options):
        headers = {"Authorization": f"Bearer {KEY}"} | options.pop("headers", {})
        url = f"ws://127.0.0.1:{self.port}/v1/realtime{path}"
        return connect(url, additional_headers=headers, proxy=None, max_size=None, **options)

    def get(self, path: str) -> tuple[int, str]:
        async def ask():
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                return answer.status, await answer.text()

        return self.call(ask())


def send(socket, **event) -> None:
    socket.send(json.dumps(event))


def type_in(socket, text: str) -> None:
    """Types something, which makes a session one that is held."""
    content = [{"type": "input_text", "text": text}]
    send(socket, type="conversation.item.create", item={"type": "message", "role": "user", "content": content})


def receive(socket, kind: str) -> dict:
    """The next event of a type; others are passed over."""
    while True:
        event = json.loads(socket.recv(timeout=60))
        if event["type"] == kind:
            return event


def wait_until(true: Callable[[], object]) -> None:
    """Waits for what another thread does."""
    while not true():
        time.sleep(0.01)


def threads() -> int:
    """Threads of this process but those of asyncio's own pool, which grows to its size with use."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def resident() -> int:
    """Bytes of memory that this process holds."""
    gc.collect()
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


class _MallInfo(ctypes.Structure):
    """Of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def allocated() -> int:
    """Bytes that the C library has handed out and not been given back, which is all but what it keeps to spare."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return info.uordblks + info.hblkhd
