"""A real Chromium with a recording for a microphone, and how tests drive the page in it."""

import pathlib
import shutil
import time
from typing import Any

import numpy as np
from aiohttp import web
from served import KEY, Served

HERE = pathlib.Path(__file__).parent
FLAGS = """--no-sandbox --use-fake-device-for-media-stream --use-fake-ui-for-media-stream --disable-gpu --no-first-run
--disable-background-networking --disable-component-update --disable-sync --disable-audio-output"""
FAR = "far.example"  # a name of this machine that is not a local one, so that browsers trust it only with https


def launch(driver: Any, microphone: pathlib.Path) -> Any:
    """Starts the system's Chromium; `microphone` is a WAV file that it hears, again and again."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert found, "no chromium: apt-get install chromium"
    flags = [
        *FLAGS.split(),
        f"--use-file-for-fake-audio-capture={microphone}",
        f"--host-resolver-rules=MAP {FAR} 127.0.0.1",
    ]
    return driver.chromium.launch(executable_path=found, args=flags)


class Watched(Served):
    """A server that hands out the recorder, too; what the driver answers for a server does not reach worklets."""

    def __init__(self, engine, background=None, **options) -> None:
        super().__init__(engine, background, **options)
        make = self.server.app

        def app() -> web.Application:
            made = make()
            made.router.add_get("/recorder.js", lambda request: web.FileResponse(HERE / "page_recorder.js"))
            return made

        self.server.app = app


def open_page(context: Any, served: Served, host: str = "127.0.0.1") -> Any:
    """The page of a server, watched by `page_hooks.js`."""
    context.add_init_script(path=HERE / "page_hooks.js")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(f"http://{host}:{served.port}/")
    return page


def until(page: Any, true: str) -> None:
    """Waits for what happens in the page; the driver's own way to wait is against its Content-Security-Policy."""
    end = time.monotonic() + 30
    while not page.evaluate(true):
        assert time.monotonic() < end, f"{true}; problem: {page.locator('#problem').inner_text()}"
        page.wait_for_timeout(20)


def call(page: Any, headphones: bool = True) -> None:
    """Fills in the settings and begins."""
    page.get_by_text("Settings").click()
    page.get_by_label("API key").fill(KEY)
    page.get_by_label("I wear headphones").set_checked(headphones)
    page.get_by_text("Settings").click()
    page.get_by_role("button", name="Start talking").click()


def start(page: Any, headphones: bool = True) -> None:
    """Begins, and waits for the first micro-turn."""
    call(page, headphones)
    until(page, "observed.turns.length > 0")


def voice(seconds: float) -> np.ndarray:
    """Noise below 6 kHz that comes and goes, (n,) float32 at 48 kHz: no two places of it are alike."""
    count = int(48_000 * seconds)
    spectrum = np.fft.rfft(np.random.default_rng(1).standard_normal(count))
    spectrum[np.fft.rfftfreq(count, 1 / 48_000) > 6000] = 0
    sound = np.fft.irfft(spectrum, count) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(count) / 48_000))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def likeness(heard: np.ndarray, said: np.ndarray) -> float:
    """How much of a piece of sound is a filtered piece of another, wherever it is: 1 is all of it."""
    size = len(heard) + len(said)
    cross = np.fft.irfft(np.fft.rfft(said, size) * np.conj(np.fft.rfft(heard, size)), size)
    place = int(np.argmax(cross[: len(said)]))
    around = np.take(said, np.arange(place - 16, place + len(heard) + 16), mode="wrap")
    delayed = np.lib.stride_tricks.sliding_window_view(around, len(heard))  # (33, n): a filter of 33 samples
    filtered = delayed.T @ np.linalg.lstsq(delayed.T, heard, rcond=None)[0]
    return float(1 - np.sum((heard - filtered) ** 2) / np.sum(heard**2))
