"""What the model writes to ask the background, and what it reads of the answers. Both are a few tokens around text.

Out, between DELEGATE and END:

  weather in paris          a new task. Tasks are numbered from 1 in the order in which they are asked
  @5 weather in paris       the same, of use only within 5 s
  #2 tomorrow instead       refines task 2: it starts again with this added, and what it found before is dropped
  #2 stop                   cancels task 2
  stop                      cancels all

In, after FROM_BACKGROUND:

  #2 it is twelve           a piece of the result of task 2; more comes
  #2. degrees and dry       the last piece
  #2! late                  it failed, and nothing more comes
"""

import dataclasses
import enum
import re

_MARK = re.compile(r"(?:#(?P<number>[1-9][0-9]{0,3})|@(?P<seconds>[1-9][0-9]{0,3}))(?:\s+|$)")
_RESULT = re.compile(r"#(?P<number>[1-9][0-9]{0,3})(?P<mark>[.!]?)(?: (?P<text>.*))?", re.DOTALL)
STOP = "stop"
MOST = 9999  # numbers of tasks, and seconds


class Action(enum.StrEnum):
    """What a request wants."""

    NEW = "new"
    REFINE = "refine"
    CANCEL = "cancel"


class Mark(enum.StrEnum):
    """What a piece of a result is: more comes, the last, or a failure."""

    MORE = ""
    LAST = "."
    FAILED = "!"


class MalformedError(ValueError):
    """A span that asks for nothing. Its text is a short reason."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What one DELEGATE span asks for.

    Attributes:
      action: what it wants.
      number: of the task; None for a new one, and to cancel all.
      text: what is to be done; "" to cancel.
      seconds: within which it is of use; None where that is not said.
    """

    action: Action
    number: int | None = None
    text: str = ""
    seconds: int | None = None


def parse_request(span: str) -> Request:
    """Reads the text of a DELEGATE span.

    Args:
      span: any text.

    Returns:
      What it asks for.

    Raises:
      MalformedError: it asks for nothing.
    """
    rest, found = " ".join(span.split()), {}
    while (mark := _MARK.match(rest)) is not None and mark.lastgroup not in found:
        found[mark.lastgroup] = int(mark[mark.lastgroup])
        rest = rest[mark.end() :]
    number, seconds = found.get("number"), found.get("seconds")
    if not rest:
        raise MalformedError("empty")
    if rest.rstrip(".!").lower() == STOP:
        return Request(Action.CANCEL, number)
    return Request(Action.NEW if number is None else Action.REFINE, number, rest, seconds)


def request_text(request: Request) -> str:
    """The span that `parse_request` reads as `request`."""
    number = "" if request.number is None else f"#{request.number} "
    seconds = "" if request.seconds is None else f"@{request.seconds} "
    return number + seconds + (STOP if request.action == Action.CANCEL else request.text)


def result_tag(number: int, mark: Mark) -> str:
    """What stands before a piece of a result."""
    return f"#{number}{mark}"


def result_text(number: int, mark: Mark, text: str) -> str:
    """A piece of a result as the model reads it."""
    return f"{result_tag(number, mark)} {text}".rstrip()


def parse_result(text: str) -> tuple[int, Mark, str]:
    """The inverse of `result_text`, for clients and tests: (number, mark, text).

    Raises:
      MalformedError: it is no piece of a result.
    """
    found = _RESULT.fullmatch(text.strip())
    if found is None:
        raise MalformedError("untagged")
    return int(found["number"]), Mark(found["mark"]), found["text"] or ""
