"""A real Chromium with a recording for a microphone, and how tests drive the page in it."""

import pathlib
import shutil
import time
from typing import Any

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

    def __init__(self, engine, **options) -> None:
        super().__init__(engine, **options)
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
