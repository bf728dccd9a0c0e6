"""The flags of the background: what they make, and what is wrong with them."""

import sys

import pytest
from absl.testing import flagsaver

from launch import background
from tml_jax.background.local import LocalBackend


@pytest.fixture(autouse=True)
def flags(monkeypatch):
    for name in ("TML_BACKGROUND_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    if not background.flags.FLAGS.is_parsed():
        background.flags.FLAGS.mark_as_parsed()  # the commands of other tests have flags that must be given


def test_without_flags_there_is_none_and_with_local_there_is_one(tmp_path):
    assert background.make_runner() is None
    with flagsaver.flagsaver(background="local", background_folder=str(tmp_path)):
        assert isinstance(background.make_runner()._backend, LocalBackend)
    with flagsaver.flagsaver(background_audio_seconds=0.0, background_frames=0, background_seconds=9.0):
        options = background.desk_options()
    assert not options.privacy.audio and not options.privacy.frames and options.privacy.typed
    assert options.limits.seconds == 9.0 and options.limits.open == 4


def test_so_many_tasks_of_a_session_run_at_once_and_one_more_may_be_asked_for():
    with flagsaver.flagsaver(background="local", background_tasks=50, background_tasks_per_session=40):
        channel, limits = background.make_runner().open(), background.desk_options().limits
    assert channel.places._value == 40 and limits.open == 41


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"background": "openai"}, "needs --background_model"),
        ({"background": "openai", "background_model": "m"}, "needs --background_url, or a key"),
        ({"background": "local", "background_url": "http://x"}, "--background_url needs --background=openai; given is"),
        ({"background_url": "http://x"}, "--background_url needs --background=openai; given is --background=none"),
        ({"background_folder": "notes"}, "--background_folder needs --background=local or openai"),
        ({"background": "client", "background_folder": "notes"}, "--background_folder needs"),
        ({"background_redact": ["x"]}, "--background_redact needs --background=local or openai or client; given is"),
        ({"background_frames": 8}, "--background_frames needs --background=local"),
        ({"background_typed": False}, "--background_typed needs"),
        ({"background_tasks_per_session": 2}, "--background_tasks_per_session needs"),
        ({"background": "openai", "background_mcp": ["no_such_command x"]}, "no command 'no_such_command'"),
        ({"background": "openai", "background_mcp": ["'a"]}, "--background_mcp=.*No closing quotation"),
        ({"background": "openai", "background_mcp": [""]}, "--background_mcp='': there is no command"),
        ({"background": "local", "background_seconds": float("nan")}, "--background_seconds=nan: expected a number"),
        (
            {"background": "openai", "background_audio_seconds": float("inf")},
            "--background_audio_seconds=inf: expected a number",
        ),
        ({"background": "local", "background_folder": "/no/such"}, "no such folder"),
        ({"background": "local", "background_redact": ["("]}, "--background_redact=.* no regular expression"),
    ],
)
def test_what_is_wrong_is_said(given, expected):
    given = {"background_model": "m", "background_url": "http://x", **given} if "background_mcp" in given else given
    with flagsaver.flagsaver(**given), pytest.raises(ValueError, match=expected):
        background.make_runner()
        background.desk_options()


def test_a_key_for_openai_goes_to_no_other_endpoint(monkeypatch):
    pytest.importorskip("openai")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    given = {"background": "openai", "background_model": "m"}
    key = lambda: background.make_runner()._backend._client.api_key  # noqa: E731
    with flagsaver.flagsaver(**given):
        assert key() == "secret"
    with flagsaver.flagsaver(**given, background_url="http://localhost:1/v1", background_mcp=[sys.executable]):
        assert key() == "none"
        monkeypatch.setenv("TML_BACKGROUND_API_KEY", "theirs")
        assert key() == "theirs"
