"""Families in which the model speaks while the user goes on: to repeat each word, or to show that it listens."""

from tml_jax.scenes import scripts
from tml_jax.scenes.scene import Scene

_TRANSLATED_SHARE = 1 / 3  # of `simultaneous` scenes
_BETWEEN = 0.02  # seconds at least between two words of the model


def simultaneous(scene: Scene) -> float:
    """While the user goes on, the model repeats each word, or says the user's Spanish numbers in English."""
    scene.meta["task"] = task = "translate" if scene.rng.random() < _TRANSLATED_SHARE else "repeat"
    due = {word: word for word in scripts.KEYWORDS} if task == "repeat" else scripts.TRANSLATIONS
    words = [str(word) for word in scene.rng.permutation(list(due))[: scene.amount("repeated")]]
    asked = scene.timeline.user(scene.wording(task), scene.lead())
    start = asked + scene.rng.uniform(0.5, 0.8)
    scene.timeline.cue("hold", asked, start)
    delay, said = scene.draw(scene.grids.cue_reply), 0.0
    for word in words:
        heard = scene.timeline.user(word, start)
        said = scene.reply(due[word], heard, max(delay, said + _BETWEEN - heard))
        start = heard + scene.draw(scene.grids.gap)
    return said


def model_backchannel(scene: Scene) -> float:
    """The user tells a story; the model shows after each piece that it listens, and answers the request at the end."""
    pieces = scene.said("story_piece", scene.amount("beats"))
    text, start = scene.wording("story", story=pieces[0]), scene.lead()
    for following in [*pieces[1:], None]:
        end = scene.timeline.user(text, start)
        scene.timeline.cue("hold", start, end)
        scene.reply(scripts.LISTENING, end, scene.draw(scene.grids.reply))
        start, text = end + scene.draw(scene.grids.beat), following
    keyword = scene.keyword()
    speech = scene.timeline.speak(scene.wording("answer", note="request", keyword=keyword))
    end = scene.timeline.user(speech, start)
    scene.timeline.cue("hold", start, start + speech.words[-1].start)
    return scene.reply(keyword, end, scene.draw(scene.grids.reply))
