"""Calls over WebRTC, on real sockets: sound both ways, events, silence when the model yields, and the end."""

import asyncio
import contextlib
import fractions
import json
import os
import re
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from openai import OpenAI
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter
from scripted import SAMPLES, Line, ScriptedEngine
from served import KEY, Served, threads, wait_until

from tml_jax.data.record import USER

aiortc = pytest.importorskip("aiortc", reason="needs the webrtc extra")
from aiortc.rtp import is_rtcp  # noqa: E402
from av import AudioFrame, VideoFrame  # noqa: E402

SERVER_EVENT = TypeAdapter(RealtimeServerEvent)
RATE = 48_000
FRAME = RATE // 50


def tone(hertz: float, count: int, rate: int) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype(np.float32)


class Microphone(aiortc.MediaStreamTrack):
    """A tone in real time."""

    kind = "audio"

    def __init__(self, hertz: float) -> None:
        super().__init__()
        self.sound, self.count, self.began = tone(hertz, 60 * RATE, RATE), 0, time.monotonic()

    async def recv(self) -> AudioFrame:
        await asyncio.sleep(max(0.0, self.began + self.count / RATE - time.monotonic()))
        piece = self.sound[self.count : self.count + FRAME]
        both = np.repeat((piece * 32767).astype(np.int16), 2)
        frame = AudioFrame.from_ndarray(both[None], format="s16", layout="stereo")
        frame.sample_rate, frame.time_base, frame.pts = RATE, fractions.Fraction(1, RATE), self.count
        self.count += FRAME
        return frame


class Caller:
    """A client in a loop of the server's thread: what it is told, each after how many pieces of sound, and those."""

    def __init__(self, served: Served, hertz: float = 1000.0, camera: aiortc.VideoStreamTrack | None = None) -> None:
        self.served, self.hertz, self.camera, self.events, self.sound = served, hertz, camera, [], []
        self.after = []

    def __enter__(self) -> "Caller":
        self.status, self.location, self.answer = self.served.call(self._call())
        return self

    def __exit__(self, *error) -> None:
        self.served.call(self.peer.close())

    async def _call(self):
        self.peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.peer.addTrack(Microphone(self.hertz))
        if self.camera is not None:
            self.peer.addTrack(self.camera)
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("message", self._told)
        self.peer.on("track", lambda track: setattr(self, "ear", asyncio.ensure_future(self._hear(track))))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        status, headers, text = await self._post(self.peer.localDescription.sdp)
        if status == 201:
            await self.peer.setRemoteDescription(aiortc.RTCSessionDescription(text, "answer"))
        return status, headers.get("Location"), text

    def _told(self, data: str) -> None:
        self.events.append(json.loads(data))
        self.after.append(len(self.sound))

    async def _post(self, offer: str):
        return await asyncio.get_running_loop().run_in_executor(None, post, self.served, offer)

    async def _hear(self, track) -> None:
        with contextlib.suppress(aiortc.mediastreams.MediaStreamError):
            while True:
                frame = await track.recv()
                left = frame.to_ndarray().reshape(-1, 2)[:, 0].astype(np.float32) / 32768
                self.sound.append(left)

    def send(self, **event) -> None:
        self.served.loop.call_soon_threadsafe(self.channel.send, json.dumps(event))

    def of(self, kind: str) -> list[dict]:
        return [event for event in list(self.events) if event["type"] == kind]

    def heard(self) -> np.ndarray:
        return np.concatenate(list(self.sound) or [np.zeros(0, np.float32)])


