"""When the user's sound is loud enough to be speech, for clients that ask: labels on the wire, unheard by the model.

The model itself hears everything and decides by itself when to speak. Clients of the realtime protocol however stop
their player, and show who speaks, by these events.
"""

import dataclasses

import numpy as np

from tml_jax.config import INPUT_RATE

_FRAME = INPUT_RATE // 50  # 20 ms


@dataclasses.dataclass(frozen=True)
class Endpointing:
    """Where the user's speech begins and ends, by level. Never changed.

    Attributes:
      level: root mean square above which 20 ms count as speech.
      least: such frames in a row that begin speech.
      hangover: quiet frames in a row that end it.
      speaking: whether the user speaks.
      run: frames in a row that speak against `speaking`.
      frames: 20 ms frames so far.
      rest: samples of a frame that is not complete.
    """

    level: float = 0.01
    least: int = 3
    hangover: int = 25
    speaking: bool = False
    run: int = 0
    frames: int = 0
    rest: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))


@dataclasses.dataclass(frozen=True)
class Edge:
    """A change: whether the user speaks from then on, and when, milliseconds since the start."""

    speaking: bool
    milliseconds: int


def listen(state: Endpointing, samples: np.ndarray) -> tuple[Endpointing, list[Edge]]:
    """Goes on by some sound.

    Args:
      state: so far.
      samples: (n,) float32 at 16 kHz.

    Returns:
      The new state, and the changes in it.
    """
    sound = np.concatenate([state.rest, samples])
    whole = len(sound) // _FRAME * _FRAME
    loud = np.sqrt(np.mean(np.square(sound[:whole].reshape(-1, _FRAME)), axis=1)) > state.level
    speaking, run, edges = state.speaking, state.run, []
    for index, frame in enumerate(loud.tolist(), start=state.frames + 1):
        run = run + 1 if frame != speaking else 0
        if run == (state.hangover if speaking else state.least):
            speaking, first, run = not speaking, index - run, 0
            edges.append(Edge(speaking, 20 * first))
    frames = state.frames + len(loud)
    return dataclasses.replace(state, speaking=speaking, run=run, frames=frames, rest=sound[whole:]), edges


def without_pauses(before: Endpointing, edges: list[Edge]) -> list[Edge]:
    """Changes in some sound as if the user had not paused in it: the first beginning and the last end that are left.

    Args:
      before: state before that sound.
      edges: in it, at least one.
    """
    begins = [] if before.speaking else edges[:1]
    return begins if edges[-1].speaking else [*begins, edges[-1]]
