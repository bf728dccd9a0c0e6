"""The flags of the background model, for the commands that serve.

Keys come from the environment alone: TML_BACKGROUND_API_KEY, or OPENAI_API_KEY where no other endpoint is given.
"""

import math
import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence

from absl import flags

from tml_jax.background.backend import Backend, NoBackend, Tools
from tml_jax.background.context import Privacy
from tml_jax.background.desk import DeskOptions
from tml_jax.background.history import Budget
from tml_jax.background.library import read_library
from tml_jax.background.local import LocalBackend, LocalTools
from tml_jax.background.runner import Runner, RunnerOptions
from tml_jax.background.stepped import USUAL_DELAY
from tml_jax.background.tasks import Limits

_KIND = flags.DEFINE_enum(
    "background",
    "none",
    ["none", "local", "openai", "client"],
    "What does the tasks that the model hands over; `client`: only clients that declare a tool for them.",
)
_FOLDER = flags.DEFINE_string("background_folder", None, "Folder of text files to search.")
_URL = flags.DEFINE_string("background_url", None, "Endpoint of the OpenAI protocol, such as http://localhost:8001/v1.")
_MODEL = flags.DEFINE_string("background_model", None, "Name of the model at that endpoint.")
_MCP = flags.DEFINE_multi_string("background_mcp", [], "Command that starts an MCP server, whose tools the model gets.")
_SECONDS = flags.DEFINE_float("background_seconds", 60.0, "Deadline of a task that says none.", lower_bound=0.2)
_SOONEST = flags.DEFINE_float(
    "background_soonest", USUAL_DELAY, "Seconds from a task until the model is told of its result.", lower_bound=0.0
)
_CONCURRENT = flags.DEFINE_integer("background_tasks", 8, "Most tasks of all sessions at once.", lower_bound=1)
_PER_SESSION = flags.DEFINE_integer(
    "background_tasks_per_session", 3, "Most tasks of a session at once; one more may wait.", lower_bound=1
)
_AUDIO = flags.DEFINE_float("background_audio_seconds", 60.0, "Sound of each side that it gets.", lower_bound=0.0)
_FRAMES = flags.DEFINE_integer("background_frames", 8, "Most frames that it gets.", lower_bound=0)
_CHARACTERS = flags.DEFINE_integer("background_characters", 8000, "Most text that it gets.", lower_bound=0)
_TYPED = flags.DEFINE_bool("background_typed", True, "Whether it gets what the user typed.")
_REDACT = flags.DEFINE_multi_string("background_redact", [], "Pattern of text that it must not get.")
_SHARED = (_SECONDS, _SOONEST, _CONCURRENT, _PER_SESSION, _AUDIO, _FRAMES, _CHARACTERS, _TYPED, _REDACT)
FLAGS = tuple(flag.name for flag in (_KIND, _FOLDER, _URL, _MODEL, _MCP, *_SHARED))


def make_runner() -> Runner | None:
    """The runner that the flags ask for; None for none. Not started.

    Raises:
      ValueError: flags that do not go together, or a folder that is not there.
    """
    backend = make_backend()
    options = RunnerOptions(concurrent=_CONCURRENT.value, per_session=_PER_SESSION.value)
    return None if backend is None else Runner(backend, options)


def make_backend() -> Backend | None:
    """The backend that the flags ask for; None for none.

    Raises:
      ValueError: see `make_runner`.
    """
    _check()
    if _KIND.value == "none":
        return None
    if _KIND.value == "client":
        return NoBackend()
    library = None if _FOLDER.value is None else read_library(_FOLDER.value)
    tools = LocalTools(library)
    if _KIND.value == "local":
        return LocalBackend(tools)
    return _openai([tools])


def tools_backend() -> Callable[[Tools], Backend] | None:
    """Makes the language model that the flags name, with given tools; None without --background=openai.

    Raises:
      ValueError: see `make_runner`.
    """
    _check()
    if _KIND.value != "openai":
        return None
    _openai([])  # says now what is missing
    return lambda tools: _openai([tools])


def kind() -> str:
    """What the flags ask for: `none`, `local`, `openai` or `client`."""
    return _KIND.value


def name() -> str:
    """The language model that the flags name; "" for none."""
    return _MODEL.value if _KIND.value == "openai" and _MODEL.value else ""


def _openai(tools: Sequence[Tools]) -> Backend:
    if not _MODEL.value:
        raise ValueError("--background=openai needs --background_model, the model's name at the endpoint")
    key = os.environ.get("TML_BACKGROUND_API_KEY")
    if not _URL.value:  # a key for OpenAI goes nowhere else
        key = key or os.environ.get("OPENAI_API_KEY")
    if not key and not _URL.value:
        raise ValueError("--background=openai needs --background_url, or a key in TML_BACKGROUND_API_KEY")
    try:
        from tml_jax.background.mcp_tools import McpTools
        from tml_jax.background.openai_backend import OpenAIBackend
    except ModuleNotFoundError as error:
        raise ValueError(f"{error}: --background=openai needs pip install -e '.[background]'") from error
    servers = [McpTools(_words(command)) for command in _MCP.value]
    return OpenAIBackend(_MODEL.value, _URL.value, key or "none", [*servers, *tools])


def _check() -> None:
    """Raises a ValueError that names the flag where flags do not go together, or a number is none."""
    need = {"openai": (_URL, _MODEL, _MCP), "local or openai": (_FOLDER,), "local or openai or client": _SHARED}
    for kinds, held in need.items():
        for flag in held:
            if not flags.FLAGS[flag.name].using_default_value and _KIND.value not in kinds.split(" or "):
                raise ValueError(f"--{flag.name} needs --background={kinds}; given is --background={_KIND.value}")
    for flag in (_SECONDS, _SOONEST, _AUDIO):
        if not math.isfinite(flag.value):
            raise ValueError(f"--{flag.name}={flag.value}: expected a number of seconds")


def _words(command: str) -> list[str]:
    """The command line of an MCP server: a program that is there, and its arguments."""
    try:
        words = shlex.split(command) or [""]
    except ValueError as error:
        raise ValueError(f"--{_MCP.name}={command!r}: {error}") from error
    if not shutil.which(words[0]):
        raise ValueError(f"--{_MCP.name}={command!r}: there is no command {words[0]!r}")
    return words


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"--{_REDACT.name}={text!r} is no regular expression: {error}") from error


def desk_options() -> DeskOptions:
    """What the flags let sessions ask for, and what of them may go to the background; `make_backend` checks the rest.

    Raises:
      ValueError: a pattern is none.
    """
    budget = Budget(_AUDIO.value, _FRAMES.value, _CHARACTERS.value)
    privacy = Privacy(_AUDIO.value > 0, _FRAMES.value > 0, _TYPED.value, tuple(map(_pattern, _REDACT.value)))
    open_tasks = _PER_SESSION.value + 1
    limits = Limits(open_tasks, max(Limits.kept, open_tasks), _SECONDS.value, soonest=_SOONEST.value)
    return DeskOptions(limits, budget, privacy)
