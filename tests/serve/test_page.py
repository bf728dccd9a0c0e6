"""The page in a real Chromium, on a real server: what the model hears, what a person hears, sees and can reach."""

import time

import numpy as np
import pytest
from chromium import FAR, call, likeness, open_page, start, until
from cuts import Network
from scripted import SAMPLES, Line, ScriptedEngine
from served import wait_until

from tml_jax.data.record import USER
from tml_jax.serve.scheduler import Ended

pytestmark = pytest.mark.browser
PHONE = {"width": 360, "height": 740}


def listens(index, arrived) -> Line:
    return Line()


def test_the_model_hears_what_the_microphone_hears(visit, spoken, serve):
    engine = ScriptedEngine(listens)
    served = serve(engine)
    start(visit(served))
    # On a busy machine Chromium's own microphone stutters: of a hundred windows, twenty in a row have to be right.
    good, parts = [], []
    while len(good) < 20:
        place = 5 + 2 * len(parts)
        wait_until(lambda: len(engine.arrived[0]) >= place + 2)  # noqa: B023
        pair = engine.arrived[0][place : place + 2]
        part = np.concatenate([window.audio for window in pair])
        parts.append(likeness(part, spoken[::3]))
        good = [*good, *pair] if parts[-1] > 0.98 and not any(window.lost for window in pair) else []
        assert len(parts) < 50, np.round(parts, 2).tolist()
    assert 0.5 < np.std(np.concatenate([window.audio for window in good])) / np.std(spoken) < 2


def test_a_person_hears_what_the_model_says(visit, serve):
    rng = np.random.default_rng(2)
    sound = (rng.uniform(0.1, 0.3, (12, SAMPLES)) * rng.choice([-1, 1], (12, SAMPLES))).astype(np.float32)  # never 0
    words = [f" word{index}" for index in range(12)]

    def script(index, arrived) -> Line:
        place = index - 3
        return Line(sound[place], words[place], "") if 0 <= place < 12 else Line(display="done" if place == 12 else "")

    served = serve(ScriptedEngine(script))
    page = visit(served)
    start(page)
    page.locator("#state").get_by_text("Speaking").wait_for()
    until(page, "observed.turns.length > 18")
    played = np.concatenate([np.array(block["samples"]) for block in page.evaluate("observed.sound")])
    said, wrote = page.locator("#words li").all_inner_texts()
    # On a busy machine the last piece of sound may fade, and its word is not shown as said then.
    assert said in ["Model" + "".join(part).strip() for part in (words, words[:-1])] and wrote == "Model wrotedone"
    assert page.locator("#announced").inner_text() == "done"
    assert page.locator("#total").inner_text().endswith(" ms")
    expected = np.round(sound.ravel() * 32768) / 32768
    # All of it, once and in order. On a busy machine there may be silence between two pieces.
    heard = played[played != 0]
    assert len(heard) > 11 * SAMPLES
    same = max(11 * SAMPLES, len(heard) - 200)
    np.testing.assert_allclose(heard[:same], expected[:same], atol=1e-6)


def test_a_voice_that_yields_is_silent_within_one_micro_turn(visit, serve):
    """The page stands still meanwhile, so that the voice and its end come at once: most of it must not be heard."""
    loud, said, ends = np.full(SAMPLES, 0.25, np.float32), [], []

    def script(index, arrived) -> Line:
        if ends and time.monotonic() > ends[0]:
            return Line()
        said.append(f"word{index}.")
        return Line(loud, f" {said[-1]}")

    page = visit(serve(ScriptedEngine(script)))
    start(page)
    until(page, "observed.turns.length > 5")
    ends.append(time.monotonic() + 0.7)
    page.evaluate("() => { const end = performance.now() + 1600; while (performance.now() < end); }")
    until(page, "observed.turns.some(({gate}) => gate === 'LISTEN')")
    page.wait_for_timeout(900)
    yielded = page.evaluate("observed.turns.find(({gate}) => gate === 'LISTEN').at")
    blocks = page.evaluate("observed.sound.map(({at, samples}) => [at, Math.max(...samples.map(Math.abs))])")
    last = max(at for at, peak in blocks if peak > 0)
    assert yielded < last < yielded + 0.2
    assert blocks[-1][0] > yielded + 0.5
    words = page.locator("#words").inner_text()
    assert "word1. word2." in words and said[-1] not in words  # what was not heard is not shown as said


