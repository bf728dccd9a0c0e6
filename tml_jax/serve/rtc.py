"""One WebRTC call, by aiortc: sound as Opus both ways, pictures from the client, events over a data channel."""

import asyncio
import fractions
import logging
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription
from av import AudioFrame, VideoFrame

from tml_jax.config import MICRO_TURN_SECONDS, OUTPUT_RATE
from tml_jax.serve.connection import CLOSING_SECONDS, Gone
from tml_jax.serve.log import log_event
from tml_jax.serve.rtc_media import MOST_PIXELS, Came, take_over
from tml_jax.serve.rtc_sound import SoundIn
from tml_jax.serve.sound_formats import to_pcm16

CHANNEL = "oai-events"
_OPUS = "audio/opus"  # the others are of 8 kHz
_FRAME = OUTPUT_RATE // 50  # samples: 20 ms
_MOST_BEHIND = 0.5  # seconds after which a player that stood still goes on from now
_SETUP_SECONDS = 15.0  # for a client to open its data channel
_MOST_ADDRESSES = 50
# Frames of the client, and their bytes; a data channel cannot be held back.
_MOST_WAITING, _MOST_WAITING_BYTES = 500, 2**24
_MOST_BUFFERED = 2**18  # bytes to the client

_T = TypeVar("_T")
Hear = Callable[[np.ndarray, int], None]
Play = Callable[[int], np.ndarray]
See = Callable[[VideoFrame], Awaitable[None]]


class OfferError(ValueError):
    """The offer of a client cannot be answered."""


def check_offer(offer: str) -> None:
    """Makes sure that a client offers what a call is made of.

    Raises:
      OfferError: it is no SDP, or none of one line of sound with Opus, one of data, and perhaps one of video.
    """
    try:
        lines = SessionDescription.parse(offer).media
    except Exception as error:  # the parser fails in many ways
        raise OfferError(f"the body is no SDP ({error!r}): expected the offer of an RTCPeerConnection") from error
    kinds, addresses = sorted(line.kind for line in lines), sum(len(line.ice_candidates) for line in lines)
    if kinds not in (["application", "audio"], ["application", "audio", "video"]):
        expected = f"one track of sound, the data channel {CHANNEL!r}, and one track of video or none"
        raise OfferError(f"an offer of {kinds}: expected {expected}")
    codecs = [codec.mimeType for line in lines if line.kind == "audio" for codec in line.rtp.codecs]
    if _OPUS not in map(str.lower, codecs):
        raise OfferError(f"an offer of sound as {', '.join(codecs)[:200] or 'nothing'}: expected {_OPUS} among them")
    if addresses > _MOST_ADDRESSES:  # all of them are tried: nobody is to make this server knock at many doors
        raise OfferError(f"an offer with {addresses} addresses: expected at most {_MOST_ADDRESSES}")


