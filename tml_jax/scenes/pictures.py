"""Pictures of a scene: simple objects before what is behind them, see `backdrops.py`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tml_jax.scenes.backdrops import FRAME_SIZE, draw_backdrop

FRAME_RATE = 10.0  # frames a second
ACTIONS = ("bounces", "flashes", "moves")  # what an object can do again and again
_ACTIVE = 0.7  # share of a period that an action takes; the object rests for the remainder
TINGED = 35  # levels by which a channel of a varied colour is off at most
_LIGHT = 70.0  # grey levels by which a light brightens the background
_DIMMED = 0.5  # brightness of a real picture behind objects, about that of a drawn one


@dataclasses.dataclass(frozen=True)
class Repeats:
    """What an object does again and again.

    Attributes:
      action: `bounces` (up and down again), `moves` (to the right and back) or `flashes` (is seen only while it does).
      start: seconds.
      period: seconds from one to the next.
      count: how often.
    """

    action: str
    start: float
    period: float
    count: int

    def ends(self) -> list[float]:
        """When each repetition is complete, seconds."""
        return [self.start + (number + _ACTIVE) * self.period for number in range(self.count)]

    def phases(self, seconds: np.ndarray) -> np.ndarray:
        """How far the repetition is that a time lies in, 0 … 1; 0 between repetitions."""
        number, within = np.divmod(seconds - self.start, self.period)
        phase = within / (_ACTIVE * self.period)
        # The frame at which one ends shows the rest: rounding must not move that by a frame.
        return np.where((number >= 0) & (number < self.count) & (phase < 1 - 1e-6), phase, 0.0)


@dataclasses.dataclass(frozen=True)
class Shape:
    """An object in a video.

    Attributes:
      kind: `ball`, `box`, `cross` or `ring`.
      colour: red, green, blue, 0 … 255.
      radius: pixels.
      start: (row, column) of its centre when it appears.
      velocity: pixels a second, down and to the right.
      appears: seconds.
      gone: seconds; from then on it is not seen.
      repeats: what it does again and again, or None.
    """

    kind: str
    colour: tuple[int, int, int]
    radius: float
    start: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    appears: float = 0.0
    gone: float = np.inf
    repeats: Repeats | None = None


def vary_colour(colour: tuple[int, int, int], rng: np.random.Generator) -> tuple[int, int, int]:
    """A colour near `colour`, so that a shape is not known by three numbers."""
    red, green, blue = np.clip(np.add(colour, rng.integers(-TINGED, TINGED + 1, 3)), 0, 255).tolist()
    return red, green, blue


def frame_times(rng: np.random.Generator, end: float) -> np.ndarray:
    """Times of the frames until `end`, from a random phase on: (frames,) seconds."""
    return rng.uniform(0.0, 1.0 / FRAME_RATE) + np.arange(int(end * FRAME_RATE)) / FRAME_RATE


def frame_at(times: np.ndarray, wanted: float) -> float:
    """Time of the first frame at or after `wanted`."""
    return float(times[np.searchsorted(times, wanted - 1e-9)])


def draw_video(
    rng: np.random.Generator,
    times: np.ndarray,
    shapes: Sequence[Shape],
    light: tuple[float, float] | None = None,
    clip: np.ndarray | None = None,
) -> np.ndarray:
    """Frames with objects.

    Args:
      rng: every draw.
      times: (frames,) seconds, of each frame.
      shapes: the objects, a later one before an earlier.
      light: (start, end) seconds in which what is behind them is brighter, or None.
      clip: (frames, 40, 40, 3) uint8, what is behind them; None for something drawn.

    Returns:
      (frames, 40, 40, 3) uint8.
    """
    axis = np.arange(FRAME_SIZE, dtype=np.float32)
    row, column = axis[None, :, None], axis[None, None, :]
    frames = draw_backdrop(rng, times) if clip is None else np.float32(_DIMMED) * clip
    if light is not None:
        frames[(times >= light[0]) & (times < light[1])] += np.float32(_LIGHT)
    frames += rng.normal(0.0, 8.0, frames.shape).astype(np.float32)
    for shape in shapes:
        centre, shown = _place(shape, times)
        covered = _covered(shape.kind, row - centre[0], column - centre[1], shape.radius)
        frames[covered & shown[:, None, None]] = np.asarray(shape.colour, np.float32)
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8)


def _place(shape: Shape, times: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """[row, column] of the centre, each (frames, 1, 1), and (frames,) bool, whether the shape is seen."""
    since = np.maximum(times - shape.appears, 0.0)[:, None, None]
    # The centre bounces between the edges, so that the shape stays in the picture.
    low, high = shape.radius, FRAME_SIZE - 1 - shape.radius
    span = high - low
    centre = [
        low + span - np.abs((start - low + speed * since) % (2 * span) - span)
        for start, speed in zip(shape.start, shape.velocity)
    ]
    shown = (times >= shape.appears - 1e-6) & (times < shape.gone - 1e-6)
    if shape.repeats is None:
        return centre, shown
    phase = shape.repeats.phases(times)[:, None, None]
    away = np.sin(np.pi * phase)
    if shape.repeats.action == "bounces":
        centre[0] = centre[0] + (low - centre[0]) * away
    elif shape.repeats.action == "moves":
        centre[1] = centre[1] + (high - centre[1]) * away
    elif shape.repeats.action == "flashes":
        shown = shown & (phase[:, 0, 0] > 0)
    else:
        raise ValueError(f"action {shape.repeats.action!r}: expected bounces, moves or flashes")
    return centre, shown


def _covered(kind: str, down: np.ndarray, right: np.ndarray, radius: float) -> np.ndarray:
    """Whether a pixel at (down, right) from the centre belongs to the shape."""
    distance = np.sqrt(down**2 + right**2)
    reach = np.maximum(np.abs(down), np.abs(right))
    if kind == "ball":
        return distance <= radius
    if kind == "box":
        return reach <= radius * 0.85
    if kind == "ring":
        return (distance <= radius) & (distance >= radius * 0.55)
    if kind == "cross":
        return (reach <= radius) & (np.minimum(np.abs(down), np.abs(right)) <= radius * 0.3)
    raise ValueError(f"shape {kind!r}: expected ball, box, cross or ring")
