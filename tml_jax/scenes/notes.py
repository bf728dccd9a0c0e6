"""The source in which the model writes down what is asked of it, one utterance after the other, without doing it.

A scene asks once in ten seconds, and whether the request was understood shows when it is over: from scenes alone, a
replica that knew training's own wordings spoke at once in four of five scenes whose word was to come at a cue, where
the turn of phrase was new. Here an utterance comes every three seconds, and what is due is read at its end.
"""

from collections.abc import Callable

import numpy as np

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import MODEL, OTHER, USER, Conversation
from tml_jax.scenes import delegation, scripts
from tml_jax.scenes.acoustics import draw_acoustics
from tml_jax.scenes.patterns import exchanges
from tml_jax.scenes.pictures import ACTIONS
from tml_jax.scenes.render import scene_duration
from tml_jax.scenes.scene import Scene, new_scene
from tml_jax.scenes.texts import INSIDE
from tml_jax.scenes.voices import Synthesizer, Voice

NOTE = "note"  # what the user types to have it noted
NOTHING = "nothing"  # what is noted of an utterance that asks for nothing, or that is not for the model
STOP = "stop"  # what is noted of an interruption
_LATER = 2  # micro-turns from the one in which an utterance ends to its note
_UTTERANCES = (3, 6)  # of a record: at least, and fewer than
_TYPED_SHARE = 0.1  # of utterances
_ALL_TYPED_SHARE = 0.1  # of records, without a microphone
_LATEST = 10.0  # seconds at which one may still begin, but for the first three: a row of training holds 16 s
_BETWEEN = (0.5, 0.9)  # seconds from one to the next: longer than within an utterance


def _answer(scene: Scene) -> tuple[str, str]:
    keyword = scene.keyword()
    return scene.wording(scene.draw(("answer", "answer", "pause")), keyword=keyword), keyword


def _timed(scene: Scene) -> tuple[str, str]:
    keyword, delay = scene.keyword(), scene.amount("delays")
    return scene.wording("timed", keyword=keyword, delay=delay), f"{delay} {keyword}"


def _cue(scene: Scene) -> tuple[str, str]:
    keyword, cue = scene.keyword(), scene.draw(scripts.CUE_WORDS)
    return scene.wording("cue", keyword=keyword, cue=cue), f"{cue} {keyword}"


def _visual(scene: Scene) -> tuple[str, str]:
    keyword, kind = scene.keyword(), scene.draw(scripts.SHAPES)
    return scene.wording("visual", keyword=keyword, shape=kind), f"{kind} {keyword}"


def _visual_stop(scene: Scene) -> tuple[str, str]:
    kind, keyword = scene.draw(scripts.SHAPES), scene.keyword()
    second = scene.draw((*(word for word in scripts.KEYWORDS if word != keyword), *[scripts.GONE] * 6))
    request = scene.wording("visual_stop", keyword=keyword, second=second, shape=kind)
    return request, f"{kind} {keyword} {second}"


def _repetition(scene: Scene) -> tuple[str, str]:
    kind = scene.draw(scripts.SHAPES)
    return scene.wording("repetition", shape=kind, action=scene.draw(ACTIONS)), f"count {kind}"


def _plain(scene: Scene) -> tuple[str, str]:
    """A request without anything to fill in."""
    kind, noted = scene.draw(tuple(_PLAIN.items()))
    return scene.wording(kind), noted


def _sum(scene: Scene) -> tuple[str, str]:
    """A sum, noted in words: in figures it is handed over, and a replica that noted these showed some of its tasks."""
    _, words = scene.draw(delegation.SUMS)
    kind = str(scene.rng.choice(("sum", "following", "refining"), p=(0.6, 0.15, 0.25)))
    noted = "instead" if kind == "refining" else "sum"
    return scene.fill(scene.carrier(kind, delegation.ASKED[kind]), sum=words), f"{noted} {words}"


def _word(scene: Scene) -> tuple[str, str]:
    """A word to be said, in the manner of a sum."""
    word = scene.draw((*scripts.KEYWORDS, *scripts.NUMBERS))
    return scene.fill(scene.carrier("word", delegation.NEAR_REQUESTS), word=word), word


def _interruption(scene: Scene) -> tuple[str, str]:
    return scene.interruption(), STOP


