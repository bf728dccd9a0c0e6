"""The plan of a call, the same for every client, and the microphone it speaks into. Needs nothing but Python.

A caller writes "hello" and is answered; writes a sum, which the model hands over to the caller's own function, and is
told what that found; speaks for a second, is answered again, speaks over that answer until it ends,
and hears the last words. What it saw is printed as one line of JSON.
"""

import array
import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Awaitable, Callable

RATE = 24_000
CHUNK = RATE // 50
TONE = array.array("h", (int(9000 * math.sin(2 * math.pi * 300 * index / RATE)) for index in range(CHUNK))).tobytes()
LAST = "I am silent"  # of `companion.py`
SUM = "3 + 4"
TASK = {"type": "string", "description": "Such as 3 + 4."}  # the only parameter of the caller's function
MILLISECOND = 2 * RATE // 1000  # bytes


@dataclasses.dataclass
class Seen:
    """What a caller saw.

    Attributes:
      answers: transcripts of the answers that have ended. A client may split one in two where it is spoken over.
      tasks: that its function was called with.
      heard_ms: of sound, since it was last set to zero.
      interruptions: how often the client told its application that the model was interrupted.
      errors: what the client complained about.
    """

    answers: list[str] = dataclasses.field(default_factory=list)
    tasks: list[str] = dataclasses.field(default_factory=list)
    heard_ms: float = 0.0
    interruptions: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)

    def work_out(self, task: str) -> str:
        """The caller's function: what a sum of two numbers comes to."""
        self.tasks.append(task)
        first, _, second = task.split()
        return str(int(first) + int(second))


class Microphone:
    """Silence, or a tone of 300 Hz while `speaks` is set: PCM16 at 24 kHz, 20 ms at a time, as it is spoken."""

    def __init__(self) -> None:
        """Silent."""
        self.speaks = False

    async def run(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Sends sound until it is cancelled."""
        began, sent = time.monotonic(), 0
        while True:
            while sent < (time.monotonic() - began) * RATE / CHUNK:
                await send(TONE if self.speaks else bytes(2 * CHUNK))
                sent += 1
            await asyncio.sleep(0.01)


async def call(seen: Seen, send: Callable[[bytes], Awaitable[None]], write: Callable[[str], Awaitable[None]]) -> None:
    """Holds the call of the plan and prints what was seen.

    Args:
      seen: that the client fills in meanwhile.
      send: gives the client 20 ms of sound.
      write: gives it a written message.

    Raises:
      TimeoutError: something did not happen within half a minute.
    """

    async def until(what: str, true: Callable[[], bool]) -> None:
        end = time.monotonic() + 30
        while not true():
            if time.monotonic() > end:
                raise TimeoutError(f"waited in vain: {what}; seen: {seen}")
            await asyncio.sleep(0.02)

    microphone = Microphone()
    speaking = asyncio.create_task(microphone.run(send))
    await write("hello")
    await until("an answer to what was written", lambda: len(seen.answers) == 1)
    await write(f"what is {SUM}")
    await until("what the sum comes to", lambda: len(seen.answers) == 2)
    seen.heard_ms, microphone.speaks = 0.0, True
    await asyncio.sleep(1.0)
    microphone.speaks = False
    await until("the answer", lambda: seen.heard_ms >= 1000)
    microphone.speaks = True  # over it
    await until("the end of the answer", lambda: len(seen.answers) >= 3)
    await asyncio.sleep(0.5)
    microphone.speaks = False
    await until("the last answer", lambda: seen.answers[-1] == LAST)
    speaking.cancel()
    print(json.dumps(dataclasses.asdict(seen)), flush=True)