def post(served: Served, body: str, kind: str = "application/sdp", path: str = "/v1/realtime/calls", key: str = KEY):
    headers = {"Content-Type": kind, "Authorization": f"Bearer {key}"}
    url = f"http://127.0.0.1:{served.port}{path}"
    request = urllib.request.Request(url, body.encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def pitch(sound: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * rate / len(sound))


def test_a_call_hears_speaks_tells_and_reads():
    spoken = tone(600, 5 * SAMPLES, 24_000).reshape(5, -1)

    def script(index, arrived) -> Line:
        return Line(spoken[index - 10], f" w{index}") if 10 <= index < 15 else Line()

    engine = ScriptedEngine(script)
    with Served(engine) as served, Caller(served) as caller:
        assert caller.status == 201 and caller.location.startswith("/v1/realtime/calls/rtc_")
        wait_until(lambda: caller.channel.readyState == "open")
        content = [{"type": "input_text", "text": "hello"}]
        caller.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
        wait_until(lambda: caller.of("output_audio_buffer.stopped"))
        for event in caller.events:
            parsed = SERVER_EVENT.validate_python(event, strict=False)
            assert parsed.type == event["type"] and not parsed.model_extra
        (done,) = caller.of("response.done")
        kinds = [event["type"] for event in caller.events]
        assert kinds[0] == "session.created" and "response.output_audio.delta" not in kinds
        for kind in ("started", "stopped"):
            (event,) = caller.of(f"output_audio_buffer.{kind}")
            assert event["response_id"] == done["response"]["id"]
        assert done["response"]["output"][0]["content"][0]["transcript"] == "w10 w11 w12 w13 w14"
        # The model has heard the microphone's tone, and read the text.
        windows = engine.arrived[0][6:16]
        assert not any(window.lost for window in windows)
        heard = np.concatenate([window.audio for window in windows])
        assert abs(pitch(heard, 16_000) - 1000) < 5 and 0.15 < np.std(heard) < 0.3
        assert [text.text for window in engine.arrived[0] for text in window.texts if text.speaker == USER] == ["hello"]
        # And the client the model's: a second of it, without a hole.
        sound = caller.heard()
        loud = np.flatnonzero(np.abs(sound) > 0.02)
        voice = sound[loud[0] : loud[-1]]
        assert 0.95 < len(voice) / RATE < 1.15 and abs(pitch(voice, RATE) - 600) < 5
        served.call(caller.peer.close())
        wait_until(lambda: served.scheduler.sessions == 0)


class Camera(aiortc.VideoStreamTrack):
    """30 pictures a second: red on the left and blue on the right, later the other way round."""

    def __init__(self, width: int = 320, height: int = 240) -> None:
        super().__init__()
        self.size, self.turned = (height, width), False

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        pixels = np.zeros((*self.size, 3), np.uint8)
        middle, left = self.size[1] // 2, 2 * self.turned
        pixels[:, :middle, left], pixels[:, middle:, 2 - left] = 255, 255
        frame = VideoFrame.from_ndarray(pixels, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def red_and_blue(frame: np.ndarray) -> tuple[int, int]:
    """The strongest channel on the left, and on the right."""
    half = frame.shape[1] // 2
    return tuple(int(np.argmax(side.mean(axis=(0, 1)))) for side in (frame[:, : half - 4], frame[:, half + 4 :]))


def test_what_a_camera_shows_is_seen_one_frame_in_each_window():
    engine, camera = ScriptedEngine(quiet), Camera()
    with Served(engine) as served, Caller(served, camera=camera) as caller:
        assert caller.status == 201
        wait_until(lambda: sum(bool(window.frames) for window in engine.arrived.get(0, [])) >= 8)
        camera.turned = True
        seen = lambda: [frame for window in engine.arrived[0] for _, frame in window.frames]  # noqa: E731
        wait_until(lambda: red_and_blue(seen()[-1]) == (2, 0))
        windows = engine.arrived[0]
        first = next(index for index, window in enumerate(windows) if window.frames)
        frames = seen()
    rows, columns = engine.config.data.video_grid
    assert {frame.shape for frame in frames} == {(40 * rows, 40 * columns, 3)} and frames[0].dtype == np.uint8
    assert red_and_blue(frames[0]) == (0, 2) and frames[0][:, :8, 0].mean() > 150
    assert max(len(window.frames) for window in windows) <= 2
    assert len(frames) <= len(windows) - first + 2  # and not all thirty a second


def test_a_video_that_is_too_large_ends_the_call():
    with Served(ScriptedEngine(quiet)) as served, Caller(served, camera=Camera(2560, 1440)) as caller:
        wait_until(lambda: caller.events)
        wait_until(lambda: served.scheduler.sessions == 0)


def quiet(index, arrived) -> Line:
    return Line()


def test_lost_packets_are_silence_in_their_place_and_nothing_else_is():
    engine = ScriptedEngine(quiet)
    with Served(engine) as served, Caller(served) as caller:
        wait_until(lambda: caller.events)
        line = caller.peer.getSenders()[0].transport
        real, sent = line._send_rtp, [0]

        async def lossy(packet: bytes) -> None:
            sent[0] += not is_rtcp(packet)  # reports go the same way
            if is_rtcp(packet) or sent[0] not in (100, 101, 200):
                await real(packet)

        line._send_rtp = lossy
        wait_until(lambda: sent[0] > 200)
        after = len(engine.arrived[0]) + 5  # what was sent is heard by then
        wait_until(lambda: len(engine.arrived[0]) >= after)
        windows, metrics = engine.arrived[0][2:], served.get("/metrics")[1]
    sound = np.concatenate([window.audio for window in windows])
    silent = np.convolve(np.abs(sound) < 0.002, np.ones(80), "same") > 60
    # A server that was held up makes up for it in quiet, such as that of a lost packet.
    made_up = float(re.search(r'input_samples_total\{what="dropped"\} (\S+)', metrics)[1])
    assert 0.8 < (silent.sum() + made_up) / (3 * 320) and silent.sum() / (3 * 320) < 1.2
    inside = np.convolve(silent, np.ones(41), "same") > 40
    around = np.convolve(silent, np.ones(41), "same") > 0
    lost = np.array([window.lost for window in windows])
    assert (lost >= inside.reshape(-1, 3200).any(axis=1)).all() and (lost <= around.reshape(-1, 3200).any(axis=1)).all()


def last_loud(caller: Caller) -> int:
    """Which piece was the last with the model's sound."""
    return max(index for index, piece in enumerate(list(caller.sound)) if np.abs(piece).max() > 0.02)


def seen(caller: Caller, kind: str) -> int:
    """After how many pieces of sound the first event of a kind has come."""
    wait_until(lambda: caller.of(kind))
    return next(after for after, event in zip(list(caller.after), caller.events) if event["type"] == kind)


def hear(caller: Caller, pieces: int) -> None:
    """Waits for so many more."""
    until = len(caller.sound) + pieces
    wait_until(lambda: len(caller.sound) >= until)


def test_a_voice_that_yields_is_silent_within_one_micro_turn():
    loud = np.full(SAMPLES, 0.3, np.float32) * np.where(np.arange(SAMPLES) % 48 < 24, 1, -1)
    engine = ScriptedEngine(lambda index, arrived: Line(loud) if 5 <= index < 15 else Line())
    with Served(engine) as served, Caller(served) as caller:
        yielded = seen(caller, "response.done")
        hear(caller, 60)
        assert last_loud(caller) < yielded + 50  # 100 ms of it are aiortc's, which is the client here


def test_a_client_that_asks_for_silence_gets_it_at_once():
    loud = np.full(SAMPLES, 0.3, np.float32) * np.where(np.arange(SAMPLES) % 48 < 24, 1, -1)
    engine = ScriptedEngine(lambda index, arrived: Line(loud) if index >= 5 else Line())
    with Served(engine) as served, Caller(served) as caller:
        seen(caller, "output_audio_buffer.started")
        hear(caller, 25)
        caller.send(type="response.cancel")
        caller.send(type="output_audio_buffer.clear")
        cleared = seen(caller, "output_audio_buffer.cleared")
        hear(caller, 75)  # the model goes on speaking
        assert cleared - 25 < last_loud(caller) < cleared + 50
        (done,) = caller.of("response.done")
        assert done["response"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
        assert caller.of("output_audio_buffer.cleared")[0]["response_id"] == done["response"]["id"]


def test_the_openai_client_makes_a_call_with_a_session_and_hangs_up():
    with Served(ScriptedEngine(quiet)) as served:
        client = OpenAI(api_key=KEY, base_url=f"http://127.0.0.1:{served.port}/v1")
        made = {}

        def create(served, offer):
            session = {"type": "realtime", "model": "small", "instructions": "Be kind."}
            answer = client.realtime.calls.with_raw_response.create(sdp=offer, session=session)
            made["path"] = answer.headers["location"]
            return answer.http_response.status_code, answer.headers, answer.http_response.text

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"{__name__}.post", create)
            with Caller(served) as caller:
                wait_until(lambda: caller.events)
                assert caller.events[0]["session"]["instructions"] == "Be kind."
                client.realtime.calls.hangup(made["path"].rsplit("/", 1)[1])
                wait_until(lambda: served.scheduler.sessions == 0)
                wait_until(lambda: caller.peer.connectionState == "closed")
        assert post(served, "", path=f"{made['path']}/hangup")[0] == 404
        assert "tml_sessions_cut_off_total{" not in served.get("/metrics")[1]  # its client has ended it


KNOCK = "a=candidate:1 1 udp 1 192.0.2.1 {} typ host\r\n"


async def offered(tracks: int = 1, channel: bool = True) -> str:
    """The offer of a client that has gone away."""
    peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
    for _ in range(tracks):
        peer.addTrack(Microphone(500))
    if channel:
        peer.createDataChannel("oai-events")
    await peer.setLocalDescription(await peer.createOffer())
    text = peer.localDescription.sdp
    await peer.close()
    return text


def code_of(answer: tuple) -> tuple[int, str]:
    status, _, text = answer
    return status, json.loads(text)["error"]["code"]


def test_who_may_not_call_and_what_is_no_offer_take_no_place(monkeypatch):
    with Served(ScriptedEngine(quiet)) as served:
        assert code_of(post(served, "", key="wrong")) == (401, "invalid_api_key")
        for body in ("", "v=0", "hello", "v=0\r\nm=audio x y z\r\n", "m=" * 1000):
            assert code_of(post(served, body)) == (400, "invalid_offer"), body
        for offer, reason in (
            (served.call(offered(tracks=2)), "one track of sound"),
            (served.call(offered(channel=False)), "data channel"),
            (served.call(offered()) + "".join(KNOCK.format(n) for n in range(50)), "addresses"),
            (served.call(offered()).replace("opus", "OPUS2"), "audio/opus"),
        ):
            answer = post(served, offer)
            assert code_of(answer) == (400, "invalid_offer") and reason in answer[2]
        assert code_of(post(served, "{}", kind="application/json")) == (400, "invalid_content_type")
        form = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n--x--\r\n'
        for name, value, code in (
            ("session", "{}", "missing_field"),
            ("sdp", "hello", "invalid_offer"),
        ):
            kind = "multipart/form-data; boundary=x"
            assert code_of(post(served, form.format(name, value), kind=kind)) == (400, code)
        with Caller(served) as caller:
            wait_until(lambda: caller.events)
            status, headers, text = post(served, caller.peer.localDescription.sdp)
            assert (status, headers["Retry-After"]) == (503, "5")
            assert json.loads(text)["error"]["queue_position"] == 1
        wait_until(lambda: served.scheduler.sessions == 0)
        monkeypatch.setattr("tml_jax.serve.rtc_calls.RtcTransport", None)
        monkeypatch.setattr("tml_jax.serve.rtc_calls._missing", "No module named 'aiortc'", raising=False)
        assert code_of(post(served, "")) == (501, "webrtc_not_installed")


def test_a_client_that_opens_no_channel_or_falls_silent_gives_its_place_away(monkeypatch):
    monkeypatch.setattr("tml_jax.serve.rtc._SETUP_SECONDS", 0.3)
    with Served(ScriptedEngine(quiet), idle_seconds=0.5) as served:
        assert post(served, served.call(offered()))[0] == 201
        wait_until(lambda: served.scheduler.sessions == 0)
        monkeypatch.setattr("tml_jax.serve.rtc._SETUP_SECONDS", 15.0)
        with Caller(served) as caller:
            wait_until(lambda: caller.events)
            time.sleep(1.0)
            assert served.scheduler.sessions == 1  # sound counts
            served.loop.call_soon_threadsafe(caller.peer.getSenders()[0].replaceTrack, None)
            wait_until(lambda: served.scheduler.sessions == 0)


def test_sound_is_opus_whatever_else_a_client_would_rather_send():
    with Served(ScriptedEngine(quiet)) as served:
        offer = served.call(offered())
        line = next(line for line in offer.splitlines() if line.startswith("m=audio"))
        head, payloads = line.split(" ")[:3], line.split(" ")[3:]
        assert len(payloads) > 2  # Opus is the first of them
        status, _, answer = post(served, offer.replace(line, " ".join([*head, *payloads[::-1]])))
        assert status == 201 and "opus" in answer and "PCM" not in answer and "G722" not in answer


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="counts open files as Linux shows them")
def test_calls_that_come_and_go_leave_nothing_behind():
    async def tasks() -> int:
        await asyncio.sleep(0.5)  # for connections that are just closing
        return len(asyncio.all_tasks())

    def come_and_go(count: int) -> tuple[int, int, int]:
        for number in range(count):
            with Caller(served) as caller:
                wait_until(lambda: caller.events)
                if number % 2:
                    assert post(served, "", path=f"{caller.location}/hangup")[0] == 200
            wait_until(lambda: served.scheduler.free)
        return served.call(tasks()), threads(), len(os.listdir("/proc/self/fd"))

    with Served(ScriptedEngine(quiet)) as served:
        before = come_and_go(4)
        after = come_and_go(10)  # some of the first ones' threads and sockets may have gone meanwhile
        assert all(now <= then for now, then in zip(after, before)), f"{before}, then {after}"


def test_what_is_wrong_in_an_event_is_said_and_the_call_goes_on_and_ends_with_the_server():
    with Served(ScriptedEngine(quiet)) as served, Caller(served) as caller:
        wait_until(lambda: caller.events)
        served.loop.call_soon_threadsafe(caller.channel.send, "{")
        served.loop.call_soon_threadsafe(caller.channel.send, b"\x00")
        caller.send(type="input_audio_buffer.append", audio="")
        wait_until(lambda: len(caller.of("error")) == 3)
        codes = [event["error"]["code"] for event in caller.of("error")]
        assert codes == ["invalid_json", "invalid_frame", "unknown_event"]
        served.call(served.server.drain(0.0))
        assert served.scheduler.sessions == 0
        wait_until(lambda: caller.peer.connectionState == "closed")