def test_what_is_typed_and_what_the_camera_sees_reach_the_model(visit, serve):
    engine = ScriptedEngine(listens)
    served = serve(engine)
    page = visit(served)
    start(page)
    page.get_by_role("button", name="Camera").click()
    page.get_by_label("Write to the model").fill("grüß dich 👋")
    page.keyboard.press("Enter")
    wait_until(lambda: any(window.texts for window in engine.arrived[0]))
    texts = [text for window in engine.arrived[0] for text in window.texts]
    assert [(text.speaker, text.text) for text in texts] == [(USER, "grüß dich 👋")]
    assert "grüß dich 👋" in page.locator("#words").inner_text()
    until(page, "document.getElementById('preview').videoWidth > 0")
    seen = len(engine.arrived[0])
    wait_until(lambda: len(engine.arrived[0]) >= seen + 6)
    frames = [frame for window in engine.arrived[0][seen:] for _, frame in window.frames]
    rows, columns = engine.config.data.video_grid
    assert len(frames) >= 4 and {frame.shape for frame in frames} == {(40 * rows, 40 * columns, 3)}
    assert all(frame.std() > 5 for frame in frames)  # Chromium's own camera shows a pattern
    page.get_by_role("button", name="Camera").click()
    assert page.locator("#preview").is_hidden()


def test_another_microphone_takes_its_place_in_time_and_a_muted_one_is_silence(visit, serve):
    engine = ScriptedEngine(listens)
    page = visit(serve(engine))
    start(page)
    page.get_by_text("Settings").click()
    page.get_by_label("I wear headphones").uncheck()  # opens it anew, which takes a while
    page.get_by_label("I wear headphones").check()
    seen = len(engine.arrived[0])
    wait_until(lambda: len(engine.arrived[0]) >= seen + 12)
    after = engine.arrived[0][seen + 8 :]
    assert all(window.audio.any() for window in after) and not any(window.lost for window in after)
    page.get_by_role("button", name="Mute").click()
    wait_until(lambda: not engine.arrived[0][-1].audio.any())
    seen = len(engine.arrived[0])
    wait_until(lambda: len(engine.arrived[0]) >= seen + 2)
    muted = engine.arrived[0][seen]
    assert not muted.audio.any() and not muted.lost


def test_sound_that_comes_late_again_and_again_is_moved_on_and_a_growing_lead_is_taken_back(visit, serve):
    page = visit(serve(ScriptedEngine(listens)))
    assert page.evaluate(STAMPS) == {"first": 0, "answer": 150, "hitch": 5760, "moved": 3 * 3200 + 1280, "lead": 3200}


STAMPS = """async () => {
  const { Stamps } = await import("/page/stamps.js");
  const stamps = new Stamps();
  const first = stamps.place(640, 0);
  for (let piece = 1; piece < 8; piece++) stamps.place(640, 40 * piece); // window 0 ends with the piece of 160 ms
  const answer = stamps.answered(0, 0, 310);
  stamps.answered(1, 600, 500); // late once
  stamps.place(640, 500);
  const hitch = stamps.place(0, 500);
  stamps.answered(1, 1200, 500);
  stamps.answered(2, 1800, 700); // and again
  const moved = stamps.place(640, 700);
  let index = 3;
  for (; index < 60; index++) { // 4,000 samples a micro-turn in place of 3,200
    for (let piece = 0; piece < 5; piece++) stamps.place(800, 200 * index + 40 * piece);
    stamps.answered(index, 1800, 200 * index + 200);
  }
  stamps.leads = Array(49).fill(7000);
  const end = (index + 1) * 3200;
  stamps.next = end + 6800;
  stamps.sent = [{ end: stamps.next, at: 0 }];
  stamps.answered(index, 1800, 0);
  return { first, answer, hitch, moved, lead: stamps.next - end };
}"""