class RtcTransport:
    """A `connection.Transport` over WebRTC, and the ways of its sound."""

    def __init__(self, hear: Hear, play: Play, see: See, came: Came, part: Callable[[], float]) -> None:
        """That is not connected; `answer` is next.

        Args:
          hear: given the user's sound, (n,) float32 at 16 kHz, and how many of its first were lost.
          play: asked for the next (count,) float32 at 24 kHz.
          see: given a frame of the user's video in each 200 ms, where there is a track of it.
          came: told of each packet of sound and video.
          part: of a core that decoding may take.
        """
        self._hear, self._play, self._see, self._came, self._part = hear, play, see, came, part
        # No servers for finding addresses: none is asked that the operator does not know of.
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._frames: asyncio.Queue[str | bytes] = asyncio.Queue()
        self._waiting = 0  # bytes of them
        self._channel: RTCDataChannel | None = None
        self._opened, self._over, self._read = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._listening: list[asyncio.Task] = []
        self._heard_at, self._why = time.monotonic(), "dropped"  # see `Gone`
        self._peer.on("datachannel", self._open)
        self._peer.on("track", self._listen)
        self._peer.on("connectionstatechange", self._changed)

    async def answer(self, offer: str) -> str:
        """Answers the offer of a client.

        Args:
          offer: SDP, as `check_offer` wants it.

        Returns:
          The answer, SDP with all addresses.

        Raises:
          OfferError: it cannot be answered, though `check_offer` found nothing.
        """
        try:
            self._peer.addTrack(_Voice(self._play))
            (sound,) = self._peer.getTransceivers()
            sound.setCodecPreferences(
                [c for c in RTCRtpReceiver.getCapabilities("audio").codecs if c.mimeType == _OPUS]
            )
            await self._peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
            for receiver in self._peer.getReceivers():
                take_over(receiver, self._came, self._part, lambda: self._end("bad_frame"))
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception as error:
            raise OfferError(f"the offer cannot be answered: {error!r}") from error
        return self._peer.localDescription.sdp

    def _open(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL or self._channel is not None:
            channel.close()
            return
        self._channel = channel
        channel.bufferedAmountLowThreshold = _MOST_BUFFERED // 2
        channel.on("message", self._message)
        channel.on("close", lambda: self._end("left"))
        channel.on("bufferedamountlow", self._read.set)
        self._opened.set()

    def _message(self, data: str | bytes) -> None:
        self._waiting += len(data)
        if self._frames.qsize() < _MOST_WAITING and self._waiting <= _MOST_WAITING_BYTES:
            self._frames.put_nowait(data)
        else:
            self._end("bad_frame")

    def _changed(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._end("left" if self._peer.connectionState == "closed" else "dropped")

    def _end(self, why: str) -> None:
        if not self._over.is_set():
            self._why = why
            self._over.set()

    def _listen(self, track: MediaStreamTrack) -> None:
        take = self._hear_track if track.kind == "audio" else self._see_track
        self._listening.append(asyncio.create_task(self._take(track, take)))

    async def _hear_track(self, track: MediaStreamTrack) -> None:
        sound = SoundIn()
        while True:
            frame = await track.recv()
            samples = frame.to_ndarray().reshape(frame.samples, -1).astype(np.float32).mean(axis=1) / 32768
            self._heard_at = time.monotonic()
            for piece in sound.take(samples, frame.pts):
                self._hear(*piece)

    async def _see_track(self, track: MediaStreamTrack) -> None:
        due = -math.inf
        while True:
            frame = await track.recv()
            self._heard_at = now = time.monotonic()
            if frame.width * frame.height > MOST_PIXELS:
                self._end("bad_frame")
                return
            if now >= due:
                due = max(due + MICRO_TURN_SECONDS, now)
                await self._see(frame)

    async def _take(self, track: MediaStreamTrack, take: Callable[[MediaStreamTrack], Awaitable[None]]) -> None:
        try:
            await take(track)
        except MediaStreamError:  # the client sends no more of it
            pass
        except Exception as error:
            log_event("connection_failed", logging.ERROR, error)
            self._end("dropped")

    async def receive(self, seconds: float) -> str | bytes:
        """See `Transport`; sound and video count as something that comes."""
        await self._first(self._opened.wait(), _SETUP_SECONDS, needed=True)
        while True:
            try:
                data = await self._first(self._frames.get(), seconds, needed=False)
            except TimeoutError:
                if time.monotonic() - self._heard_at >= seconds:
                    raise
                continue
            self._waiting -= len(data)
            return data

    async def _first(self, coming: Coroutine[Any, Any, _T], seconds: float, needed: bool) -> _T:
        """Waits for what comes, as long as the call lasts; `needed`: without it there is no call."""
        tasks = [asyncio.ensure_future(coming), asyncio.ensure_future(self._over.wait())]
        try:
            done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        if tasks[0] in done:
            return tasks[0].result()
        if done or needed:
            raise Gone(self._why)
        raise TimeoutError

    async def send(self, frame: str) -> None:
        """See `Transport`."""
        await self._opened.wait()
        while self._channel.bufferedAmount > _MOST_BUFFERED:
            self._read.clear()
            await self._read.wait()
        if self._channel.readyState != "open":
            raise ConnectionResetError("the data channel is closed")
        self._channel.send(frame)

    async def close(self, code: int, reason: str, last: str | None = None) -> None:
        """See `Transport`. WebRTC has no close codes: a client is told by the last frame, or not at all."""
        for listening in self._listening:
            listening.cancel()
        if last is not None and self._channel is not None and self._channel.readyState == "open":
            self._channel.send(last)
            await asyncio.sleep(0.1)  # a close does not wait for what is on its way
        try:
            await asyncio.wait_for(self._peer.close(), CLOSING_SECONDS)
        except TimeoutError:
            log_event("connection_failed", logging.WARNING, reason="a call over WebRTC did not close in time")


class _Voice(MediaStreamTrack):
    """The model's voice in real time, 20 ms a frame."""

    kind = "audio"

    def __init__(self, play: Play) -> None:
        super().__init__()
        self._play, self._count, self._began = play, 0, 0.0

    async def recv(self) -> AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if not self._count:  # the call is connected
            self._began = time.monotonic()
        wait = self._began + self._count / OUTPUT_RATE - time.monotonic()
        if wait < -_MOST_BEHIND:
            self._began -= wait
        await asyncio.sleep(max(0.0, wait))
        # Both channels, because what makes two of one would turn it down by 3 dB.
        frame = AudioFrame(format="s16", layout="stereo", samples=_FRAME)
        frame.planes[0].update(to_pcm16(np.repeat(self._play(_FRAME), 2)))
        frame.sample_rate, frame.time_base, frame.pts = OUTPUT_RATE, fractions.Fraction(1, OUTPUT_RATE), self._count
        self._count += _FRAME
        return frame
