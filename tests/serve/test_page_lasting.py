"""The page over a long time, in a real Chromium: what it says of what it played, tasks, coming back to the server."""

import asyncio

import numpy as np
import pytest
from chromium import call, open_page, start, until
from cuts import Network
from scripted import SAMPLES, Line, ScriptedEngine
from served import receive, wait_until
from small import small_config
from synthetic import tokenizer

from tml_jax.background.desk import Background
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner, RunnerOptions
from tml_jax.serve.limits import Limits
from tml_jax.serve.scheduler import LiveSession

pytestmark = pytest.mark.browser
SPOKEN = range(3, 13)


@pytest.mark.parametrize("stands_still", [False, True], ids=["plays all", "is cut off"])
def test_the_server_is_told_what_was_played_of_each_micro_turn(visit, serve, monkeypatch, stands_still):
    """A page that stood still cuts off what has piled up when the model yields: most of it is never heard."""
    told = []
    monkeypatch.setattr(LiveSession, "played", lambda self, index, samples: told.append((index, samples)))
    loud = np.full(SAMPLES, 0.25, np.float32)
    served = serve(ScriptedEngine(lambda index, arrived: Line(loud, f" word{index}") if index in SPOKEN else Line()))
    page = visit(served)
    start(page)
    if stands_still:
        until(page, "observed.turns.length > 6")
        page.evaluate("() => { const end = performance.now() + 1600; while (performance.now() < end); }")
    until(page, "observed.turns.length > 14")
    wait_until(lambda: len(told) == len(SPOKEN))
    page.wait_for_timeout(500)
    assert sorted(index for index, _ in told) == list(SPOKEN)
    heard = page.evaluate("observed.sound.flatMap(({samples}) => samples).filter((sample) => sample !== 0).length")
    assert abs(sum(samples for _, samples in told) - heard) < 200, told
    if stands_still:
        assert min(samples for _, samples in told) < SAMPLES
    assert "tml_ear_to_voice_seconds_count" in served.get("/metrics")[1]


class HangsAtFirst(LocalBackend):
    """The embedded background, but for a session's first task, which keeps its place until it is cancelled."""

    async def run(self, package):
        if package.number == 1:
            await asyncio.Event().wait()
        async for piece in super().run(package):
            yield piece


def test_a_task_that_has_to_wait_is_asked_until_the_background_begins_with_it(visit, serve):
    asks = {2: "long work", 3: "6 times 7", 12: "#1 stop"}

    def script(index, arrived) -> Line:
        return Line(tasks=(asks[index],) if index in asks else ())

    runner = Runner(HangsAtFirst(LocalTools()), RunnerOptions(concurrent=1))
    runner.start()
    page = visit(serve(ScriptedEngine(script), Background(runner, tokenizer(), small_config())))
    page.evaluate(WATCH)
    start(page)
    until(page, "document.querySelector('#tasks li:nth-child(2)')?.dataset.state === 'read'")
    assert page.evaluate("observed.states") == {
        "1": ["asked", "running", "cancelled"],
        "2": ["asked", "running", "answered", "read"],
    }
    runner.stop()


# Keeps the states that each card has shown, from the first on.
WATCH = """async () => {
  const { Tasks } = await import("/page/tasks.js");
  const set = Tasks.prototype.set;
  observed.states = {};
  Tasks.prototype.set = function (number, card, state) {
    set.call(this, number, card, state);
    (observed.states[number] ??= []).push(card.item.dataset.state);
  };
}"""


TRIES = """async () => {
  const { Connection } = await import("/page/connection.js");
  const [Socket, later, get] = [WebSocket, setTimeout, fetch];
  const waits = [];
  window.WebSocket = class {
    constructor() { queueMicrotask(() => this.onclose?.({ code: 1006, reason: "" })); }
    close() {}
  };
  window.setTimeout = (then, ms) => later(then, ms === 10_000 ? 60_000 : 0);
  window.fetch = async () => ({ status: 200 });
  try {
    return await new Promise((done) => {
      const lost = (wait) => {
        waits.push(wait);
        if (waits.length === 30) connection.close() || done({ waits });
      };
      const connection = new Connection({ lost, refused: (message) => done({ refused: message }) });
      connection.open("");
    });
  } finally {
    [window.WebSocket, window.setTimeout, window.fetch] = [Socket, later, get];
  }
}"""


