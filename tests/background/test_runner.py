"""Tasks in their own thread: retries, ends and limits; and what a backend does is never waited for."""

import asyncio
import threading
import time

import pytest
from backends import Scripted, flaky, job, package_of

from tml_jax.background.backend import BackendError
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner, RunnerOptions

FOREVER = 1000.0
QUICK = RunnerOptions(backoff=0.01, most_backoff=0.02, first_seconds=5.0)


@pytest.fixture
def running():
    """Starts runners, and stops them after the test."""
    runners = []

    def start(backend, options: RunnerOptions = QUICK) -> Runner:
        runner = Runner(backend, options)
        runner.start()
        runners.append(runner)
        return runner

    yield start
    for runner in runners:
        runner.stop()
        assert not runner._thread.is_alive()


def news(runner, channel) -> list:
    """What has come, but for word that a task has begun."""
    return [result for result in runner.collect(channel) if not result.begun]


def results(runner, channel, tasks: int = 1) -> list:
    """All results up to the end of so many tasks."""
    found, end = [], time.monotonic() + 20
    while sum(bool(result.last or result.failure) for result in found) < tasks:
        assert time.monotonic() < end, found
        found += news(runner, channel)
        time.sleep(0.005)
    return found


def brief(found: list) -> list:
    return [result.failure or ("." if result.last else result.text) for result in found]


def wait_until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_result_comes_in_its_pieces_and_orders_may_come_before_the_start():
    runner = Runner(Scripted(x=[["one ", "", "two"]]), QUICK)
    channel = runner.open()
    assert runner.begin(job(channel, 7, revision=3))
    runner.start()
    found = results(runner, channel)
    assert brief(found) == ["one ", "two", "."]
    assert {(result.number, result.revision) for result in found} == {(7, 3)}
    runner.stop()


def test_a_task_is_tried_again_until_something_of_it_has_come(running):
    backend = Scripted(
        x=[[flaky()], [flaky()], ["ok"]],
        dead=[[flaky("unavailable")]],
        wrong=[[BackendError("refused 401")]],
        half=[["half ", flaky("cut off")]],
        broken=[[ValueError("a bug")]],
        lies=[[17]],
    )
    runner = running(backend)
    channel = runner.open()
    expected = {
        "x": (["ok", "."], 3),
        "dead": (["unavailable"], 3),
        "wrong": (["refused 401"], 1),
        "half": (["half ", "cut off"], 1),
        "broken": (["error"], 1),
        "lies": (["error"], 1),
    }
    for text, (told, tries) in expected.items():
        assert runner.begin(job(channel, text=text))
        assert brief(results(runner, channel)) == told
        assert backend.begun.count(text) == tries


def test_a_backend_that_says_nothing_is_given_up_and_one_without_end_ends_with_its_deadline(running):
    backend = Scripted(mute=[[FOREVER]], slow=[["a", FOREVER]], flood=[["b"] * 100_000 + [FOREVER]])
    runner = running(backend, RunnerOptions(first_seconds=0.05, backoff=0.01, results=16))
    channel = runner.open()
    runner.begin(job(channel, text="mute"))
    assert brief(results(runner, channel)) == ["unavailable"] and len(backend.begun) == 3
    runner.begin(job(channel, text="slow", seconds=0.4))
    assert brief(results(runner, channel)) == ["a", "late"]
    runner.begin(job(channel, text="flood", seconds=0.4))
    wait_until(lambda: backend.ended[-1:] == ["flood"])
    assert channel.results.qsize() <= 16  # however much it says, and although nobody listens


def test_what_is_ended_is_cancelled_at_once(running):
    backend = Scripted(x=[[FOREVER]], y=[[FOREVER]])
    runner = running(backend)
    channel, other = runner.open(), runner.open()
    runner.begin(job(channel, 1, "x"))
    runner.begin(job(other, 1, "y"))
    wait_until(lambda: len(backend.begun) == 2)
    runner.end(channel, 1, 2)  # another revision
    runner.end(channel, 1, 1)
    wait_until(lambda: backend.ended == ["x"])
    runner.close(other)
    wait_until(lambda: backend.ended == ["x", "y"])
    runner.begin(job(other, 2, "y"))
    time.sleep(0.05)
    assert backend.begun == ["x", "y"] and not news(runner, channel)


def test_no_more_run_at_once_than_may(running):
    backend = Scripted(x=[["a", 0.02, "b"]])
    runner = running(backend, RunnerOptions(concurrent=2))
    channel = runner.open()
    for number in range(1, 9):
        runner.begin(job(channel, number))
    results(runner, channel, 8)
    assert backend.most == 2 and len(backend.begun) == 8


def test_a_task_that_waits_for_others_has_not_begun(running):
    runner = running(Scripted(x=[[FOREVER]], y=[["ok"]]), RunnerOptions(concurrent=1))
    channel, found = runner.open(), []

    def told() -> list:
        found.extend(runner.collect(channel))
        return [(result.number, result.begun) for result in found]

    runner.begin(job(channel, 1, "x"))
    runner.begin(job(channel, 2, "y"))
    wait_until(told)
    time.sleep(0.05)
    assert told() == [(1, True)]
    runner.end(channel, 1, 1)
    wait_until(lambda: len(told()) == 4)
    assert told()[1] == (2, True) and brief(found[2:]) == ["ok", "."]


