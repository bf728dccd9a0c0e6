"""What a client's sound and video over WebRTC may take of the server: little, whatever it sends.

aiortc decodes each track in a thread, from a queue without an end into another one. So a client that sends more than
can be decoded would fill the memory, and its frames would be seen later and later. Here little waits: what comes on top
is dropped, of video until the next whole picture, which the client is asked for. A decoder rests in between, so that
ticks keep their cores, and never runs ahead of the loop. Every packet counts to what the client may send (`limits`).
"""

import asyncio
import collections
import logging
import os
import threading
import time
import typing
from collections.abc import Callable

from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtpPacket
from av.frame import Frame

from tml_jax.serve.log import log_event

MOST_PIXELS = 1920 * 1080  # of a frame of a video track: all of its frames are decoded
MOST_FRAMES = {"audio": 100, "video": 30}  # that wait to be decoded
MOST_BYTES = 4 * 2**20  # of them
_MOST_DECODED = 2  # pictures that wait to be seen
_ASK_SECONDS = 1.0  # between two requests for a whole picture
_LOOP_SECONDS = 1.0  # that a decoder waits for a loop that is busy
_SHARE = 0.5  # of a core that one decoder may take, and of all cores for all of them

Encoded = tuple[typing.Any, JitterFrame]  # aiortc's: the codec, and a frame of it


class Came(typing.Protocol):
    """Told the bytes of each packet; says whether the client may send it."""

    def __call__(self, size: int) -> bool:
        """See above."""


def share(calls: int) -> float:
    """Which part of a core the decoder of one of so many calls may take."""
    return min(_SHARE, _SHARE * (os.cpu_count() or 1) / max(1, calls))


def take_over(receiver: RTCRtpReceiver, came: Came, part: Callable[[], float], too_large: Callable[[], None]) -> None:
    """Bounds what a receiver holds; before it starts.

    Args:
      receiver: of a track.
      came: see `Came`.
      part: of a core that its decoder may take.
      too_large: called for a picture of more than `MOST_PIXELS`, where that is known before it is decoded.
    """
    kind, names = receiver.track.kind, [f"_RTCRtpReceiver__{name}" for name in ("jitter_buffer", "decoder_queue")]
    if not all(hasattr(receiver, name) for name in names):  # they have no public ones
        reason = "this version of aiortc hides its buffers elsewhere: what a call sends is not bounded"
        log_event("webrtc_unbounded", logging.WARNING, reason=reason)
        return
    buffer, queue = names
    setattr(receiver, buffer, _Counted(_Straight() if kind == "audio" else getattr(receiver, buffer), came))
    broken = getattr(receiver, "_RTCRtpReceiver__decoder_error", threading.Event())
    setattr(receiver, queue, Undecoded(kind, part, broken.set, too_large, asyncio.get_running_loop()))
    if kind == "video":
        _keep_newest(receiver.track._queue)


class _Counted:
    """Around one of aiortc's buffers for packets."""

    def __init__(self, buffer: typing.Any, came: Came) -> None:
        self._buffer, self._came = buffer, came

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        return self._buffer.add(packet) if self._came(len(packet.payload)) else (False, None)


class _Straight:
    """In place of aiortc's buffer for packets of sound that come out of order: each is decoded as it comes.

    That buffer holds 80 ms back, and 300 ms from the first packet on that is lost, of which it loses four more (aiortc
    issue 543). A session has a buffer of its own, which knows when a window must be taken.
    """

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame]:
        return False, JitterFrame(packet._data, packet.timestamp)


class Undecoded:
    """In place of aiortc's queue from a receiver to its decoder: `put` is called in the loop, `get` in a thread."""

    def __init__(
        self,
        kind: str,
        part: Callable[[], float],
        ask: Callable[[], None],
        too_large: Callable[[], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """With nothing yet.

        Args:
          kind: `audio` or `video`.
          part: of a core that the decoder may take.
          ask: asks the client for a whole picture.
          too_large: see `take_over`.
          loop: that `put` is called in.
        """
        self._video, self._most = kind == "video", MOST_FRAMES[kind]
        self._part, self._ask, self._too_large, self._loop = part, ask, too_large, loop
        self._change, self._passed = threading.Condition(), False  # whether the loop has come round since
        self._waiting: collections.deque[Encoded] = collections.deque()
        self._torn, self._over, self._asked, self._handed = False, False, -_ASK_SECONDS, None
        self.size, self.dropped = 0, 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, task: Encoded | None) -> None:
        """Takes in a frame, or drops it; None is the end, at once."""
        with self._change:
            if task is None:
                self._over = True
                self._clear()
            elif not self._over:
                self._take(task)
            self._change.notify()

    def _take(self, task: Encoded) -> None:
        data = task[1].data
        whole = self._video and is_whole(task[0].name, data)
        if whole and pixels(task[0].name, data) > MOST_PIXELS:
            self.dropped += 1
            self._too_large()
            return
        full = len(self._waiting) >= self._most or self.size + len(data) > MOST_BYTES
        if whole and full:  # what waits is of no use any more
            self._clear()
            full = len(data) > MOST_BYTES
        self._torn &= not whole
        if full or self._torn:
            self.dropped += 1
            if self._video:
                self._torn = True
                if time.monotonic() - self._asked >= _ASK_SECONDS:
                    self._asked = time.monotonic()
                    self._ask()
            return
        self._waiting.append(task)
        self.size += len(data)

    def _clear(self) -> None:
        self.dropped += len(self._waiting)
        self._waiting.clear()
        self.size = 0

    def get(self) -> Encoded | None:
        """The next frame to decode, after a rest; None at the end."""
        if self._handed is not None and not self._rested(time.monotonic() - self._handed):
            return None
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._over)
            if self._over:
                return None
            task = self._waiting.popleft()
            self.size -= len(task[1].data)
        self._handed = time.monotonic()
        return task

    def _rested(self, worked: float) -> bool:
        """Waits until the loop has what was decoded, and then in proportion to the time that took; false at the end,
        for which the loop waits."""
        self._passed = False
        try:
            self._loop.call_soon_threadsafe(self._come_round)
        except RuntimeError:  # the loop is closed
            return False
        with self._change:
            self._change.wait_for(lambda: self._passed or self._over, _LOOP_SECONDS)
            return not self._change.wait_for(lambda: self._over, worked * (1 / self._part() - 1))

    def _come_round(self) -> None:
        with self._change:
            self._passed = True
            self._change.notify()


def is_whole(codec: str, data: bytes) -> bool:
    """Whether an encoded frame can be decoded without those before it. Of codecs that are not known every one can."""
    if codec == "VP8":
        return bool(data) and not data[0] & 1
    if codec == "H264":  # a unit of a picture that refers to none (5), after its start code
        return any(unit and unit[0] & 31 == 5 for unit in data.split(b"\0\0\1")[1:])
    return True


def pixels(codec: str, data: bytes) -> int:
    """Of a whole frame, where its head says so (VP8, RFC 6386, 9.1); otherwise 0."""
    if codec != "VP8" or len(data) < 10 or data[3:6] != b"\x9d\x01\x2a":
        return 0
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width * height


def _keep_newest(queue: asyncio.Queue) -> None:
    """Has aiortc's queue of decoded pictures, which somebody may wait at already, hold the newest alone."""

    async def put(frame: Frame | None) -> None:
        while queue.qsize() >= _MOST_DECODED:
            queue.get_nowait()
        queue.put_nowait(frame)

    queue.put = put
