"""Keys for a short time, and pages of other sites."""

import json
import urllib.error
import urllib.request

import pytest
from openai import AuthenticationError, BadRequestError, OpenAI
from scripted import Line, ScriptedEngine
from served import KEY, Served, receive
from websockets.exceptions import InvalidStatus

from tml_jax.serve import access
from tml_jax.serve.client_secrets import ClientSecret, read, sign


@pytest.fixture
def served():
    with Served(ScriptedEngine(lambda index, arrived: Line())) as served:
        yield served


def client(served, key: str = KEY) -> OpenAI:
    return OpenAI(api_key=key, base_url=f"http://127.0.0.1:{served.port}/v1", max_retries=0)


def test_a_client_secret_opens_sessions_that_are_as_it_says_until_it_is_too_old(served, monkeypatch):
    session = {"type": "realtime", "instructions": "Be brief.", "output_modalities": ["text"]}
    after = {"anchor": "created_at", "seconds": 60}
    made = client(served).realtime.client_secrets.create(session=session, expires_after=after)
    assert made.value.startswith("ek_") and made.session.instructions == "Be brief."
    now = access.time.time()
    assert now + 50 < made.expires_at <= now + 60

    def connect():
        return served.socket(headers={"Authorization": f"Bearer {made.value}"})

    with connect() as socket:
        created = receive(socket, "session.created")["session"]
        assert (created["instructions"], created["output_modalities"]) == ("Be brief.", ["text"])
    with pytest.raises(AuthenticationError) as refused:  # it makes no others
        client(served, made.value).realtime.client_secrets.create()
    assert refused.value.code == "invalid_client_secret"
    monkeypatch.setattr(access.time, "time", lambda: now + 61)
    with pytest.raises(InvalidStatus) as late:
        connect()
    assert late.value.response.status_code == 401


@pytest.mark.parametrize(
    "asked, param",
    [
        ({"expires_after": {"seconds": 5}}, "expires_after"),
        ({"expires_after": []}, "expires_after"),
        ({"session": [1]}, "session"),
        ({"session": {"instructions": "x" * 4000}}, "session"),
        ({"session": {"type": "realtime", "output_modalities": ["smell"]}}, "session.output_modalities"),
    ],
)
def test_what_no_client_secret_can_be_is_said(served, asked, param):
    with pytest.raises(BadRequestError) as refused:
        client(served).post("/realtime/client_secrets", cast_to=object, body=asked)
    assert refused.value.param == param


def test_a_secret_that_was_changed_signed_by_others_or_is_too_old_is_none():
    secret = ClientSecret(1000, {"instructions": "Be brief."})
    text = sign(secret, b"key")
    assert read(text, b"key", 999.0) == secret
    assert read(text, b"key", 1000.0) is None and read(text, b"other", 999.0) is None
    later = sign(ClientSecret(2000, secret.session), b"other").split(".")[0]
    for forged in (later + "." + text.split(".")[1], text + "A", text[:-1], text.split(".")[0], "ek_", "ek_.", "é"):
        assert read(forged, b"key", 999.0) is None, forged


def ask(served, method: str, origin: str, path: str = "/v1/realtime/calls"):
    headers = {"Origin": origin, "Authorization": f"Bearer {KEY}", "Content-Type": "application/sdp"}
    body = b"hello" if method == "POST" else None
    request = urllib.request.Request(f"http://127.0.0.1:{served.port}{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_a_page_of_an_allowed_site_may_call_and_read_the_answer_and_others_may_not(served):
    friend = "https://friend.example"
    status, headers, _ = ask(served, "OPTIONS", friend)
    assert status == 204 and "authorization" in headers["Access-Control-Allow-Headers"]
    assert headers["Access-Control-Allow-Origin"] == friend
    status, headers, body = ask(served, "POST", friend)
    assert headers["Access-Control-Allow-Origin"] == friend and "Location" in headers["Access-Control-Expose-Headers"]
    assert json.loads(body)["error"]["code"] == "invalid_offer"
    for method in ("OPTIONS", "POST"):
        status, headers, body = ask(served, method, "https://evil.example")
        assert headers["Access-Control-Allow-Origin"] is None
    assert status == 403