def _remark(scene: Scene) -> tuple[str, str]:
    """Something that asks for nothing: of the user's day, of numbers, or no more than a sign of listening."""
    kind = str(
        scene.rng.choice(("silence", "filler", "story_piece", "near", "listening"), p=(0.45, 0.12, 0.1, 0.25, 0.08))
    )
    if kind == "listening":
        return scene.draw(scripts.BACKCHANNELS[scene.wordings]), NOTHING
    return delegation.remark(scene, kind), NOTHING


_PLAIN = {
    "count": "count", "count_seen": "how many", "quiet_until_seen": "what", "repeat": "repeat",
    "translate": "translate",
}  # fmt: skip
# How an utterance and its note are made → share; the rest is not for the model at all (`_not_for_it`).
_KINDS: tuple[tuple[Callable[[Scene], tuple[str, str]], float], ...] = (
    (_answer, 0.12), (_timed, 0.05), (_cue, 0.11), (_visual, 0.04), (_visual_stop, 0.04), (_repetition, 0.02),
    (_plain, 0.09), (_sum, 0.07), (_word, 0.04), (_interruption, 0.14), (_remark, 0.14),
)  # fmt: skip


def make_noted(synthesizer: Synthesizer, name: str, rng: np.random.Generator) -> Conversation:
    """The user speaks or types a few times, to the model or not, and after each the model writes what is asked of it.

    Args:
      synthesizer: speaks for all.
      name: id of the record.
      rng: every draw.

    Returns:
      The conversation. The note of an utterance that ends, or is typed, within [0.2 t, 0.2 (t + 1)) is shown in window
      t + 2, that of a spoken interruption, `STOP`, in the first after its end: "go tiger" for that word at that cue,
      "three tiger", "ball tiger gone", "tiger" at once, "sum two plus three", `NOTHING`. `meta["notes"]` has all, and
      `meta["asked"]` for each the wording and what it was filled in with.
    """
    scene = new_scene(synthesizer, rng, scripts.TRAIN)
    scene.timeline.text(USER, NOTE, 0.0)
    voice, end, notes, asked = {"voice": scene.meta["voice"], "speed": scene.meta["speed"]}, scene.lead(), [], []
    other, level = scene.another_voice(), scene.draw(scene.grids.beside)
    scene.microphone = bool(rng.random() >= _ALL_TYPED_SHARE)
    shares = np.asarray([share for _, share in _KINDS])
    for number in range(int(rng.integers(*_UTTERANCES))):
        if number >= _UTTERANCES[0] and end > _LATEST:
            break
        scene.meta.clear()  # so that it has the facts of this utterance alone
        at_once = False
        drawn = int(rng.choice(len(_KINDS) + 1, p=[*shares, 1 - shares.sum()]))
        if drawn == len(_KINDS) and scene.microphone:
            end, note = _not_for_it(scene, other, level, end), NOTHING
        else:
            make = _KINDS[drawn][0] if drawn < len(_KINDS) else _remark  # nobody else is heard without a microphone
            text, note = make(scene)
            if scene.microphone and rng.random() >= _TYPED_SHARE:
                end = scene.timeline.user(text, end)
                at_once = note == STOP
            else:
                scene.timeline.text(USER, text, end)
        # A spoken interruption is noted from when on a model that counts begins no further number: nothing that is
        # heard after that helps it.
        later = (int(np.floor(end / MICRO_TURN_SECONDS + 1e-6)) + _LATER) * MICRO_TURN_SECONDS
        scene.timeline.text(MODEL, note, round((scene_duration(end) if at_once else later) + INSIDE, 6))
        notes.append(note)
        asked.append(dict(scene.meta))
        end += rng.uniform(*_BETWEEN)
    meta = {**voice, "notes": notes, "asked": asked, "split": scripts.TRAIN}
    acoustics = draw_acoustics(rng, scripts.TRAIN) if scene.microphone else None
    return scene.timeline.conversation(name, "noted", end + 0.6, meta, acoustics, speaker=False)


def _not_for_it(scene: Scene, other: Voice, level: float, start: float) -> float:
    """The user and somebody else talk to each other, or a television is heard; returns the end."""
    if scene.rng.random() < 0.75:
        return scene.exchange(scene.draw(exchanges(scene.wordings)), other, level, start)
    return scene.exchange(((OTHER, scene.said("television")[0]),), other, scene.draw(scene.grids.television), start)
