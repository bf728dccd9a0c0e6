"""A client that floods a call over WebRTC fills no memory, and is cut off; what it may send is decoded in order."""

import asyncio
import threading
from types import SimpleNamespace

import pytest
from scripted import Line, ScriptedEngine
from served import Served, receive, type_in, wait_until

pytest.importorskip("aiortc", reason="needs the webrtc extra")
import aiortc.rtcrtpreceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtpPacket
from test_rtc import Caller, Camera, quiet

from tml_jax.serve.limits import Limits
from tml_jax.serve.rtc_media import MOST_BYTES, MOST_FRAMES, MOST_PIXELS, Undecoded, is_whole, pixels, share

VP8 = SimpleNamespace(name="VP8")


def vp8(whole: bool, width: int = 320, height: int = 240, rest: int = 0) -> bytes:
    """The head of a frame, and some more bytes."""
    head = b"\x10\0\0\x9d\x01\x2a" + width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return (head if whole else b"\x11\0\0") + bytes(rest)


@pytest.fixture
def video():
    """A queue whose loop runs, and what it has asked for."""
    loop, asked = asyncio.new_event_loop(), []
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield Undecoded("video", lambda: 1.0, lambda: asked.append("whole"), lambda: asked.append("end"), loop), asked
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def put(queue: Undecoded, *frames: bytes) -> None:
    for number, data in enumerate(frames):
        queue.put((VP8, JitterFrame(data, number)))


def test_frames_that_can_be_decoded_come_out_in_order_and_the_end_comes_at_once(video):
    queue, asked = video
    put(queue, vp8(True), vp8(False, rest=1), vp8(False, rest=2))
    assert [len(queue.get()[1].data) for _ in range(2)] == [10, 4]
    queue.put(None)
    assert queue.get() is None and len(queue) == queue.size == 0 and asked == []


def test_a_flood_keeps_little_and_goes_on_with_the_next_whole_picture(video):
    queue, asked = video
    put(queue, vp8(True), *[vp8(False)] * 1000)
    assert len(queue) == MOST_FRAMES["video"] and queue.dropped == 1001 - len(queue) and asked == ["whole"]
    queue.get()
    put(queue, vp8(False, rest=5))  # there is room, but it refers to what was dropped
    assert len(queue) == MOST_FRAMES["video"] - 1
    put(queue, vp8(False))  # still torn
    put(queue, vp8(True), vp8(False, rest=6))
    assert [len(queue.get()[1].data) for _ in range(2)][-1] in (3, 10)
    put(queue, *[vp8(True, rest=100)] * 1000)  # whole ones alone: what waits gives way
    assert 0 < len(queue) <= MOST_FRAMES["video"]


def test_the_end_does_not_wait_for_a_loop_that_waits_for_it(video, monkeypatch):
    """aiortc joins the decoder's thread in its loop."""
    monkeypatch.setattr("tml_jax.serve.rtc_media._LOOP_SECONDS", 600.0)
    queue, _ = video
    put(queue, vp8(True), vp8(False))
    queue.get()
    thread, ended = threading.Thread(target=queue.get), threading.Event()

    def end() -> None:
        thread.start()
        queue.put(None)
        thread.join(30)
        ended.set()

    queue._loop.call_soon_threadsafe(end)
    assert ended.wait(60) and not thread.is_alive()


def test_large_frames_are_bounded_by_their_bytes(video):
    queue, _ = video
    put(queue, *[vp8(True, rest=MOST_BYTES // 3)] * 10, vp8(True, rest=2 * MOST_BYTES))
    assert queue.size <= MOST_BYTES


def test_a_picture_that_is_too_large_ends_the_call_before_it_is_decoded(video):
    queue, asked = video
    put(queue, vp8(True, 16_383, 16_383))
    assert asked == ["end"] and len(queue) == 0
    assert pixels("VP8", vp8(True, 1920, 1080)) == MOST_PIXELS and pixels("VP8", b"\x10") == pixels("H264", b"") == 0


def test_whole_pictures_are_known_and_all_decoders_together_leave_cores_to_others(monkeypatch):
    assert is_whole("VP8", vp8(True)) and not is_whole("VP8", vp8(False)) and not is_whole("VP8", b"")
    assert is_whole("H264", b"\0\0\0\1\x67ab\0\0\0\1\x65cd") and not is_whole("H264", b"\0\0\0\1\x41ab\0\0\1")
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert [share(calls) for calls in (0, 1, 2, 10)] == [0.5, 0.5, 0.5, 0.1]


class Stuck:
    """A decoder that decodes nothing before it is let."""

    over = threading.Event()

    def decode(self, frame) -> list:
        self.over.wait(60)
        return []


def test_a_flood_of_video_that_is_not_decoded_fills_nothing_and_others_go_on(monkeypatch):
    real = aiortc.rtcrtpreceiver.get_decoder
    monkeypatch.setattr(aiortc.rtcrtpreceiver, "get_decoder", lambda c: Stuck() if c.name == "VP8" else real(c))
    monkeypatch.setattr(Stuck, "over", threading.Event())
    engine = ScriptedEngine(quiet, slots=2)
    with Served(engine) as served, served.socket("?duplex=1") as other, Caller(served, camera=Camera()) as caller:
        receive(other, "session.created")
        type_in(other, "hello")
        wait_until(lambda: caller.events)
        line = next(sender for sender in caller.peer.getSenders() if sender.kind == "video").transport
        (connection, _), *_ = served.server._rtc._running.values()
        receivers = connection._transport._peer.getReceivers()
        (waiting,) = [r._RTCRtpReceiver__decoder_queue for r in receivers if r.track.kind == "video"]
        wait_until(lambda: packets(line))
        served.call(flood(line, 2000))
        for _ in range(10):
            receive(other, "duplex.micro_turn")
        assert len(waiting) <= MOST_FRAMES["video"] and waiting.dropped > 100 and served.scheduler.sessions == 2
        Stuck.over.set()


def packets(line) -> list[bytes]:
    """Packets that a transport sends, from now on."""
    if not hasattr(line, "seen"):
        line.seen, line.real = [], line._send_rtp

        async def send(packet: bytes) -> None:
            line.seen.append(packet)
            await line.real(packet)

        line._send_rtp = send
    return [packet for packet in line.seen if packet[1] & 127 == 97 and len(packet) > 12]


async def flood(line, frames: int) -> None:
    """Sends the last packet of video again and again, each time as another frame."""
    last = RtpPacket.parse(packets(line)[-1])
    for number in range(1, frames + 1):
        last.sequence_number, last.timestamp, last.marker = (last.sequence_number + 1) % 2**16, last.timestamp + 3000, 1
        await line.real(last.serialize())
        if number % 50 == 0:
            await asyncio.sleep(0.01)


def test_packets_count_to_what_a_client_may_send():
    with Served(ScriptedEngine(lambda index, arrived: Line()), limits=Limits(events_per_second=5.0)) as served:
        with Caller(served) as caller:  # 50 a second, and 50 may come at once
            wait_until(lambda: caller.of("error"))
            assert caller.of("error")[0]["error"]["code"] == "rate_limit_exceeded"
            wait_until(lambda: served.scheduler.sessions == 0)
