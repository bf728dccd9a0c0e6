"""What tests of the server share: an engine that each finds empty, and a browser that visits servers."""

import contextlib

import numpy as np
import pytest
from chromium import Watched, launch, open_page, voice
from small import small_config
from synthetic import tokenizer

from tml_jax.background.backend import NoBackend
from tml_jax.background.desk import Background
from tml_jax.background.runner import Runner
from tml_jax.signal.media import write_wav


@pytest.fixture
def engine(warm_engine):
    yield warm_engine
    for slot in warm_engine.taken:
        warm_engine.leave(slot)


@pytest.fixture
def client_background():
    """Of a server whose clients do the tasks."""
    runner = Runner(NoBackend())
    runner.start()
    yield Background(runner, tokenizer(), small_config())
    runner.stop()


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    return voice(20.0)  # longer than any session: Chromium stumbles where it begins anew


@pytest.fixture(scope="module")
def browser(spoken, tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the browser extra")
    path = tmp_path_factory.mktemp("microphone") / "voice.wav"
    write_wav(path, spoken[None], 48_000)
    with playwright.sync_playwright() as driver:
        chromium = launch(driver, path)
        yield chromium
        chromium.close()


@pytest.fixture
def serve():
    """Starts a server of an engine, and perhaps a background; it ends after the browser has left."""
    with contextlib.ExitStack() as servers:
        yield lambda engine, *given, **options: servers.enter_context(Watched(engine, *given, **options))


@pytest.fixture
def visit(browser, serve):
    """Opens the page of a server. Whatever the browser complains about ends the test.

    It complains, too, when a page gives up a connection that nobody answers, which one that `gives_up` may do.
    """
    contexts, complaints = [], []

    def visited(served, host="127.0.0.1", gives_up=False, **options):
        def told(said):
            given_up = gives_up and "closed before the connection is established" in said.text
            if said.type in ("error", "warning") and not given_up:
                complaints.append(said.text)

        context = browser.new_context(permissions=["microphone", "camera"], **options)
        contexts.append(context)
        context.on("console", told)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return open_page(context, served, host)

    yield visited
    for context in contexts:
        context.close()
    assert not complaints