def test_it_never_stops_trying_and_tries_less_and_less_often(visit, serve):
    waits = visit(serve(ScriptedEngine(lambda index, arrived: Line()))).evaluate(TRIES)["waits"]
    assert all(0.75 * 500 * 2**n <= wait <= 500 * 2**n for n, wait in enumerate(waits[:5]))
    assert all(0.75 * 15_000 <= wait <= 15_000 for wait in waits[5:]) and len(set(waits[5:])) > 20


@pytest.mark.parametrize("by", ["button", "online"])
def test_a_person_need_not_wait_once_the_network_is_back(browser, serve, by):
    served = serve(ScriptedEngine(lambda index, arrived: Line()))
    served.server.calls.seconds = 60.0
    network = Network(served.port)
    served.port = port = served.call(network.open())
    context = browser.new_context(permissions=["microphone"])  # the browser complains of a server that is away
    page = open_page(context, served)
    start(page)
    until(page, "observed.turns.length >= 5")
    assert page.get_by_role("button", name="Try now").is_hidden()
    context.set_offline(by == "online")
    served.call(network.close())
    page.locator("#state").get_by_text("Connection lost").wait_for()
    until(page, "parseFloat(document.getElementById('state-text').textContent.match(/([0-9.]+) s/)?.[1]) > 5.9")
    served.call(network.open(port))
    if by == "online":
        context.set_offline(False)
    else:
        page.get_by_role("button", name="Try now").click()
    page.locator("#state").get_by_text("Listening again").wait_for(timeout=5000)
    assert page.get_by_role("button", name="Try now").is_hidden()
    turns = page.evaluate("observed.turns.map(({index}) => index)")
    assert turns == list(range(len(turns)))
    context.close()
    served.call(network.close())


def test_a_session_that_was_not_held_long_enough_begins_anew_and_the_page_says_so(visit, serve):
    served = serve(ScriptedEngine(lambda index, arrived: Line(display="good morning" if index == 4 else "")))
    network = Network(served.port)
    served.port = served.call(network.open())
    page = visit(served)
    start(page)
    until(page, "observed.turns.length >= 6")
    served.server.calls.seconds = 0.05
    served.loop.call_soon_threadsafe(network.cut)
    page.get_by_text("This is a new one.").first.wait_for()
    until(page, "observed.turns.length > 7 && observed.turns.at(-1).index < observed.turns.length - 6")
    page.locator("#state").get_by_text("Listening").wait_for()
    said = page.locator("#words li").all_inner_texts()
    assert said[0] == "Model wrotegood morning" and said[1].startswith("The conversation before is over")
    assert page.get_by_label("Write to the model").is_enabled() and page.locator("#problem").is_hidden()
    served.call(network.close())


def test_a_server_that_is_not_there_at_first_is_waited_for_and_the_person_may_stop(browser, serve):
    served = serve(ScriptedEngine(lambda index, arrived: Line()))
    network = Network(served.port)
    served.port = served.call(network.open())
    context = browser.new_context(permissions=["microphone"])
    page = open_page(context, served)
    served.call(network.close())
    call(page)
    page.locator("#state").get_by_text("The server cannot be reached: trying again").wait_for()
    page.get_by_role("button", name="Stop").click()
    assert page.locator("#state").inner_text() == "Not connected"
    assert page.get_by_role("button", name="Try now").is_hidden()
    context.close()


def test_who_has_as_many_conversations_as_a_key_may_is_told_and_begins_once_one_has_ended(visit, serve):
    served = serve(ScriptedEngine(lambda index, arrived: Line(), slots=2), limits=Limits(sessions_per_key=1))
    first, second = visit(served), visit(served)
    start(first)
    call(second)
    second.get_by_text("You have as many conversations as one person may have here.").wait_for()
    second.wait_for_timeout(2000)
    assert second.evaluate("observed.sockets.length") == 1 and second.locator("#state").inner_text() == "Stopped"
    first.get_by_role("button", name="Stop").click()
    wait_until(lambda: served.scheduler.free == 2)
    second.get_by_role("button", name="Start talking").click()
    second.locator("#state").get_by_text("Listening").wait_for()


