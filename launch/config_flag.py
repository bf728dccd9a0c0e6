"""The --config flag: a file that builds a configuration, and --config.train.steps=100 to change any field of it.

`config_flags` alone can change only what the file mentions. Here the file's configuration is first completed with all
defaults, so every field of `tml_jax.config` has its flag. A command uses it so:

  app.run(main, flags_parser=config_flag.parse)    and in main:    config = config_flag.get()
"""

import contextlib
import os
import pathlib
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import app, flags
from ml_collections import ConfigDict, config_dict, config_flags

from tml_jax.config import Config, ConfigError, from_mapping, to_mapping

_NAME = "config"
INTERRUPTED = 130  # exit status of a command that Ctrl-C ended


def load(path: str) -> Config:
    """Runs the `get_config()` of a file.

    Args:
      path: a Python file, such as configs/replica.py.

    Returns:
      The checked configuration.

    Raises:
      ConfigError: there is no such file, it has no `get_config`, or what that returns breaks a rule.
    """
    if not pathlib.Path(path).is_file():
        place = "" if pathlib.Path(path).is_absolute() else f" in {pathlib.Path.cwd()}, where relative paths start"
        raise ConfigError(f"--config={path}: no such file{place}; the project's own are configs/*.py of its repository")
    try:
        found = runpy.run_path(path)
    except Exception as error:  # whatever a file of the user's raises
        raise ConfigError(f"--config={path}: cannot be run as Python ({type(error).__name__}: {error})") from error
    if not callable(found.get("get_config")):
        raise ConfigError(f"--config={path}: has no function get_config()")
    return from_mapping(found["get_config"]())


def get() -> Config:
    """The configuration of the command line.

    Raises:
      ConfigError: there was no --config, or an override breaks a rule.
    """
    if _NAME not in flags.FLAGS:
        raise ConfigError("--config is missing: give a file, such as --config=configs/replica.py")
    return from_mapping(flags.FLAGS[_NAME].value)


def training_command(config: Config, path: str) -> str:
    """The command that trains with a configuration: its file, and a flag for each field that differs from the file.

    Raises:
      ConfigError: the file is no configuration.
    """
    ours, theirs = (dict(_paths(to_mapping(each))) for each in (config, load(path)))
    changed = [f"--{_NAME}.{name}={value}" for name, value in ours.items() if theirs.get(name) != value]
    return shlex.join(["python", "-m", "launch.train", f"--{_NAME}={path}", *changed])


def _paths(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def parse(argv: Sequence[str]) -> list[str]:
    """A `flags_parser` for `app.run`. What is wrong with a flag ends the command with one line and exit code 2."""
    try:
        rest = _take_config(list(argv))
        return flags.FLAGS(rest)
    except (ConfigError, flags.Error, TypeError, ValueError) as error:
        refuse(pathlib.Path(argv[0]).stem, ConfigError(_plain(str(error))))


def interrupted(command: str, what: str) -> NoReturn:
    """Ends a command that Ctrl-C stopped with one line that says what becomes of its work."""
    print(f"launch.{command}: stopped by Ctrl-C; {what}", file=sys.stderr)
    raise SystemExit(INTERRUPTED) from None


def run(main: Callable[[Sequence[str]], None], **options: Any) -> None:
    """`app.run` and its options for a command that compiles: after Ctrl-C (`INTERRUPTED`) the process is gone at once.

    XLA compiles in threads of its own, which Ctrl-C does not stop: one that still compiles while the interpreter takes
    the backend down ends the process with a segmentation fault.
    """
    try:
        app.run(main, **options)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):  # nobody reads it any more
                    stream.flush()
            os._exit(INTERRUPTED)
        raise


def refuse(command: str, error: ConfigError) -> NoReturn:
    """Ends a command of wrong input with one line, and exit code 2."""
    print(f"launch.{command}: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def _plain(message: str) -> str:
    """A message with what Python says of text that is no number in other words."""
    message = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"expected a whole number, not \1", message)
    return message.replace("could not convert string to float:", "expected a number, not")


def _take_config(argv: list[str]) -> list[str]:
    """Loads the file that --config names and declares the flags of its fields. Returns the other arguments."""
    for index, argument in enumerate(argv):
        flag, equals, path = argument.partition("=")
        if flag not in (f"--{_NAME}", f"-{_NAME}"):
            continue
        if not equals and index + 1 == len(argv):
            raise ConfigError("--config needs a file, such as --config=configs/replica.py")
        rest = argv[:index] + argv[index + (1 if equals else 2) :]
        fields = _fields(to_mapping(load(path if equals else argv[index + 1])))
        for other in rest:
            _check_field(fields, other.lstrip("-").partition("=")[0])
        config_flags.DEFINE_config_dict(_NAME, fields, sys_argv=rest)
        return rest
    return argv


def _fields(mapping: dict[str, Any]) -> ConfigDict:
    """A ConfigDict in which fields that are None take any literal."""
    fields = ConfigDict()
    for name, value in mapping.items():
        value = _fields(value) if isinstance(value, dict) else value
        fields[name] = config_dict.placeholder(object) if value is None else value
    return fields


def _check_field(fields: ConfigDict, flag: str) -> None:
    """Raises ConfigError where `flag` is config.SOMETHING and there is no such field."""
    path = flag.split(".")
    if path[0] not in (_NAME, f"no{_NAME}"):
        return
    for depth, name in enumerate(path[1:], start=1):
        if not isinstance(fields, ConfigDict) or name not in fields:
            known = ", ".join(fields) if isinstance(fields, ConfigDict) else "none"
            raise ConfigError(f"--{'.'.join(path[: depth + 1])}: no such field; there are {known}")
        fields = fields[name]
