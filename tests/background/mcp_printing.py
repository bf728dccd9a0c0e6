"""The server of `mcp_server.py`, which prints where only messages may stand."""

import threading

from mcp_server import server


def chatter() -> None:
    for _ in range(1000):
        print("hello", flush=True)


if __name__ == "__main__":
    threading.Thread(target=chatter, daemon=True).start()
    server.run()
