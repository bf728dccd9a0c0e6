"""What takes long to decode holds up its own session and nobody else."""

import base64
import io
import struct
import threading
import zlib

import numpy as np
import pytest
from PIL import Image
from scripted import Line, ScriptedEngine
from served import Served, receive, send, wait_until
from small import small_config

from tml_jax.serve import dialogue as dialogue_module
from tml_jax.serve.dialogue import LONG_SOUND
from tml_jax.serve.pictures import image_frame
from tml_jax.serve.protocol import ProtocolError


def message(*content: dict, **fields) -> dict:
    return {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": content, **fields},
    }


def picture(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (0, 200, 0)).save(file, "PNG")
    return url_of(file.getvalue())


def url_of(raw: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(raw).decode()


def head_of(width: int, height: int) -> bytes:
    """A PNG of any size, without its pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + bytes(8))
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


class Held:
    """In the decoder's place: waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun, self.go, self.threads = threading.Event(), threading.Event(), []

    def __call__(self, url, config) -> np.ndarray:
        self.threads.append(threading.current_thread())
        self.begun.set()
        assert self.go.wait(60)
        return image_frame(url, config)


def test_a_picture_that_takes_long_holds_up_no_tick_and_no_other_client_and_keeps_its_place(monkeypatch):
    held = Held()
    monkeypatch.setattr(dialogue_module, "image_frame", held)
    engine = ScriptedEngine(lambda index, arrived: Line(), slots=2)
    with Served(engine) as served, served.socket() as slow, served.socket("?duplex=1") as other:
        send(slow, **message({"type": "input_text", "text": "before"}, id="1"))
        receive(slow, "conversation.item.done")
        send(slow, **message({"type": "input_image", "image_url": picture(8, 8)}, id="2"))
        send(slow, **message({"type": "input_text", "text": "after"}, id="3"))
        assert held.begun.wait(60)
        ticks = len(engine.arrived.get(0, []))
        send(other, **message({"type": "input_text", "text": "hello"}))
        for _ in range(3):  # the loop's clock and the ticks go on
            receive(other, "duplex.micro_turn")
        send(other, type="nonsense")
        receive(other, "error")
        wait_until(lambda: len(engine.arrived[0]) > ticks + 2)
        assert served.get("/healthz")[0] == 200
        assert not any(window.frames for window in engine.arrived.get(0, ()))
        assert not any(text.text == "after" for window in engine.arrived[0] for text in window.texts)
        held.go.set()
        assert [receive(slow, "conversation.item.done")["item"]["id"] for _ in range(2)] == ["2", "3"]
        wait_until(lambda: any(window.frames for window in engine.arrived.get(0, [])))
        assert held.threads[0] is not served.thread


def test_a_client_that_comes_back_while_its_picture_is_decoded_finds_it_not_arrived(monkeypatch):
    """The event is left to the new connection: neither lost nor twice."""
    held = Held()
    monkeypatch.setattr(dialogue_module, "image_frame", held)
    engine = ScriptedEngine(lambda index, arrived: Line())
    with Served(engine) as served, served.socket("?resumable=1") as first:
        created = receive(first, "session.created")
        shown = message({"type": "input_image", "image_url": picture(8, 8)}, id="shown")
        send(first, **shown, event_id="mine")
        assert held.begun.wait(60)
        token = created["session"]["resume"]["token"]
        with served.socket(f"?resume={token}&after={created['event_id']}") as second:
            assert receive(second, "session.resumed")["after"] is None
            held.go.set()
            send(second, **shown, event_id="mine")
            assert receive(second, "conversation.item.done")["item"]["id"] == "shown"
            wait_until(lambda: any(window.frames for window in engine.arrived.get(0, [])))
            send(second, type="response.cancel")
            assert receive(second, "error")["error"]["code"] == "response_cancel_not_active"  # and not: twice


def test_long_sound_is_decoded_beside_the_loop_in_its_order(monkeypatch):
    threads, real = [], dialogue_module.Decoder.decode

    def decode(self, text, last=False):
        threads.append(threading.current_thread())
        return real(self, text, last)

    monkeypatch.setattr(dialogue_module.Decoder, "decode", decode)
    engine = ScriptedEngine(lambda index, arrived: Line())
    ramp = np.linspace(-0.5, 0.5, 24_000 * 3)
    with Served(engine) as served, served.socket() as socket:
        for part in (ramp[:71_000], ramp[71_000:]):
            audio = base64.b64encode((part * 32767).astype("<i2").tobytes()).decode()
            send(socket, type="input_audio_buffer.append", audio=audio)
        wait_until(lambda: len(engine.arrived.get(0, [])) >= 14)
        heard = np.concatenate([window.audio for window in engine.arrived[0][:14]])
    assert threads[0] is not served.thread and threads[1] is served.thread
    np.testing.assert_allclose(heard[2000:-2000], np.linspace(-0.5, 0.5, 48_000)[2000 : len(heard) - 2000], atol=2e-3)


class HeldDecoder(dialogue_module.Decoder):
    """A decoder whose long pieces wait until the test lets them go on. Remembers which object decodes where."""

    begun, go, beside, at_once = threading.Event(), threading.Event(), [], []

    def decode(self, text, last=False):
        if len(text) > LONG_SOUND:
            self.beside.append(self)
            self.begun.set()
            assert self.go.wait(60)
        else:
            self.at_once.append(self)
        return super().decode(text, last)

    def copy(self):
        new = super().copy()
        new.__class__ = HeldDecoder
        return new


def test_a_client_that_comes_back_while_its_sound_is_decoded_shares_no_decoder_with_what_it_left(monkeypatch):
    """And what it left has no effect: the sound is heard once, without a seam, when it is sent again."""
    monkeypatch.setattr(dialogue_module, "Decoder", HeldDecoder)
    engine = ScriptedEngine(lambda index, arrived: Line())
    ramp = (np.linspace(-0.5, 0.5, 24_000 * 3) * 32767).astype("<i2")
    pieces = [base64.b64encode(part.tobytes()).decode() for part in np.split(ramp, [480, 960, 71_000])]
    with Served(engine) as served, served.socket("?resumable=1") as first:
        created = receive(first, "session.created")
        send(first, type="input_audio_buffer.append", audio=pieces[0])
        send(first, type="input_audio_buffer.append", audio=pieces[2])
        assert HeldDecoder.begun.wait(60)
        token = created["session"]["resume"]["token"]
        with served.socket(f"?resume={token}&after={created['event_id']}") as second:
            send(second, type="input_audio_buffer.append", audio=pieces[1])
            send(second, type="response.cancel")  # answered, though the thread is still at it
            receive(second, "error")
            send(second, type="input_audio_buffer.append", audio=pieces[2])
            assert served.get("/healthz")[0] == 200 and len(HeldDecoder.beside) == 1  # one at a time
            HeldDecoder.go.set()
            send(second, type="input_audio_buffer.append", audio=pieces[3])
            wait_until(lambda: len(engine.arrived.get(0, [])) >= 14)
            heard = np.concatenate([window.audio for window in engine.arrived[0][:14]])
            assert not set(map(id, HeldDecoder.beside)) & set(map(id, HeldDecoder.at_once[:2]))
    np.testing.assert_allclose(heard[2000:-2000], np.linspace(-0.5, 0.5, 48_000)[2000 : len(heard) - 2000], atol=2e-3)


def test_sound_that_cannot_be_decoded_beside_the_loop_is_an_error_and_what_follows_is_heard():
    engine = ScriptedEngine(lambda index, arrived: Line())
    tone = base64.b64encode(np.full(24_000, 8000, "<i2").tobytes()).decode()
    with Served(engine) as served, served.socket() as socket:
        send(socket, type="input_audio_buffer.append", audio="=" * (LONG_SOUND + 4))
        assert receive(socket, "error")["error"]["code"] == "invalid_input"
        send(socket, type="input_audio_buffer.append", audio=tone)
        wait_until(lambda: any(window.audio is not None for window in engine.arrived.get(0, [])))


@pytest.mark.parametrize(
    "url",
    [
        url_of(head_of(4097, 2160)),
        url_of(head_of(20_000, 20_000)),  # more than Pillow itself opens
        picture(64, 64)[:-60],
        "data:image/png;base64,AAAA",
        "data:image/png,AAAA",
        "https://example.org/picture.png",
    ],
    ids=["large", "huge", "torn", "none", "not base64", "elsewhere"],
)
def test_what_is_no_picture_or_too_large_is_a_typed_error(url):
    with pytest.raises(ProtocolError) as error:
        image_frame(url, small_config())
    assert error.value.code == "invalid_image"
