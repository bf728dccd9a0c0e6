"""Families of what is seen: the model speaks when something appears, goes, or is done again, and tells how many."""

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data import scene_scripts as scripts
from tml_jax.data.clips import behind
from tml_jax.data.scene import Scene
from tml_jax.data.scene_pictures import (
    ACTIONS,
    FRAME_SIZE,
    Repeats,
    Shape,
    draw_video,
    frame_at,
    frame_times,
    vary_colour,
)

_LONGEST = 30.0  # seconds for which frame times are laid out
_LONGEST_ACTION = 4.3  # seconds of a repeated action in the splits of training length
_DECOY_SHARE = 0.5  # of scenes that wait for an object, in which another one comes first
_CLIP_SHARE = 0.5  # of training scenes with pictures that have a clip behind them, where there are clips
_DECOY_REST = (0.3, 0.9)  # seconds without any object before the one that is waited for


def visual(scene: Scene) -> float:
    """The user asks for a word when an object comes into sight; another one, which may come first, is not it."""
    keyword, kind = scene.keyword(), scene.draw(scripts.SHAPES)
    asked = scene.timeline.user(scene.wording("visual", keyword=keyword, shape=kind), scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    decoys, free = _decoys(scene, times, kind, asked)
    appears = frame_at(times, free + scene.draw(scene.grids.event))
    shape = _shape(scene, kind, appears=appears)
    scene.meta.update(event=appears)
    scene.timeline.cue("hold", asked, appears)
    end = scene.reply(keyword, appears, scene.draw(scene.grids.event_reply))
    _show(scene, times, end, (*decoys, shape))
    return end


def visual_stop(scene: Scene) -> float:
    """The user asks for a word when an object comes into sight and for another when it is gone; as in `visual`."""
    kind, keyword = scene.draw(scripts.SHAPES), scene.keyword()
    second = scene.draw(tuple(word for word in scripts.KEYWORDS if word != keyword))
    if scene.rng.random() < 0.5:
        second = scripts.GONE
    request = scene.wording("visual_stop", keyword=keyword, second=second, shape=kind)
    asked = scene.timeline.user(request, scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    decoys, free = _decoys(scene, times, kind, asked)
    appears = frame_at(times, free + 0.5 * scene.draw(scene.grids.event))
    gone = frame_at(times, appears + scene.draw(scene.grids.stay))
    scene.meta.update(event=appears, gone=gone)
    shape = _shape(scene, kind, appears=appears, gone=gone)
    delay = scene.draw(scene.grids.event_reply)
    scene.timeline.cue("hold", asked, appears)
    said = scene.reply(keyword, appears, delay)
    scene.timeline.cue("hold", said, gone)
    end = scene.reply(second, gone, delay)
    _show(scene, times, end, (*decoys, shape))
    return end


def repetition(scene: Scene) -> float:
    """An object does something several times, and the model counts each one as soon as it is complete."""
    kind, action, count = scene.draw(scripts.SHAPES), scene.draw(ACTIONS), scene.amount("repetitions")
    asked = scene.timeline.user(scene.wording("repetition", shape=kind, action=action), scene.lead())
    periods = scene.grids.period
    if scene.split != scripts.EXTRAPOLATION:
        periods = tuple(period for period in periods if period * count <= _LONGEST_ACTION)
    period = scene.draw(periods)
    repeats = Repeats(action, asked + scene.draw(scene.grids.lead), period, count)
    scene.meta.update(repetitions=count, period=period)
    times = frame_times(scene.rng, _LONGEST)
    due = [frame_at(times, complete) for complete in repeats.ends()]
    # Low and to the left, so that there is room to go to.
    start = tuple(FRAME_SIZE * share for share in (scene.rng.uniform(0.6, 0.75), scene.rng.uniform(0.25, 0.4)))
    delay, end = scene.draw(scene.grids.event_reply), asked
    scene.timeline.cue("hold", asked, due[0])
    for number, complete in zip(scripts.NUMBERS, due):
        end = scene.reply(number, complete, delay)
    quiet = due[-1] + period + delay + MICRO_TURN_SECONDS  # one number more would be heard by then
    scene.timeline.cue("hold", end, quiet)
    end = max(end, quiet - scene.grids.tail[0])
    _show(scene, times, end, (_shape(scene, kind, start=start, moving=False, repeats=repeats),))
    return end


def count_seen(scene: Scene) -> float:
    """The user asks how many objects there are."""
    kind, count = scene.draw(scripts.SHAPES), scene.amount("objects")
    end = scene.timeline.user(scene.wording("count_seen"), scene.lead())
    scene.meta.update(objects=count)
    times = frame_times(scene.rng, _LONGEST)
    across = 2 if count <= 4 else 3
    height, width = FRAME_SIZE / 2, FRAME_SIZE / across
    radius = scene.draw(tuple(size for size in scene.grids.size if size <= width / 2 - 1))
    cells = scene.rng.permutation(2 * across)[:count]
    first = _shape(scene, kind, radius=radius, moving=False)
    shapes = []
    for cell in cells:
        row, column = divmod(int(cell), across)
        middle = np.array([(row + 0.5) * height, (column + 0.5) * width])
        room = np.array([height, width]) / 2 - radius - 0.5  # at least a pixel lies between two objects
        centre = np.clip(middle + scene.rng.uniform(-1, 1, 2) * room, radius, FRAME_SIZE - 1 - radius)
        shapes.append(Shape(kind, first.colour, radius, tuple(centre)))
    said = scene.reply(scripts.NUMBERS[count - 1], end, scene.draw(scene.grids.reply))
    _show(scene, times, said, shapes)
    return said


def quiet_until_seen(scene: Scene) -> float:
    """The user asks what comes into the picture; until something does, talk and light must not count as it."""
    kind = scene.draw(scripts.SHAPES)
    asked = scene.timeline.user(scene.wording("quiet_until_seen"), scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    appears = frame_at(times, asked + scene.draw(scene.grids.event))
    talked, light = asked, None
    distractor = scene.draw(("none", "talk", "light"))
    if distractor == "talk":
        filler = scene.draw(scripts.FILLERS[scene.part])
        talked = scene.timeline.user(filler, asked + scene.rng.uniform(0.3, 0.6))
    elif distractor == "light":
        # It ends before the object comes, so that neither hides the other.
        begins = asked + scene.rng.uniform(0.0, 0.3) * (appears - asked)
        light = (begins, begins + scene.rng.uniform(0.4, 0.6) * (appears - asked))
    scene.meta.update(event=appears, distractor=distractor)
    scene.timeline.cue("hold", asked, appears)
    end = scene.reply(kind, appears, scene.draw(scene.grids.event_reply))
    _show(scene, times, max(end, talked), (_shape(scene, kind, appears=appears),), light)
    return max(end, talked)


def _decoys(scene: Scene, times: np.ndarray, kind: str, asked: float) -> tuple[tuple[Shape, ...], float]:
    """In half of the scenes, an object that is not of the `kind` asked for, and goes again; and when that is over.

    Args:
      scene: the scene; `meta` notes its `decoy`, a shape or "", and when it is seen (`decoy_seen`, two times).
      times: of the frames, seconds.
      kind: what is asked for.
      asked: end of the request, seconds.

    Returns:
      (no object or one, seconds from which on the other may come).
    """
    scene.meta["decoy"] = ""
    if scene.rng.random() >= _DECOY_SHARE:
        return (), asked
    decoy = scene.draw(tuple(shape for shape in scripts.SHAPES if shape != kind))
    appears = frame_at(times, asked + 0.25 * scene.draw(scene.grids.event))
    gone = frame_at(times, appears + 0.5 * scene.draw(scene.grids.stay))
    shape = _shape(scene, decoy, appears=appears, gone=gone)
    scene.meta.update(decoy=decoy, decoy_seen=[appears, gone])
    return (shape,), gone + scene.rng.uniform(*_DECOY_REST) - 0.5 * scene.grids.event[0]


def _shape(
    scene: Scene,
    kind: str,
    start: tuple[float, float] | None = None,
    radius: float | None = None,
    moving: bool = True,
    **fields: object,
) -> Shape:
    """An object of a colour and size of the split, which are noted."""
    colours = scripts.COLOURS[scene.part]
    colour = scene.draw(tuple(colours))
    tinged = vary_colour(colours[colour], scene.rng) if scene.part == scripts.TRAIN else colours[colour]
    radius = scene.draw(scene.grids.size) if radius is None else radius
    start = tuple(scene.rng.uniform(10, 29, 2)) if start is None else start
    velocity = tuple(scene.rng.uniform(-8, 8, 2)) if moving else (0.0, 0.0)
    scene.meta.update(shape=kind, colour=colour, size=radius)
    return Shape(kind, tinged, radius, start, velocity, **fields)


def _show(
    scene: Scene,
    times: np.ndarray,
    end: float,
    shapes: tuple[Shape, ...] | list[Shape],
    light: tuple[float, float] | None = None,
) -> None:
    """Draws the frames of a scene that ends at `end` but for its tail, which may hold two seconds."""
    times = times[times < end + 2.0]
    clip = None
    if scene.clips and (scene.split != scripts.TRAIN or scene.rng.random() < _CLIP_SHARE):
        film = scene.draw(scene.clips)
        clip, scene.meta["clip"] = behind(film.frames, len(times), scene.rng), film.name
    scene.timeline.video(draw_video(scene.rng, times, shapes, light, clip), times)
