"""A server under load: how long N clients wait for the model's sound, and how many of them it serves in real time.

*Mouth to ear*. The mouth is a sample of the user's: the moment at which the client's microphone, which runs on the
client's clock, has it. The ear is the first sound that this sample can have an influence on: the moment at which the
client's player begins the micro-turn that answers the sample's window. The player is the page's: it plays a micro-turn
at once where the one before still sounds, and otherwise holds it back 40 ms; a micro-turn of silence counts as if it
began to speak. So the first sample of a window has 200 ms more than its last, and the percentiles are over all of them.
Packets of 20 ms, the server's delay for late sound, the time to its next tick, the computation and both sockets are in
it; microphone, loudspeaker and a network are not.

The *wait* is shorter: from the last sample of a window to the arrival of its answer.

N clients are *held* in real time if no window was passed over, no sound was lost, and 99% of the waits are below
`HELD_WAIT`: the server's delay for late sound (60 ms), at most one micro-turn until its next tick and one to compute,
and 40 ms for the rest.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from tml_jax.bench.clients import Talk, talk_at_once
from tml_jax.bench.machine import OtherWork, cores
from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.markdown import markdown_table

CUSHION = 0.04  # seconds, of the page's player
HELD_WAIT = 0.5  # seconds
_PLACES = (np.arange(200) + 0.5) / 200  # of samples in a window


@dataclasses.dataclass(frozen=True)
class Load:
    """What N clients saw together.

    Attributes:
      clients: N.
      tick: (n,) seconds of each micro-turn, as the server tells it.
      mouth_to_ear: (n · 200,) seconds, of samples all over each window.
      wait: (n,) seconds.
      passed_over: windows that were not answered.
      lost: share of the sound that did not arrive in time, or whose window was passed over.
      speaks: share of micro-turns in which the model spoke.
      gaps: share of the spoken ones, but the first of each time it speaks, that came after the sound before had ended.
      sent_late: (m,) seconds, of each packet of the clients.
    """

    clients: int
    tick: np.ndarray
    mouth_to_ear: np.ndarray
    wait: np.ndarray
    passed_over: int
    lost: float
    speaks: float
    gaps: float
    sent_late: np.ndarray

    @property
    def held(self) -> bool:
        """Whether they were served in real time."""
        return self.passed_over == 0 and self.lost == 0 and bool(np.percentile(self.wait, 99) < HELD_WAIT)


@dataclasses.dataclass(frozen=True)
class ServeBench:
    """What was measured.

    Attributes:
      loads: of each number of clients.
      seconds: that each client talked.
      others: cores that other programs kept busy before the first server; None where it cannot be known.
    """

    loads: tuple[Load, ...]
    seconds: float
    others: float | None

    def __str__(self) -> str:
        times = ("tick", "mouth to ear", "wait")
        head = ["clients", *(f"{name} p50 / p95 / p99, ms" for name in times), "passed over", "sound lost"]
        rows = [[*head, "gaps", "speaks", "sent late p99, ms", "held"]]
        for load in self.loads:
            shares = [f"{share:.2%}" for share in (load.lost, load.gaps)]
            rows.append(
                [
                    load.clients,
                    *(_percentiles(seconds) for seconds in (load.tick, load.mouth_to_ear, load.wait)),
                    load.passed_over,
                    *shares,
                    f"{load.speaks:.0%}",
                    f"{1e3 * np.percentile(load.sent_late, 99):.0f}",
                    "yes" if load.held else "no",
                ]
            )
        most = max((load.clients for load in self.loads if load.held), default=0)
        others = "" if self.others is None else f", of which others kept {self.others:.1f} busy before"
        return (
            f"{markdown_table(rows, left=0)}\n{self.seconds:g} s each; {cores()} core(s){others}. Held in real time: "
            f"{most} (none passed over, nothing lost, 99% of the waits below {1e3 * HELD_WAIT:.0f} ms).\n"
            "mouth to ear: from a sample of the user's to the start of the first sound that can depend on it, over all "
            "samples. wait: from the end of a window to the arrival of its answer. gaps: of spoken micro-turns after "
            "another, those that came too late to go on. sent late: by the clients themselves."
        )


def serve_bench(
    server: Callable[[int], contextlib.AbstractContextManager[str]],
    clients: Sequence[int],
    seconds: float,
    audio: np.ndarray,
    api_key: str | None = None,
    log: Callable[[str], None] = print,
) -> ServeBench:
    """Measures.

    Args:
      server: number of clients → a server for so many, that runs within it, and the URL of its WebSocket.
      clients: numbers of them, one measurement each.
      seconds: that each client talks.
      audio: (n,) float32 at 16 kHz, what they say over and over.
      api_key: of the server.
      log: takes lines on how it goes.

    Returns:
      The measurement.

    Raises:
      OSError: a server cannot be reached.
      ValueError: one refuses a session, or ends one, of the first number of clients; of a later one the table ends.
    """
    windows = max(1, int(seconds / MICRO_TURN_SECONDS))
    work, loads = OtherWork(), []
    time.sleep(1.0)
    others = work.cores()
    for count in clients:
        try:
            with server(count) as url:
                log(f"{count} client(s) talk for {seconds:g} s")
                load = summarise(talk_at_once(url, count, windows, audio, api_key), windows)
        except ValueError as error:
            if not loads:
                raise
            log(f"{count} client(s): {error}; the table ends before")
            break
        wait = f"wait {_percentiles(load.wait)} ms"
        log(f"{count} client(s): tick {_percentiles(load.tick)} ms, {wait}, {'held' if load.held else 'not held'}")
        loads.append(load)
    return ServeBench(tuple(loads), seconds, others)


def summarise(talks: Sequence[Talk], windows: int) -> Load:
    """What clients saw together, each in `windows` windows."""
    every = lambda values: np.concatenate(list(values))  # noqa: E731
    begins, gaps = zip(*[played(talk) for talk in talks])
    follows = every(talk.speaks[1:] & talk.speaks[:-1] for talk in talks)
    lost = sum(talk.lost for talk in talks)
    made = MICRO_TURN_SECONDS * (every(talk.index for talk in talks)[:, None] + _PLACES)
    return Load(
        clients=len(talks),
        tick=every(talk.tick for talk in talks),
        mouth_to_ear=(every(begins)[:, None] - made).ravel(),
        wait=every(talk.arrived - MICRO_TURN_SECONDS * (talk.index + 1) for talk in talks),
        passed_over=sum(windows - len(talk.index) for talk in talks),
        lost=lost / max(1, lost + sum(talk.heard for talk in talks)),
        speaks=float(np.mean(every(talk.speaks for talk in talks))),
        gaps=float(every(gaps).sum() / max(1, follows.sum())),
        sent_late=every(talk.sent_late for talk in talks),
    )


def played(talk: Talk) -> tuple[np.ndarray, np.ndarray]:
    """When the player begins each micro-turn.

    Args:
      talk: what its client saw, n micro-turns.

    Returns:
      (n,) seconds; (n,) bool, whether it goes on with what the one before said, and came too late for it.
    """
    begins, gap = np.zeros(len(talk.index)), np.zeros(len(talk.index), bool)
    until = -np.inf  # when what was said so far has been played
    for place, (arrived, speaks) in enumerate(zip(talk.arrived, talk.speaks)):
        late = arrived > until
        begins[place] = arrived + CUSHION if late else until  # within what still sounds, it waits for its end
        if speaks:
            gap[place] = late and place > 0 and talk.speaks[place - 1]
            until = begins[place] + MICRO_TURN_SECONDS
    return begins, gap


def _percentiles(seconds: np.ndarray) -> str:
    return " / ".join(f"{value:.0f}" for value in np.percentile(1e3 * seconds, (50, 95, 99)))
