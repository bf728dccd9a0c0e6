"""Tasks in step with the micro-turns: tries, deadlines and failures are those of a server."""

import threading

from backends import Scripted, flaky, job

from tml_jax.background.backend import BackendError
from tml_jax.background.runner import RunnerOptions
from tml_jax.background.stepped import MOST_RESULT, SteppedRunner

QUICK = RunnerOptions(backoff=0.01, most_backoff=0.02, first_seconds=5.0)
FOREVER = 1000.0


def stepped(scripts: dict, seconds: float = 10.0, **more) -> list:
    """Results of its tasks, each asked for in micro-turn 0 and due in the next, in their order."""
    backend = Scripted(**scripts)
    runner = SteppedRunner(backend, lambda number, revision: 0.2, options=QUICK, **more)
    channel = runner.open()
    assert runner.collect(channel) == []
    for number, text in enumerate(scripts, 1):
        assert runner.begin(job(channel, number, text, seconds))
    results = runner.collect(channel)
    assert [result.number for result in results] == list(range(1, len(scripts) + 1))
    runner.close(channel)
    assert backend.closed
    return [result.failure or result.text for result in results]


def test_a_task_is_tried_again_and_whatever_a_backend_raises_fails_that_task_alone():
    scripts = {
        "flaky": [[flaky()], [flaky()], ["it ", "is ", "done"]],
        "dead": [[flaky()]],
        "refused": [[BackendError("refused 401")]],
        "half": [["half ", flaky("cut off")]],
        "deep": [[RecursionError("too deep")]],
        "fine": [["ok"]],
    }
    assert stepped(scripts) == ["it is done", "unavailable", "refused 401", "cut off", "error", "ok"]


def test_one_that_never_answers_is_late_and_one_without_end_is_cut():
    assert stepped({"mute": [[FOREVER]], "slow": [["a ", FOREVER]]}, seconds=0.4) == ["late", "late"]
    (text,) = stepped({"flood": [["word " * 50] * 100_000]})
    assert len(text) == MOST_RESULT and text.startswith("word word ")


def test_one_that_holds_its_thread_is_late_too():
    held = threading.Event()
    backend = Scripted(x=[[lambda: held.wait(30)]])
    runner = SteppedRunner(backend, lambda number, revision: 0.2)
    channel = runner.open()
    runner.collect(channel)
    runner.begin(job(channel, 1, "x", 0.2))
    assert runner.collect(channel)[0].failure == "late" and not backend.ended
    held.set()
    runner.close(channel)