def test_a_connection_that_breaks_or_stalls_comes_back_to_the_same_session(visit, serve):
    engine = ScriptedEngine(listens)
    served = serve(engine)
    network = Network(served.port)
    served.port = served.call(network.open())
    page = visit(served, gives_up=True)
    start(page)
    until(page, "observed.turns.length >= 5")
    served.loop.call_soon_threadsafe(network.cut)
    page.locator("#state").get_by_text("Connection lost").wait_for()
    page.locator("#state").get_by_text("Listening again").wait_for()
    assert page.get_by_label("Write to the model").is_enabled()
    seen = len(engine.arrived[0])
    network.silent = True
    page.get_by_label("Write to the model").fill("into the void")
    page.keyboard.press("Enter")
    page.locator("#state").get_by_text("Connection lost").wait_for()
    network.silent = False
    page.locator("#state").get_by_text("Listening again").wait_for()
    page.locator("#state").get_by_text("Listening", exact=True).wait_for()
    assert len(engine.arrived[0]) > seen + 20 and any(window.lost for window in engine.arrived[0][seen:])
    wait_until(lambda: len(engine.arrived[0]) % 10 == 0)
    assert all(window.audio.any() and not window.lost for window in engine.arrived[0][-5:])
    turns = page.evaluate("observed.turns.map(({index}) => index)")
    assert turns == list(range(len(turns)))
    assert [text.text for window in engine.arrived[0] for text in window.texts] == ["into the void"]
    served.call(network.close())


def test_a_session_that_is_gone_begins_anew(visit, serve):
    engine = ScriptedEngine(listens)
    page = visit(serve(engine))
    start(page)
    until(page, "observed.turns.length >= 5")
    page.evaluate("observed.sockets.at(-1).close()")
    page.locator("#state").get_by_text("Connection lost").wait_for()
    until(page, "observed.sockets.length > 1 && observed.turns.at(-1).index < 3")
    page.locator("#state").get_by_text("Listening").wait_for()
    wait_until(lambda: 0 in engine.arrived and len(engine.arrived[0]) >= 6)
    window = engine.arrived[0][5]
    assert window.audio is not None and window.audio.any() and not window.lost  # its time began anew


def test_a_broken_session_is_said_and_begun_anew_and_an_idle_one_is_not(visit, serve):
    served = serve(ScriptedEngine(listens))

    page = visit(served)
    start(page)
    for broken in served.scheduler._open:
        broken.deliver(Ended("not_finite"))
    page.get_by_text("the session is over: not_finite").wait_for()
    until(page, "observed.sockets.length > 1 && observed.turns.at(-1).index < 3")
    page.locator("#state").get_by_text("Listening").wait_for()
    assert page.locator("#problem").is_hidden()
    served.loop.call_soon_threadsafe(served.server.calls.close, 1008, "session_idle")
    page.get_by_text("your place went to others").wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("observed.sockets.length") == 2
    assert page.get_by_role("button", name="Start talking").is_enabled()


def test_sound_begins_once_the_server_is_there(browser, serve):
    engine = ScriptedEngine(listens)
    served = serve(engine)
    network = Network(served.port)
    served.port = port = served.call(network.open())
    context = browser.new_context(permissions=["microphone"])  # the browser complains of a server that is away
    page = open_page(context, served)
    served.call(network.close())
    call(page)
    page.get_by_text("The server cannot be reached. Sound begins once it can.").wait_for()
    served.call(network.open(port))
    page.locator("#state").get_by_text("Listening").wait_for()
    until(page, "observed.turns.length >= 5")
    assert any(window.audio is not None and window.audio.any() for window in engine.arrived[0])
    assert page.locator("#problem").is_hidden() and page.get_by_role("button", name="Mute").is_enabled()
    context.close()
    served.call(network.close())


def test_a_full_server_shows_the_place_in_line_and_lets_in_by_itself(visit, serve):
    served = serve(ScriptedEngine(listens))
    first, second = visit(served), visit(served)
    start(first)
    call(second)
    second.locator("#state").get_by_text("you are number 1 in line").wait_for()
    first.get_by_role("button", name="Stop").click()
    first.locator("#state").get_by_text("Not connected").wait_for()
    second.locator("#state").get_by_text("Listening").wait_for()
    assert second.locator("#problem").is_hidden()


REFUSE = """() => {
  navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("no", "NotAllowedError"); };
}"""


