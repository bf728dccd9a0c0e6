"""A server that cannot keep up says so: to who wants in, to who is in, to who looks after it."""

import base64
import itertools
import json
import time

import numpy as np
import pytest
from scripted import Line, ScriptedEngine
from served import Served, receive, send, type_in, wait_until
from websockets.exceptions import InvalidStatus

from tml_jax.serve.jitter import Counts
from tml_jax.serve.notices import Told, news, with_notices
from tml_jax.serve.sound_formats import to_pcm16


@pytest.mark.parametrize("query", ["?duplex=1", "?resumable=1", ""])
def test_an_overload_is_told_to_who_is_in_and_who_wants_in(query):
    seconds = itertools.chain([0.3] * 12, [2.0], itertools.repeat(0.0))

    def slow(index, arrived) -> Line:
        time.sleep(next(seconds))
        return Line()

    with Served(ScriptedEngine(slow, slots=2), overload={}) as served, served.socket(query) as socket:
        type_in(socket, "hello")
        wait_until(lambda: served.scheduler.overloaded)
        with served.socket() as other:
            error = receive(other, "error")["error"]
            assert error["code"] == "server_overloaded" and "overloaded" in error["message"]
            assert error["queue_position"] == 1 and error["ticket"]
        assert json.loads(served.get("/readyz")[1])["status"] == "overloaded"
        with pytest.raises(InvalidStatus) as refused:
            served.socket(headers={"Tml-Full": "refuse"})
        assert json.loads(refused.value.response.body)["error"]["code"] == "server_overloaded"
        text = served.get("/metrics")[1]
        assert "tml_overloaded 1.0" in text and 'tml_sessions_refused_total{code="server_overloaded"} 2.0' in text
        wait_until(lambda: not served.scheduler.overloaded and served.scheduler.skipped_windows)
        type_in(socket, "goodbye")
        codes, seen = [], ""
        while query and "windows_skipped" not in codes or "overload_ended" not in codes and query:
            event = json.loads(socket.recv(timeout=60))
            notices = [event] if event["type"] == "session.notice" else event.get("notices", [])
            codes += [notice["code"] for notice in notices]
            assert all(notice["windows"] > 4 for notice in notices if notice["code"] == "windows_skipped")
        if query:
            assert codes[0] == "server_overloaded"
        else:  # a client that knows only the OpenAI protocol gets nothing else
            while seen != "conversation.item.done":
                seen = json.loads(socket.recv(timeout=60))["type"]
                assert seen != "session.notice"
        with served.socket() as other:
            receive(other, "session.created")


class Live:
    """What `news` looks at."""

    def __init__(self, dropped=0, passed=0, overloaded=False) -> None:
        self.counts, self.passed, self.overloaded = Counts(dropped=dropped), passed, overloaded


def test_a_client_is_told_once_of_each_thing():
    told, notices = news(Told(), Live(dropped=16_000, passed=7, overloaded=True))
    assert [notice["code"] for notice in notices] == ["server_overloaded", "windows_skipped", "input_audio_dropped"]
    assert notices[1]["windows"] == 7 and notices[2]["milliseconds"] == 1000
    assert news(told, Live(16_000, 7, True)) == (told, [])
    assert [notice["code"] for notice in news(told, Live(16_000, 7))[1]] == ["overload_ended"]
    event = {"type": "duplex.micro_turn", "index": 3}
    assert with_notices([event], notices) == [{**event, "notices": notices}]
    assert with_notices([], notices[1:2]) == [{"type": "session.notice", **notices[1]}]


def test_what_becomes_of_sound_is_counted_for_all_sessions():
    sound = base64.b64encode(to_pcm16(np.full(1600, 0.1, np.float32))).decode()
    with Served(ScriptedEngine(lambda index, arrived: Line(), slots=2)) as served:
        with served.socket("?duplex=1") as socket, served.socket("?duplex=1") as typist:
            type_in(typist, "hello")  # no microphone, so nothing of its sound is missing
            for offset in (0, 0):
                send(socket, type="duplex.input", offset=offset, audio=sound)
            while receive(socket, "duplex.micro_turn")["index"] < 3:
                pass
            send(socket, type="duplex.input", offset=1600, audio=sound)
            while receive(socket, "duplex.micro_turn")["input"]["late"] == 0:
                pass
            receive(typist, "duplex.micro_turn")
            receive(socket, "duplex.micro_turn")
            text = served.get("/metrics")[1]
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("tml_input_samples_total"))
        counts = {name.split('"')[1]: float(value) for name, value in values.items()}
        assert (counts["heard"], counts["duplicate"], counts["late"], counts["dropped"]) == (1600, 1600, 1600, 0)
        assert counts["missing"] >= 3 * 3200 and (counts["missing"] + 1600) % 3200 == 0
