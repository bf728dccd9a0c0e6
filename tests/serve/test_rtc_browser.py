"""A call over WebRTC from a real Chromium with a fake microphone, by the browser's own RTCPeerConnection."""

import numpy as np
import pytest
from chromium import HERE, likeness, until
from scripted import SAMPLES, Line, ScriptedEngine
from served import KEY, wait_until

pytestmark = pytest.mark.browser
pytest.importorskip("aiortc", reason="needs the webrtc extra")
SPOKEN = range(8, 20)


def test_a_browser_calls_is_heard_hears_and_hears_nothing_more_when_the_model_yields(visit, spoken, serve):
    loud = np.full(SAMPLES, 0.3, np.float32) * np.where(np.arange(SAMPLES) % 48 < 24, 1, -1)
    engine = ScriptedEngine(lambda index, arrived: Line(loud, f" w{index}") if index in SPOKEN else Line())
    served = serve(engine)
    page = visit(served)
    status, location = page.evaluate((HERE / "rtc_page.js").read_text(), KEY)
    assert status == 201 and location.startswith("/v1/realtime/calls/rtc_")
    until(page, "call.events.some(({type}) => type === 'output_audio_buffer.stopped')")
    page.wait_for_timeout(500)
    events = {event["type"]: event for event in page.evaluate("call.events")}
    assert "session.created" in events and "error" not in events
    done = events["response.done"]
    assert done["response"]["output"][0]["content"][0]["transcript"] == " ".join(f"w{n}" for n in SPOKEN)

    # What the model heard is what the microphone gave, as Opus has it.
    windows = engine.arrived[0][10:20]
    assert not any(window.lost for window in windows)
    heard = np.concatenate([window.audio for window in windows])
    parts = [likeness(part, spoken[::3]) for part in heard.reshape(-1, 6400)]
    assert min(parts) > 0.5 and 0.5 < np.std(heard) / np.std(spoken) < 2, parts

    # The person hears the voice while it lasts, and no more of it once the model has yielded.
    loudness = [(at, peak) for at, peak in page.evaluate("call.heard") if peak > 0.05]
    first, last = loudness[0][0], loudness[-1][0]
    print("voice", last - first, "after the end", last - done["at"], "likeness", min(parts))
    assert 0.9 < (last - first) / (200 * len(SPOKEN)) < 1.15
    assert last - done["at"] < 1000  # how much Chromium holds back grows on a busy machine; a stall is test_rtc_sound's

    page.evaluate("call.peer.close()")
    wait_until(lambda: served.scheduler.sessions == 0)