def test_what_goes_wrong_is_said_and_writing_still_works(visit, serve):
    engine = ScriptedEngine(listens)
    served = serve(engine)
    page = visit(served)
    page.evaluate(REFUSE)
    call(page)
    page.get_by_text("The microphone is not allowed").wait_for()
    page.get_by_label("Write to the model").fill("hello")
    page.keyboard.press("Enter")
    wait_until(lambda: engine.arrived.get(0))
    assert engine.arrived[0][0].audio is None and engine.arrived[0][0].texts[0].text == "hello"
    assert page.get_by_role("button", name="Mute").is_disabled()


HOLD = """() => {
  const make = AudioContext.prototype.createMediaStreamSource;
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    const source = make.call(this, stream);
    const connect = source.connect.bind(source);
    source.connect = (node) => { window.release = () => { connect(node); }; };
    return source;
  };
}"""


def test_what_is_written_before_the_first_sound_is_not_lost(visit, serve):
    engine = ScriptedEngine(listens)
    page = visit(serve(engine))
    page.evaluate(HOLD)
    call(page)
    until(page, "!!window.release")
    page.get_by_label("Write to the model").fill("hello")
    page.keyboard.press("Enter")
    until(page, "document.getElementById('words').innerText.includes('hello')")
    assert not engine.arrived.get(0)
    page.evaluate("window.release()")
    wait_until(lambda: any(window.texts for window in engine.arrived.get(0, [])))
    assert engine.arrived[0][0].audio is not None


def test_a_person_is_told_what_the_server_says_of_itself(visit, serve):
    page = visit(served := serve(ScriptedEngine(listens)))
    start(page)
    served.scheduler._open[0].passed = 5
    page.locator("#words").get_by_text("5 windows of 200 ms were not heard").wait_for()


def test_without_https_one_can_still_write_and_read(visit, serve):
    engine = ScriptedEngine(lambda index, arrived: Line(np.full(SAMPLES, 0.1, np.float32), f" word{index}"))
    page = visit(serve(engine), host=FAR)
    page.get_by_text("only on pages with https").wait_for()
    call(page)
    page.locator("#state").get_by_text("Listening").wait_for()
    page.get_by_label("Write to the model").fill("hello")
    page.keyboard.press("Enter")
    page.get_by_text("word0 word1").wait_for()
    assert engine.arrived[0][0].texts[0].text == "hello"


def test_a_wrong_key_is_said(browser, serve):
    served = serve(ScriptedEngine(listens))
    page = browser.new_page(permissions=["microphone"])
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.get_by_role("button", name="Start talking").click()
    page.get_by_text("The server asks for an API key").wait_for()
    assert page.locator("#state").inner_text() == "Stopped"
    assert page.get_by_role("button", name="Start talking").is_enabled()
    page.close()


def names(page) -> list[str]:
    """Roles of controls that have no name, as assistive technology sees the page."""
    return page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas, video, summary, [tabindex]")]
        .filter((e) => !(e.ariaLabel || e.labels?.length || e.textContent.trim() && e.matches("button, summary")
            || document.getElementById(e.getAttribute("aria-labelledby"))))
        .map((e) => e.outerHTML)"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_every_control_has_a_name(visit, tmp_path, scheme, serve):
    served = serve(ScriptedEngine(lambda index, arrived: Line(np.zeros(SAMPLES, np.float32), " and" * 9)))
    page = visit(served, viewport=PHONE, has_touch=True, color_scheme=scheme, reduced_motion="reduce")
    assert not names(page)
    start(page)
    until(page, "observed.turns.length > 5")
    page.screenshot(path=tmp_path / "phone.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    buttons = """[...document.querySelectorAll("button:not([hidden])")]"""
    small = buttons + ".filter((b) => b.getBoundingClientRect().height < 44)"
    assert page.evaluate(small + ".length") == 0
    for text in ("#state-text", "#words b", ".latency dt", "#call", "#problem"):
        assert page.evaluate(CONTRAST, text) >= 4.5, text


# WCAG's ratio between a text and what is behind it.
CONTRAST = """(selector) => {
  const element = document.querySelector(selector);
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (numbers(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const pair = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


def test_it_talks_with_a_model(engine, visit, serve):
    served = serve(engine)
    page = visit(served)
    start(page, headphones=False)
    until(page, "observed.turns.length > 8")
    assert page.locator("#answer").inner_text().endswith(" ms")
    assert page.locator("#state").inner_text() in ("Listening", "Speaking")
