"""The kinds of scene that a talking model is trained and tested on, each with its ground truth.

Every family obeys cause and effect at the pace of micro-turns: what the model does follows from what it heard, saw or
read in micro-turns that are over by then.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data import scene_scripts as scripts
from tml_jax.data.record import USER, Conversation
from tml_jax.data.scene_delegation import play_delegation
from tml_jax.data.scene_render import FRAME_RATE, Shape, Timeline, draw_video, lengthen_pause, scene_duration
from tml_jax.data.voices import HELD_OUT_VOICES, TRAIN_VOICES, Synthesizer, vary

COUNT_PACE = 0.6  # seconds from number to number when the model counts
_TYPED_SHARE = 0.2  # of `answer` scenes


@dataclasses.dataclass
class Scene:
    """What a family needs while it is played out.

    Attributes:
      timeline: where things are placed.
      rng: every draw of the scene.
      split: `train` or `held_out`.
      meta: facts to note in the record.
      microphone: whether the user has a sound channel at all.
    """

    timeline: Timeline
    rng: np.random.Generator
    split: str
    meta: dict
    microphone: bool = True

    @property
    def grids(self) -> scripts.Grids:
        """Times, sizes and speeds of the split."""
        return scripts.GRIDS[self.split]

    def draw(self, values: tuple) -> object:
        """One of the values, each as likely."""
        return values[int(self.rng.integers(len(values)))]

    def wording(self, kind: str, **fields: str) -> str:
        """A filled-in carrier of the split; the carrier and the fields are noted."""
        carrier = self.draw(scripts.CARRIERS[kind][self.split])
        self.meta.update(wording=carrier, **fields)
        return carrier.format(**fields)

    def keyword(self) -> str:
        """A keyword."""
        return self.draw(scripts.KEYWORDS)

    def lead(self) -> float:
        """When the user begins."""
        return self.draw(self.grids.lead)

    def reply(self, keyword: str, due: float, delay: float) -> float:
        """The model says the keyword `delay` seconds after it became due; returns the end."""
        end = self.timeline.model(keyword, due + delay)
        self.timeline.cue("respond", due, end, keyword)
        return end


def _answer(scene: Scene) -> float:
    """The user asks for a word, by voice or (meta `typed`) in writing."""
    keyword = scene.keyword()
    request = scene.wording("answer", keyword=keyword)
    scene.meta["typed"] = bool(scene.rng.random() < _TYPED_SHARE)
    if scene.meta["typed"]:
        scene.microphone = bool(scene.rng.random() < 0.5)
        time = scene.lead()
        scene.timeline.text(USER, request, time)
        return scene.reply(keyword, time, scene.draw(scene.grids.typed_reply))
    end = scene.timeline.user(request, scene.lead())
    return scene.reply(keyword, end, scene.draw(scene.grids.reply))


def _pause(scene: Scene) -> float:
    """The user pauses before the keyword; the model waits for it."""
    keyword = scene.keyword()
    speech = scene.timeline.speak(scene.wording("pause", keyword=keyword))
    last = len(speech.words) - 1
    scene.meta["pause"] = pause = scene.draw(scene.grids.pause)
    speech = lengthen_pause(speech, last, pause)
    start = scene.lead()
    end = scene.timeline.user(speech, start)
    scene.timeline.cue("hold", start + speech.words[last - 1].end, start + speech.words[last].start)
    return scene.reply(keyword, end, scene.draw(scene.grids.reply))


def _count(scene: Scene) -> tuple[float, list[float]]:
    """The user asks the model to count; returns when that is due and when each number begins."""
    due = scene.timeline.user(scene.wording("count"), scene.lead())
    first = due + scene.draw(scene.grids.reply)
    return due, [first + COUNT_PACE * index for index in range(len(scripts.NUMBERS))]


def _interruption(scene: Scene) -> float:
    """The user stops the model while it counts.

    The model has heard all of the interruption at the micro-turn boundary after its end: from there it begins no word,
    and one micro-turn later it breaks off the word it is in.
    """
    due, starts = _count(scene)
    words = scene.draw(scripts.INTERRUPTIONS)
    scene.meta["break_in"] = words
    heard = scene.timeline.user(words, starts[0] + scene.draw(scene.grids.break_in))
    boundary = scene_duration(heard)
    silent = boundary + MICRO_TURN_SECONDS
    spoken, end = [], due
    for number, start in zip(scripts.NUMBERS, starts):
        if start < boundary:
            end = scene.timeline.model(number, start, until=silent)
            spoken.append(number)
    scene.timeline.cue("respond", due, end, " ".join(spoken))
    scene.timeline.cue("yield", heard, heard + 2 * MICRO_TURN_SECONDS)
    return silent


def _backchannel(scene: Scene) -> float:
    """The user shows that they are listening while the model counts; the model goes on."""
    due, starts = _count(scene)
    words = scene.draw(scripts.BACKCHANNELS)
    scene.meta["break_in"] = words
    start = starts[0] + scene.draw(scene.grids.break_in)
    scene.timeline.user(words, start)
    end = due
    for number, time in zip(scripts.NUMBERS, starts):
        end = scene.timeline.model(number, time)
    scene.timeline.cue("respond", due, end, " ".join(scripts.NUMBERS))
    scene.timeline.cue("keep", start, end)
    return end


def _timed(scene: Scene) -> float:
    """The user asks for a word after a number of seconds."""
    keyword, delay = scene.keyword(), scene.draw(tuple(scripts.DELAYS))
    end = scene.timeline.user(scene.wording("timed", keyword=keyword, delay=delay), scene.lead())
    due = end + scripts.DELAYS[delay]
    scene.timeline.cue("hold", end, due)
    return scene.reply(keyword, due, 0.0)


def _cue(scene: Scene) -> float:
    """The user asks for a word at a cue, and talks on before and after giving it."""
    timeline, keyword, cue = scene.timeline, scene.keyword(), scene.draw(scripts.CUE_WORDS)
    asked = timeline.user(scene.wording("cue", keyword=keyword, cue=cue), scene.lead())
    fillers = scene.rng.permutation(scripts.FILLERS[scene.split])[:2]
    time = timeline.user(str(fillers[0]), asked + scene.rng.uniform(0.4, 0.8))
    given = timeline.user(cue, time + scene.rng.uniform(0.15, 0.35))
    timeline.cue("hold", asked, given)
    talked = timeline.user(str(fillers[1]), given + scene.rng.uniform(0.1, 0.2))
    return max(talked, scene.reply(keyword, given, scene.draw(scene.grids.cue_reply)))


def _visual(scene: Scene) -> float:
    """The user asks for a word when an object comes into sight."""
    keyword, kind = scene.keyword(), scene.draw(scripts.SHAPES)
    asked = scene.timeline.user(scene.wording("visual", keyword=keyword, shape=kind), scene.lead())
    phase = scene.rng.uniform(0.0, 1.0 / FRAME_RATE)
    wanted = asked + scene.draw(scene.grids.event)
    appears = phase + np.ceil((wanted - phase) * FRAME_RATE) / FRAME_RATE
    colour = scene.draw(tuple(scripts.COLOURS[scene.split]))
    shape = Shape(
        kind, scripts.COLOURS[scene.split][colour], scene.draw(scene.grids.size),
        tuple(scene.rng.uniform(10, 29, 2)), tuple(scene.rng.uniform(-8, 8, 2)), appears,
    )  # fmt: skip
    scene.meta.update(colour=colour, size=shape.radius, event=float(appears))
    scene.timeline.cue("hold", asked, float(appears))
    end = scene.reply(keyword, float(appears), scene.draw(scene.grids.event_reply))
    times = phase + np.arange(int((end + 2.0) * FRAME_RATE)) / FRAME_RATE
    scene.timeline.video(draw_video(scene.rng, times, shape), times)
    return end


def _silence(scene: Scene) -> float:
    """Nobody asks for anything; the model says nothing."""
    time = scene.lead()
    for _ in range(int(scene.rng.integers(0, 3))):
        time = scene.timeline.user(scene.wording("silence"), time) + scene.rng.uniform(0.3, 0.8)
    end = max(float(time), 2.0)
    scene.timeline.cue("hold", 0.0, end + scene.grids.tail[0])
    return end


# Family → (how it plays out, share of the training scenes).
FAMILIES: dict[str, tuple[Callable[[Scene], float], float]] = {
    "answer": (_answer, 0.20),
    "pause": (_pause, 0.13),
    "interruption": (_interruption, 0.14),
    "backchannel": (_backchannel, 0.11),
    "timed": (_timed, 0.13),
    "cue": (_cue, 0.13),
    "visual": (_visual, 0.11),
    "silence": (_silence, 0.05),
    "delegation": (play_delegation, 0.15),
}


def make_scene(synthesizer: Synthesizer, name: str, rng: np.random.Generator, split: str, family: str) -> Conversation:
    """Plays out one scene.

    Args:
      synthesizer: speaks for both sides.
      name: id of the record.
      rng: every draw of the scene.
      split: `train` or `held_out`: which voices, wordings, times, sizes and colours it may use.
      family: a key of `FAMILIES`.

    Returns:
      The conversation, with `words`, `cues` and sound that agree to the sample.
    """
    voices = TRAIN_VOICES if split == scripts.TRAIN else HELD_OUT_VOICES
    voice = vary(voices[int(rng.integers(len(voices)))], rng)
    grids = scripts.GRIDS[split]
    speed = grids.speed[int(rng.integers(len(grids.speed)))]
    meta = {"voice": voice.name, "speed": speed, "split": split, "wording": ""}
    scene = Scene(Timeline(synthesizer, rng, voice, speed), rng, split, meta)
    end = FAMILIES[family][0](scene) + scene.draw(grids.tail)
    return scene.timeline.conversation(name, family, end, scene.meta, microphone=scene.microphone)


def draw_family(rng: np.random.Generator) -> str:
    """A family, drawn by its share of the training scenes."""
    shares = np.asarray([share for _, share in FAMILIES.values()])
    return str(rng.choice(list(FAMILIES), p=shares / shares.sum()))
