"""Families in which others are heard, who do not speak to the model: the user's company, and a television."""

from tml_jax.data.record import OTHER
from tml_jax.scenes import scripts
from tml_jax.scenes.patterns import exchanges
from tml_jax.scenes.scene import Scene

_COUNTING, _BEFORE, _AFTER = "counting", "before", "after"  # when the user talks to somebody else
# In training more often before a request or after it: a replica that held its turn under all talk took the lines
# before a request for a story, and showed that it listened.
_TRAINED = (_COUNTING, _BEFORE, _BEFORE, _AFTER, _AFTER)


def side_talk(scene: Scene) -> float:
    """The user and somebody else talk while the model counts, or before or after a request."""
    other, level = scene.another_voice(), scene.draw(scene.grids.beside)
    lines = scene.draw(exchanges(scene.wordings))
    when = scene.draw(_TRAINED if scene.split == scripts.TRAIN else (_COUNTING, _BEFORE, _AFTER))
    scene.meta.update(beside_db=level, when=when)
    scene.meta["talk"] = " / ".join(text for _, text in lines)
    if when == _COUNTING:
        due, starts = scene.ask_to_count()
        begins = starts[0] + scene.draw(scene.grids.break_in)
        talked = scene.exchange(lines, other, level, begins)
        return max(talked, scene.count_on(due, starts, begins))
    if when == _BEFORE:
        begins = scene.lead()
        asked = scene.exchange(lines, other, level, begins) + scene.rng.uniform(0.4, 0.8)
        scene.timeline.cue("hold", begins, asked)
        return _ask_for_word(scene, asked)
    replied = _ask_for_word(scene, scene.lead())
    talked = scene.exchange(lines, other, level, replied + scene.rng.uniform(0.4, 0.8))
    # A reply to the talk would come after it.
    end = talked + scene.grids.reply[-1]
    scene.timeline.cue("hold", replied, end + scene.grids.tail[0])
    return end


def background(scene: Scene) -> float:
    """A television runs, far softer than the user, before and under a request, or under the model's counting."""
    voice, level = scene.another_voice(), scene.draw(scene.grids.television)
    lines = tuple((OTHER, text) for text in scene.said("television", 2))
    scene.meta.update(television_db=level, when=scene.draw(("counting", "asking")))
    scene.meta["talk"] = " / ".join(text for _, text in lines)
    if scene.meta["when"] == "counting":
        due, starts = scene.ask_to_count()
        begins = starts[0] + scene.rng.uniform(0.2, 0.8)
        talked = scene.exchange(lines, voice, level, begins)
        return max(talked, scene.count_on(due, starts, begins))
    begins = scene.lead()
    talked = scene.exchange(lines, voice, level, begins)
    asked = begins + scene.rng.uniform(0.6, 1.4)
    scene.timeline.cue("hold", 0.0, asked)
    return max(talked, _ask_for_word(scene, asked))


def _ask_for_word(scene: Scene, start: float) -> float:
    """The user asks for a word and the model says it; returns the end."""
    keyword = scene.keyword()
    end = scene.timeline.user(scene.wording("answer", keyword=keyword), start)
    return scene.reply(keyword, end, scene.draw(scene.grids.reply))
