"""Families of what is seen: the model speaks when something appears, goes, or is done again, and tells how many; and,
where nobody asks, it says nothing, seen or not.
"""

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.scenes import scripts
from tml_jax.scenes.clips import behind
from tml_jax.scenes.delegation import remark
from tml_jax.scenes.pictures import (
    ACTIONS,
    FRAME_SIZE,
    Repeats,
    Shape,
    draw_video,
    frame_at,
    frame_times,
    vary_colour,
)
from tml_jax.scenes.scene import Scene

_LONGEST = 30.0  # seconds for which frame times are laid out
_LONGEST_ACTION = 4.3  # seconds of a repeated action in the splits of training length
_CLIP_SHARE = 0.5  # of training scenes with pictures that have a clip behind them, where there are clips
_UNASKED_SHARE = 0.5  # of `silence` scenes in which something is seen
# What is said in training where nobody asks: also pieces of a story that was not announced, and numbers.
_REMARKS = (*["silence"] * 6, "story_piece", "story_piece", "filler", "near")
_REST = (0.3, 0.9)  # seconds without any object between two
# Whether each object that comes is the one that is waited for, each sequence as likely: so is the first in half of the
# scenes, and the second, where there is one, in half of those.
_COMINGS = (*[(True,)] * 4, *[(False,)] * 2, (False, True), (False, False))


