"""Backends as tests need them, and packages to give them."""

import asyncio

from tml_jax.background.backend import BackendError
from tml_jax.background.context import Package, Privacy
from tml_jax.background.history import History
from tml_jax.background.runner import Job
from tml_jax.background.tasks import Task


def package_of(*requests: str, seconds: float = 60.0) -> Package:
    return Package(1, len(requests), requests, seconds)


def job(channel, number: int = 1, text: str = "x", seconds: float = 10.0, revision: int = 1) -> Job:
    task = Task(number, revision, (text,), 0, 0, round(seconds / 0.2))
    return Job(channel, task, History(), Privacy())


def said(backend, package: Package) -> str:
    async def run() -> str:
        return "".join([piece async for piece in backend.run(package)])

    return asyncio.run(run())


class Scripted:
    """Does what its script says for a request: a list of pieces, exceptions and seconds to wait, one list a try."""

    def __init__(self, **scripts) -> None:
        self.scripts = scripts
        self.begun, self.ended, self.most, self.closed = [], [], 0, False

    async def run(self, package):
        text = package.requests[-1]
        tries = self.scripts[text]
        attempt = min(self.begun.count(text), len(tries) - 1)
        self.begun.append(text)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        try:
            for step in tries[attempt]:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif callable(step):
                    step()
                else:
                    yield step
        finally:
            self.ended.append(text)

    async def close(self) -> None:
        self.closed = True


def flaky(reason: str = "unavailable") -> BackendError:
    return BackendError(reason, again=True)