OUTSIDE = """async () => {
  const { Connection } = await import("/page/connection.js");
  const [Socket, later] = [WebSocket, setTimeout];
  const full = (ticket) => ({
    type: "error", error: { code: "server_full", queue_position: 9, ticket, retry_after_ms: 6000, message: "full" },
  });
  const tickets = ["", "", "", "", "", "", "mine", ""];
  const told = [];
  window.WebSocket = class {
    constructor() {
      queueMicrotask(() => {
        this.onmessage?.({ data: JSON.stringify(full(tickets[told.length])) });
        this.onclose?.({ code: 1013, reason: "server_full" });
      });
    }
    close() {}
  };
  window.setTimeout = (then, ms) => later(then, ms === 10_000 ? 600_000 : 0);
  try {
    return await new Promise((done) => {
      const queue = (position, wait, placed) => {
        told.push([wait / 1000, placed]);
        if (told.length === tickets.length) connection.close() || done(told);
      };
      const connection = new Connection({ queue, refused: (message) => done(message) });
      connection.open("");
    });
  } finally {
    [window.WebSocket, window.setTimeout] = [Socket, later];
  }
}"""


def test_a_page_without_a_place_in_line_says_so_and_asks_less_and_less_often(visit, serve):
    served = serve(ScriptedEngine(lambda index, arrived: Line()), limits=Limits(queue=1))
    first, second = visit(served), visit(served)
    outside = [[wait, False] for wait in (6, 12, 24, 48, 60, 60)]  # none is what the first event is waited for
    assert first.evaluate(OUTSIDE) == [*outside, [6, True], [6, False]]
    start(first)
    with served.socket() as in_line:
        assert receive(in_line, "error")["error"]["ticket"]
    call(second)
    second.locator("#state").get_by_text("Every place is taken, and the line is full").wait_for()
    assert "keep your place" not in second.locator("#problem").inner_text()
    first.get_by_role("button", name="Stop").click()
    wait_until(lambda: served.scheduler.free)
    second.get_by_role("button", name="Try now").click()
    second.locator("#state").get_by_text("Listening").wait_for(timeout=3000)
    assert second.get_by_role("button", name="Try now").is_hidden() and second.locator("#problem").is_hidden()


BOUNDS = """async () => {
  const { Timeline } = await import("/page/timeline.js");
  const { Log } = await import("/page/log.js");
  const { Connection } = await import("/page/connection.js");
  const timeline = new Timeline(document.createElement("canvas"));
  const log = new Log(document.createElement("ol"), document.createElement("p"));
  const connection = new Connection({});
  Object.assign(connection, { live: true, socket: { readyState: WebSocket.OPEN, send() {} }, sent: 0, unheard: [] });
  for (let turn = 0; turn < 18_000; turn++) { // an hour, in which the model never pauses and nobody is heard
    timeline.gate(true, 200 * turn);
    timeline.note("model", " word", 200 * turn);
    log.speak(" word");
    connection.send({ type: "duplex.played", index: turn, samples: 4800 }, { later: true });
  }
  const longest = Math.max(...[...log.list.children].map((entry) => entry.textContent.length));
  return {
    gates: timeline.gates.length, notes: timeline.notes.length, unheard: connection.unheard.length,
    entries: log.list.children.length, longest,
  };
}"""


def test_an_hour_leaves_the_page_with_no_more_than_minutes_do(visit, serve):
    kept = visit(serve(ScriptedEngine(lambda index, arrived: Line()))).evaluate(BOUNDS)
    assert kept["gates"] < 130 and kept["notes"] < 130 and kept["unheard"] <= 100
    assert kept["entries"] <= 200 and kept["longest"] < 2100
