"""What is behind the objects of a scene: a plain drifting pattern, or something as crowded as a film.

Replicas that had seen nothing but the pattern took any film behind the objects for an object. A crowded backdrop has
texture of several scales that the camera pans over, things that move before it, light that changes, and sometimes a
cut. It is dimmer than every object is, in at least one of its colours.
"""

import numpy as np

FRAME_SIZE = 40  # rows and columns
_CROWDED_SHARE = 0.6
_BRIGHTEST = 115.0  # levels; every object has a colour of 165 or more
_CUT_SHARE = 0.3  # of crowded backdrops
_CANVAS = 2 * FRAME_SIZE  # rows and columns that the camera pans over, and over again


def draw_backdrop(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """One of the two kinds.

    Args:
      rng: every draw.
      times: (frames,) seconds, of each frame.

    Returns:
      (frames, 40, 40, 3) float32, levels from 0 to 115.
    """
    if rng.random() >= _CROWDED_SHARE:
        return _pattern(rng, times)
    frames = _crowd(rng, times)
    if len(times) and rng.random() < _CUT_SHARE:
        cut = times >= rng.uniform(times[0], times[-1])
        frames[cut] = _crowd(rng, times[cut])
    return frames


def _pattern(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A dim wave of one colour."""
    axis = np.arange(FRAME_SIZE, dtype=np.float32)
    row, column, seconds = axis[None, :, None], axis[None, None, :], times.astype(np.float32)[:, None, None]
    tint = rng.uniform(20, 80, 3).astype(np.float32)
    wave = rng.uniform(-0.4, 0.4, 2)
    drift = rng.uniform(-4, 4)
    return (0.7 + 0.3 * np.sin(wave[0] * row + wave[1] * column + drift * seconds))[..., None] * tint


def _crowd(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Texture that the camera pans over, with a few things before it, under light that changes."""
    canvas = _texture(rng)
    pan = rng.uniform(-12, 12, 2) * (rng.random() < 0.7)  # pixels a second; the camera rests in the others
    sway, pace = rng.uniform(0, 4, 2), rng.uniform(0.5, 3, 2)
    axis = np.arange(FRAME_SIZE)
    places = [
        np.rint(start + speed * times + far * np.sin(often * times)).astype(int)[:, None] + axis
        for start, speed, far, often in zip(rng.uniform(0, _CANVAS, 2), pan, sway, pace)
    ]
    frames = canvas[places[0][:, :, None] % _CANVAS, places[1][:, None, :] % _CANVAS]
    for _ in range(int(rng.integers(0, 4))):
        _pass_by(rng, times, frames)
    light = 1 + rng.uniform(0, 0.25) * np.sin(rng.uniform(0.5, 4) * times + rng.uniform(0, 2 * np.pi))
    return np.clip(frames * light.astype(np.float32)[:, None, None, None], 0, _BRIGHTEST)


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Squares of random colours in two or three sizes, one over the other: (canvas, canvas, 3) float32."""
    layers, weights = [], []
    for cells in rng.choice((2, 4, 8, 16, 40), int(rng.integers(2, 4)), replace=False):
        grey, tinge = rng.uniform(0, 1, (cells, cells, 1)), rng.uniform(-0.3, 0.3, (cells, cells, 3))
        side = -(-_CANVAS // cells)
        layers.append(np.kron(grey + tinge, np.ones((side, side, 1)))[:_CANVAS, :_CANVAS])
        weights.append(rng.uniform(0.2, 1.0))
    mixed = np.tensordot(np.asarray(weights) / np.sum(weights), np.stack(layers), 1)
    return np.clip(mixed * rng.uniform(40, _BRIGHTEST), 0, _BRIGHTEST).astype(np.float32)


def _pass_by(rng: np.random.Generator, times: np.ndarray, frames: np.ndarray) -> None:
    """Something dim and rectangular moves through the frames, in place."""
    height, width = rng.integers(3, 20, 2)
    row, column = rng.uniform(-10, 50, 2)
    down, right = rng.uniform(-20, 20, 2)
    colour = rng.uniform(0, _BRIGHTEST, 3).astype(np.float32)
    axis = np.arange(FRAME_SIZE)
    rows = np.abs(axis - (row + down * (times - times[:1]))[:, None]) < height / 2
    columns = np.abs(axis - (column + right * (times - times[:1]))[:, None]) < width / 2
    frames[rows[:, :, None] & columns[:, None, :]] = colour