def test_a_backend_that_holds_its_loop_holds_nobody_else_and_orders_do_not_pile_up(running):
    held = threading.Event()
    backend = Scripted(hold=[[lambda: held.wait(20)]])
    runner = running(backend, RunnerOptions(orders=4))
    channel = runner.open()
    runner.begin(job(channel, 1, "hold"))
    wait_until(lambda: backend.begun)
    taken = [runner.begin(job(channel, number, "hold")) for number in range(2, 20)]
    assert taken == [True] * 4 + [False] * 14  # refused, not waited for
    runner.end(channel, 1, 1)
    assert news(runner, channel) == []
    held.set()


def test_the_end_cancels_what_runs_and_closes_the_backend():
    backend = Scripted(x=[[FOREVER]])
    runner = Runner(backend, QUICK)
    runner.start()
    channel = runner.open()
    runner.begin(job(channel))
    wait_until(lambda: backend.begun)
    runner.stop()
    assert backend.ended == ["x"] and backend.closed
    assert not runner.begin(job(channel))
    runner.end(channel, 1, 1)
    runner.close(channel)


def test_timers_of_others_do_not_keep_a_sum_waiting(running):
    runner = running(LocalBackend(LocalTools()))
    for _ in range(2):
        channel = runner.open()
        for number in range(1, 5):
            runner.begin(job(channel, number, "timer 8 seconds"))
        wait_until(lambda channel=channel: channel.results.qsize() == 4)  # all have begun
    third = runner.open()
    runner.begin(job(third, 1, "6 times 7", seconds=4.0))
    assert brief(results(runner, third)) == ["42", "."]


def test_one_session_does_not_take_all_places(running):
    runner = running(Scripted(x=[[FOREVER]], y=[["ok"]]), RunnerOptions(concurrent=4, per_session=3))
    greedy, other = runner.open(), runner.open()
    for number in range(1, 9):
        runner.begin(job(greedy, number, "x"))
    runner.begin(job(other, 1, "y", seconds=4.0))
    assert brief(results(runner, other)) == ["ok", "."]
    assert len(runner.collect(greedy)) == 3


def test_a_backend_that_falls_silent_in_the_middle_is_given_up(running):
    runner = running(Scripted(x=[["a", FOREVER]]), RunnerOptions(next_seconds=0.05))
    channel = runner.open()
    runner.begin(job(channel))
    assert brief(results(runner, channel)) == ["a", "unavailable"]


def test_what_is_ended_is_cancelled_though_no_more_orders_fit(running):
    held = threading.Event()
    backend = Scripted(x=[[FOREVER]], hold=[[lambda: held.wait(20)]])
    runner = running(backend, RunnerOptions(orders=1, per_session=9))
    channel = runner.open()
    runner.begin(job(channel, 1, "x"))
    wait_until(lambda: backend.begun == ["x"])
    runner.begin(job(channel, 2, "hold"))
    wait_until(lambda: backend.begun == ["x", "hold"])
    assert runner.begin(job(channel, 3, "x")) and not runner.begin(job(channel, 4, "x"))
    runner.end(channel, 1, 1)
    runner.end(channel, 3, 1)
    held.set()
    wait_until(lambda: backend.ended == ["x", "hold"] or backend.ended == ["hold", "x"])
    wait_until(lambda: not runner._jobs)
    assert backend.begun == ["x", "hold"]  # the third was ended before it began


class Exits:
    """Ends the program, itself or in a task that it begins."""

    async def run(self, package):
        if package.request == "itself":
            raise SystemExit(3)
        if package.request == "beside":
            asyncio.get_running_loop().create_task(self._exit())
            await asyncio.sleep(0.05)
        yield "ok"

    async def _exit(self):
        raise SystemExit(3)

    async def close(self):
        """Nothing to let go of."""


def test_a_backend_that_ends_the_program_ends_its_task_alone(running):
    runner = running(Exits())
    channel = runner.open()
    for text, told in (("itself", ["unavailable"]), ("x", ["ok", "."]), ("beside", ["ok", "."]), ("x", ["ok", "."])):
        assert runner.begin(job(channel, text=text))
        assert brief(results(runner, channel)) == told
    assert runner._thread.is_alive()


def test_the_conversation_is_packed_for_those_who_read_it_one_at_a_time(running, monkeypatch):
    packed, now, most = [], 0, 0

    def package(history, task, privacy, conversation):
        nonlocal now, most
        now += 1
        most = max(most, now)
        time.sleep(0.02)
        now -= 1
        packed.append(conversation)
        return package_of(*task.requests)

    monkeypatch.setattr("tml_jax.background.runner.package", package)
    for backend, reads in ((Scripted(x=[["ok"]]), True), (LocalBackend(LocalTools()), False)):
        runner = running(backend)
        channels = [runner.open() for _ in range(4)]
        for channel in channels:
            runner.begin(job(channel, text="x" if reads else "1 + 1"))
        for channel in channels:
            results(runner, channel)
        assert packed == [reads] * 4 and (most == 1 or not reads)
        packed.clear()


def test_options_that_are_none_are_refused():
    with pytest.raises(ValueError, match="attempts = 0"):
        RunnerOptions(attempts=0)
