"""A network between a client and a server that can be cut, at any byte, or go silent."""

import asyncio
import contextlib


class Network:
    """Forwards bytes of connections to `127.0.0.1:port` of a server; runs in that server's loop."""

    def __init__(self, port: int) -> None:
        self.to, self.lines, self.silent = port, [], False
        self.left: int | None = None  # bytes to the client before the next cut

    async def open(self, port: int = 0) -> int:
        self.server = await asyncio.start_server(self._line, "127.0.0.1", port)
        return self.server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.server.close()
        self.cut()

    def cut(self) -> None:
        """Breaks every connection, as a network does: with no word in the protocol."""
        self.left = None
        for writer in self.lines:
            writer.transport.abort()
        self.lines = []

    async def _line(self, reader, writer) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.to)
        self.lines += [writer, far_writer]
        ways = self._forward(reader, far_writer, False), self._forward(far_reader, writer, True)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(*ways)

    async def _forward(self, reader, writer, counted: bool) -> None:
        while piece := await reader.read(65536):
            if self.silent:
                continue
            over = counted and self.left is not None and len(piece) >= self.left
            if over:
                piece = piece[: self.left]
            elif counted and self.left is not None:
                self.left -= len(piece)
            writer.write(piece)
            await writer.drain()
            if over:
                writer.transport.set_write_buffer_limits(0)
                await writer.drain()  # so that the part of a frame before the cut does arrive
                self.cut()
                return
        writer.close()
