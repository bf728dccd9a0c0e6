"""What a proxy needs of an engine: whether it has a place, a refusal that it can pass on, and names to find it by."""

import json

import pytest
from scripted import Line, ScriptedEngine
from served import Served, receive, wait_until
from websockets.exceptions import InvalidStatus

from tml_jax.serve.server import ServerOptions

PASS = {"Tml-Full": "refuse"}


def test_a_full_engine_says_so_before_the_socket_opens_and_its_tokens_and_tickets_name_it():
    with Served(ScriptedEngine(lambda index, arrived: Line()), name="engine-0") as served:
        assert served.get("/readyz")[0] == 200
        with served.socket("?resumable=1", headers=PASS) as first:
            created = receive(first, "session.created")
            token = created["session"]["resume"]["token"]
            assert token.startswith("engine-0.") and len(token) > 40
            assert (served.get("/readyz")[0], served.get("/healthz")[0]) == (503, 200)
            with pytest.raises(InvalidStatus) as refused:
                served.socket(headers=PASS)
            assert refused.value.response.status_code == 503
            assert json.loads(refused.value.response.body)["error"]["code"] == "server_full"
            with served.socket() as second:  # nobody who could pass it on
                ticket = receive(second, "error")["error"]["ticket"]
            assert ticket.startswith("engine-0.")
            with served.socket(f"?ticket={ticket}") as second:
                receive(second, "error")
            with served.socket(f"?resume={token}&after={created['event_id']}", headers=PASS) as again:
                receive(again, "session.resumed")  # its place is its own
        wait_until(lambda: served.scheduler.free)
        assert served.get("/readyz")[0] == 503  # the place is for who waits
        with served.socket(f"?ticket={ticket}", headers=PASS) as second:
            receive(second, "session.created")
        wait_until(lambda: served.scheduler.free)
        assert served.get("/readyz")[0] == 200
        served.call(served.server.drain(0.0))
        assert json.loads(served.get("/readyz")[1])["status"] == "draining"


def test_a_name_that_tokens_cannot_carry_is_refused():
    with pytest.raises(ValueError, match="name = 'a.b': expected"):
        ServerOptions(name="a.b")