def visual(scene: Scene) -> float:
    """The user asks for a word when an object comes into sight; others may come, or come instead: they are not it."""
    keyword, kind = scene.keyword(), scene.draw(scripts.SHAPES)
    asked = scene.timeline.user(scene.wording("visual", keyword=keyword, shape=kind), scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    others, appears = _wait_for(scene, times, kind, asked, scene.draw(scene.grids.event))
    if appears is None:
        return _show(scene, times, _nothing_due(scene, asked), others)
    shape = _shape(scene, kind, appears=appears)
    scene.meta.update(event=appears)
    scene.timeline.cue("hold", asked, appears)
    end = scene.reply(keyword, appears, scene.draw(scene.grids.event_reply))
    return _show(scene, times, end, (*others, shape))


def visual_stop(scene: Scene) -> float:
    """The user asks for a word when an object comes into sight and for another when it is gone; as in `visual`."""
    kind, keyword = scene.draw(scripts.SHAPES), scene.keyword()
    second = scene.draw(tuple(word for word in scripts.KEYWORDS if word != keyword))
    if scene.rng.random() < 0.5:
        second = scripts.GONE
    request = scene.wording("visual_stop", keyword=keyword, second=second, shape=kind)
    asked = scene.timeline.user(request, scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    others, appears = _wait_for(scene, times, kind, asked, 0.5 * scene.draw(scene.grids.event))
    if appears is None:
        return _show(scene, times, _nothing_due(scene, asked), others)
    gone = frame_at(times, appears + scene.draw(scene.grids.stay))
    scene.meta.update(event=appears, gone=gone)
    shape = _shape(scene, kind, appears=appears, gone=gone)
    delay = scene.draw(scene.grids.event_reply)
    scene.timeline.cue("hold", asked, appears)
    said = scene.reply(keyword, appears, delay)
    scene.timeline.cue("hold", said, gone)
    end = scene.reply(second, gone, delay)
    return _show(scene, times, end, (*others, shape))


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
    return _show(scene, times, end, (_shape(scene, kind, start=start, moving=False, repeats=repeats),))


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
    return _show(scene, times, said, shapes)


def quiet_until_seen(scene: Scene) -> float:
    """The user asks what comes into the picture; until something does, talk and light must not count as it."""
    kind = scene.draw(scripts.SHAPES)
    asked = scene.timeline.user(scene.wording("quiet_until_seen"), scene.lead())
    times = frame_times(scene.rng, _LONGEST)
    appears = frame_at(times, asked + scene.draw(scene.grids.event))
    talked, light = asked, None
    distractor = scene.draw(("none", "talk", "light"))
    if distractor == "talk":
        talked = scene.timeline.user(scene.said("filler")[0], asked + scene.rng.uniform(0.3, 0.6))
    elif distractor == "light":
        # It ends before the object comes, so that neither hides the other.
        begins = asked + scene.rng.uniform(0.0, 0.3) * (appears - asked)
        light = (begins, begins + scene.rng.uniform(0.4, 0.6) * (appears - asked))
    scene.meta.update(event=appears, distractor=distractor)
    scene.timeline.cue("hold", asked, appears)
    end = scene.reply(kind, appears, scene.draw(scene.grids.event_reply))
    return _show(scene, times, max(end, talked), (_shape(scene, kind, appears=appears),), light)


def silence(scene: Scene) -> float:
    """Nobody asks for anything, whatever is said, and in half of the scenes is seen; the model says nothing."""
    time = scene.lead()
    for _ in range(int(scene.rng.integers(0, 3))):
        kind = scene.draw(_REMARKS) if scene.split == scripts.TRAIN else "silence"
        time = scene.timeline.user(remark(scene, kind), time) + scene.rng.uniform(0.3, 0.8)
    end = max(float(time), 2.0)
    times = frame_times(scene.rng, _LONGEST)
    shapes = _unasked(scene, times) if scene.rng.random() < _UNASKED_SHARE else ()
    for shape in shapes:
        over = shape.repeats.ends()[-1] if shape.repeats else shape.appears
        end = max(end, over + scene.grids.event_reply[-1])  # whoever speaks of it has begun by then
    scene.timeline.cue("hold", 0.0, end + scene.grids.tail[0])
    return _show(scene, times, end, shapes) if shapes else end


def _unasked(scene: Scene, times: np.ndarray) -> tuple[Shape, ...]:
    """An object that does something again and again, one that comes, or some that are there."""
    kind = scene.draw(scripts.SHAPES)
    scene.meta["seen"] = seen = scene.draw(("repeats", "comes", "is there"))
    if seen == "comes":
        return (_shape(scene, kind, appears=frame_at(times, scene.draw(scene.grids.event))),)
    if seen == "is there":
        return tuple(_shape(scene, kind) for _ in range(scene.amount("objects")))
    repeats = Repeats(scene.draw(ACTIONS), scene.lead(), scene.draw(scene.grids.period), scene.amount("repetitions"))
    return (_shape(scene, kind, moving=False, repeats=repeats),)


def _wait_for(
    scene: Scene, times: np.ndarray, kind: str, asked: float, wait: float
) -> tuple[tuple[Shape, ...], float | None]:
    """Which objects come before the one that is waited for, and when that comes, if it does.

    Neither when an object comes nor whether it is the first or the second tells what it is (`_COMINGS`).

    Args:
      scene: the scene; `meta` notes the shapes that were not asked for (`decoys`) and when each is seen (`decoys_seen`,
        pairs of seconds).
      times: of the frames, seconds.
      kind: what is asked for.
      asked: end of the request, seconds.
      wait: from then to the first object, whatever it is, seconds.

    Returns:
      (the others, seconds at which the one comes or None where it never does).
    """
    scene.meta.update(decoys=[], decoys_seen=[])
    others, comes = [], frame_at(times, asked + wait)
    for is_it in scene.draw(_COMINGS):
        if is_it:
            return tuple(others), comes
        other = scene.draw(tuple(shape for shape in scripts.SHAPES if shape != kind))
        gone = frame_at(times, comes + 0.5 * scene.draw(scene.grids.stay))
        others.append(_shape(scene, other, appears=comes, gone=gone))
        scene.meta["decoys"].append(other)
        scene.meta["decoys_seen"].append([comes, gone])
        comes = frame_at(times, gone + scene.rng.uniform(*_REST))
    scene.meta["shape"] = kind
    return tuple(others), None


def _nothing_due(scene: Scene, asked: float) -> float:
    """The model waits until a reply to the last object would have been heard; returns when that is."""
    end = scene.meta["decoys_seen"][-1][1] + scene.grids.event_reply[-1] + MICRO_TURN_SECONDS
    scene.timeline.cue("hold", asked, end + scene.grids.tail[0])
    return end


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
) -> float:
    """Draws the frames of a scene that ends at `end` but for its tail, which may hold two seconds; returns `end`."""
    times = times[times < end + 2.0]
    clip = None
    if scene.clips and (scene.split != scripts.TRAIN or scene.rng.random() < _CLIP_SHARE):
        film = scene.draw(scene.clips)
        clip, scene.meta["clip"] = behind(film.frames, len(times), scene.rng), film.name
    scene.timeline.video(draw_video(scene.rng, times, shapes, light, clip), times)
    return end
