"""Tasks on the page, in a real Chromium: a card for each, that says how it stands."""

import asyncio

import pytest
from chromium import start, until
from scripted import Line, ScriptedEngine
from small import small_config
from synthetic import tokenizer

from tml_jax.background.desk import Background, DeskOptions
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner
from tml_jax.background.tasks import Limits

pytestmark = pytest.mark.browser
PHONE = {"width": 360, "height": 740}

# Pixels of the picture's lowest part in the colours of tasks that run, are done, have failed.
BARS = """() => {
  const canvas = document.getElementById("timeline");
  const [wide, high] = [canvas.width, Math.round(canvas.height * 20 / canvas.clientHeight)];
  const { data } = canvas.getContext("2d").getImageData(0, canvas.height - high, wide, high);
  const style = getComputedStyle(document.documentElement);
  const counts = {};
  for (const name of ["mark", "model", "bad"]) {
    const hex = style.getPropertyValue(`--${name}`).trim();
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    counts[name] = 0;
    for (let at = 0; at < data.length; at += 4) {
      counts[name] += data[at] === red && data[at + 1] === green && data[at + 2] === blue && data[at + 3] === 255;
    }
  }
  return counts;
}"""


def test_tasks_are_cards_that_say_how_they_stand(visit, serve):
    """Four tasks: done, failing, cancelled, and one that runs on; their states change as the events say."""
    config, asks = small_config(), {3: "6 times 7", 5: "no such thing", 7: "timer 50 seconds", 9: "timer 49 seconds"}
    asks[20] = "#3 stop"

    def script(index, arrived) -> Line:
        return Line(tasks=(asks[index],) if index in asks else ())

    runner = Runner(LocalBackend(LocalTools()))
    runner.start()
    engine = ScriptedEngine(script)
    page = visit(serve(engine, Background(runner, tokenizer(), config)), viewport=PHONE)
    assert page.get_by_role("region", name="In the background").count() == 0
    start(page)
    cards = page.get_by_role("list", name="In the background").get_by_role("listitem")
    page.get_by_text("timer 50 seconds").wait_for()
    until(page, "document.querySelector('#tasks li:nth-child(3)').dataset.state === 'running'")
    until(page, "document.querySelector('#tasks li:nth-child(3)').dataset.state === 'cancelled'")
    until(page, "document.querySelector('#tasks li:nth-child(1) .found').textContent === '42'")
    assert [[line for line in text.split("\n") if line] for text in cards.all_inner_texts()] == [
        ["Task 1read", "6 times 7", "42"],
        ["Task 2failed", "no such thing", "nothing found"],
        ["Task 3cancelled", "timer 50 seconds"],
        ["Task 4running", "timer 49 seconds"],
    ]
    assert page.evaluate("document.getElementById('tasks').tabIndex") == 0  # so that keys can move it
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    bars = page.evaluate(BARS)
    assert bars["mark"] > 20 and bars["model"] > 0 and bars["bad"] > 0, bars
    runner.stop()


class Silent:
    """A background that never answers."""

    reads_turns = False

    async def run(self, package):
        await asyncio.Event().wait()
        yield ""

    async def close(self):
        pass


def test_cards_of_tasks_that_expire_say_so_and_a_refinement_that_is_refused_changes_none(visit, serve):
    asks = {3: "@1 late", 5: "slow", 10: "slower", 12: "#1 again", 13: "#7 more"}
    runner = Runner(Silent())
    runner.start()
    limits = DeskOptions(Limits(open=2))

    def script(index, arrived) -> Line:
        return Line(tasks=(asks[index],) if index in asks else ())

    page = visit(serve(ScriptedEngine(script), Background(runner, tokenizer(), small_config(), limits)))
    start(page)
    until(page, "document.querySelector('#tasks li:nth-child(1)')?.dataset.state === 'running'")
    until(page, "document.querySelector('#tasks li:nth-child(1)').dataset.state === 'expired'")
    until(page, "document.querySelector('#tasks li:nth-child(3)')?.dataset.state === 'running'")
    until(page, "observed.turns.length > 16")
    cards = page.get_by_role("list", name="In the background").get_by_role("listitem")
    assert [[line for line in text.split("\n") if line] for text in cards.all_inner_texts()] == [
        ["Task 1expired", "late", "late"],
        ["Task 2running", "slow"],
        ["Task 3running", "slower"],
    ]
    runner.stop()
