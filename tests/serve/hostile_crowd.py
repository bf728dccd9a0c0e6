"""Clients that do everything wrong, in a process of their own: what they cost is none of the server's.

URL KEY CLIENTS LIMIT are its arguments, the last the most bytes of a message. They begin with a line on the input, and
stop when it ends, but not before each has sent something; then their counts are printed.
"""

import contextlib
import json
import logging
import random
import socket as sockets
import sys
import threading
import time

from hostile import heavy_frames, hostile_frame
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect


class Hostile(threading.Thread):
    """A client that does everything wrong, one connection after another, until it is told to stop."""

    def __init__(self, url: str, key: str, seed: int, limit: int) -> None:
        super().__init__(daemon=True)
        self._url, self._key, self._limit, self._draw = url, key, limit, random.Random(seed)
        self.over, self.connections, self.frames = threading.Event(), 0, 0

    def run(self) -> None:
        while not self.over.is_set():
            try:
                self._connection()
            except (WebSocketException, OSError, TimeoutError):
                pass  # thrown out, as it should be; or no place is free
            self.connections += 1

    def _socket(self, query: str) -> ClientConnection:
        headers = {"Authorization": f"Bearer {self._key}"}
        return connect(self._url + query, additional_headers=headers, proxy=None, max_size=None)

    def _connection(self) -> None:
        draw = self._draw
        with contextlib.ExitStack() as goodbye:
            query = "?model=small" + draw.choice(("", "&duplex=1", "&resumable=1"))
            socket = goodbye.enter_context(self._socket(query))
            if draw.random() < 0.3:
                self._take_over(socket)
            for _ in range(draw.randrange(60)):
                way = draw.randrange(40)
                if way == 0:
                    socket.send(draw.randbytes(1000))
                elif way == 1 and draw.random() < 0.05:
                    socket.send("x" * (self._limit + 1))
                elif way == 2:
                    if draw.random() < 0.1:  # half open: it is silent from now on, and waits for nothing
                        socket.socket.close()
                        goodbye.pop_all()
                    else:
                        socket.socket.shutdown(sockets.SHUT_RDWR)
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

    def _take_over(self, socket: ClientConnection) -> None:
        """Comes back to a session while what was sent to it is decoded."""
        created = json.loads(socket.recv(timeout=5))
        resume = created.get("session", {}).get("resume")
        if resume is None:
            return
        for frame in heavy_frames():
            socket.send(frame)
        with self._socket(f"?resume={resume['token']}&after={created['event_id']}") as again:
            for _ in range(20):
                again.send(heavy_frames()[2])
            again.send(heavy_frames()[1])


def main(url: str, key: str, count: str, limit: str) -> None:
    """Disturbs a server as long as the input lasts."""
    logging.getLogger("websockets").setLevel(logging.CRITICAL)  # it complains of what these clients do to it
    clients = [Hostile(url, key, seed, int(limit)) for seed in range(int(count))]
    heavy_frames()
    sys.stdin.readline()
    for client in clients:
        client.start()
    sys.stdin.read()
    while not all(client.frames for client in clients):  # on a busy machine they come in slowly
        time.sleep(0.01)
    for client in clients:
        client.over.set()
    for client in clients:
        client.join(30)
    print(json.dumps({name: sum(getattr(client, name) for client in clients) for name in ("connections", "frames")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
