"""What a background model is, to those who run it: a package in, text out, piece by piece."""

import dataclasses
import typing
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from tml_jax.background.context import Package


class BackendError(RuntimeError):
    """A task cannot be done. Its text is told to the model: a word or two."""

    def __init__(self, reason: str, again: bool = False) -> None:
        """Says why.

        Args:
          reason: for the model.
          again: whether it may work if it is tried again.
        """
        super().__init__(reason)
        self.again = again


class Backend(typing.Protocol):
    """Does tasks. Lives in one loop; several tasks may run at once, and each may be cancelled at any time.

    It may say more of itself. `reads_turns = False`: it does without the conversation, which then is not packed.
    `waits(request) -> bool`: whether a task does nothing but wait; such a one runs beside any number of others, and
    may be silent up to its deadline once it has given a sign.
    """

    def run(self, package: Package) -> AsyncIterator[str]:
        """Does a task.

        Args:
          package: the task and its conversation.

        Yields:
          Its result in pieces, with their spaces; the end of the iterator is the end of the result.

        Raises:
          BackendError: it cannot be done.
        """

    async def close(self) -> None:
        """Lets go of connections and processes."""


class NoBackend:
    """Does nothing: for servers whose clients do the tasks. What nobody does is told to the model."""

    reads_turns = False

    async def run(self, package: Package) -> AsyncIterator[str]:
        """See `Backend`."""
        raise BackendError("unavailable")
        yield ""

    async def close(self) -> None:
        """See `Backend`."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """A function that a backend may call: its name, what it is for, and the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


class Tools(typing.Protocol):
    """Functions that a backend may call."""

    async def list(self) -> Sequence[Tool]:
        """What there is.

        Raises:
          BackendError: they cannot be reached.
        """

    async def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Calls one of them.

        Args:
          name: of the function.
          arguments: for it, as the caller made them up; they may be wrong.

        Returns:
          What it gave, or what went wrong, as text.

        Raises:
          BackendError: it cannot be reached.
        """

    async def close(self) -> None:
        """Lets go of connections and processes."""
