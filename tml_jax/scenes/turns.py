"""Families of two people: the user asks, waits, pauses, interrupts or chats; the model answers, waits or yields."""

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import USER
from tml_jax.scenes import scripts
from tml_jax.scenes.render import lengthen_pause, scene_duration
from tml_jax.scenes.scene import Scene

_TYPED_SHARE = 0.2  # of `answer` scenes


def answer(scene: Scene) -> float:
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


def pause(scene: Scene) -> float:
    """The user pauses before the keyword; the model waits for it."""
    keyword = scene.keyword()
    speech = scene.timeline.speak(scene.wording("pause", keyword=keyword))
    last = len(speech.words) - 1
    scene.meta["pause"] = waits = scene.draw(scene.grids.pause)
    speech = lengthen_pause(speech, last, waits)
    start = scene.lead()
    end = scene.timeline.user(speech, start)
    scene.timeline.cue("hold", start + speech.words[last - 1].end, start + speech.words[last].start)
    return scene.reply(keyword, end, scene.draw(scene.grids.reply))


def interruption(scene: Scene) -> float:
    """The user stops the model while it counts.

    The model has heard all of the interruption at the micro-turn boundary after its end: from there it begins no word,
    and one micro-turn later it has broken off the word it is in.
    """
    due, starts = scene.ask_to_count()
    words = scene.interruption()
    scene.meta["break_in"] = words
    speech = scene.timeline.speak(words)
    # Long words come early: when they end, there is a number left to be held back.
    latest = starts[-1] - MICRO_TURN_SECONDS - speech.duration
    heard = scene.timeline.user(speech, min(starts[0] + scene.draw(scene.grids.break_in), latest))
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


def backchannel(scene: Scene) -> float:
    """The user shows that they are listening while the model counts; the model goes on."""
    due, starts = scene.ask_to_count()
    words = scene.draw(scripts.BACKCHANNELS[scene.wordings])
    scene.meta["break_in"] = words
    start = starts[0] + scene.draw(scene.grids.break_in)
    scene.timeline.user(words, start)
    return scene.count_on(due, starts, start)


def timed(scene: Scene) -> float:
    """The user asks for a word after a number of seconds."""
    keyword, delay = scene.keyword(), scene.amount("delays")
    end = scene.timeline.user(scene.wording("timed", keyword=keyword, delay=delay), scene.lead())
    due = end + scripts.DELAYS[delay]
    scene.timeline.cue("hold", end, due)
    return scene.reply(keyword, due, 0.0)


def cue(scene: Scene) -> float:
    """The user asks for a word at a cue, and talks on before and after giving it."""
    timeline, keyword, word = scene.timeline, scene.keyword(), scene.draw(scripts.CUE_WORDS)
    asked = timeline.user(scene.wording("cue", keyword=keyword, cue=word), scene.lead())
    fillers = scene.said("filler", 2)
    time = timeline.user(fillers[0], asked + scene.rng.uniform(0.4, 0.8))
    given = timeline.user(word, time + scene.rng.uniform(0.15, 0.35))
    timeline.cue("hold", asked, given)
    talked = timeline.user(fillers[1], given + scene.rng.uniform(0.1, 0.2))
    return max(talked, scene.reply(keyword, given, scene.draw(scene.grids.cue_reply)))
