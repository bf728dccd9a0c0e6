"""The kinds of scene that a talking model is trained and tested on, each with its ground truth.

Every family obeys cause and effect at the pace of micro-turns: what the model does follows from what it heard, saw or
read in micro-turns that are over by then.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from tml_jax.data.record import Conversation
from tml_jax.scenes import company, delegation, listening, scripts, sights, turns
from tml_jax.scenes.acoustics import draw_acoustics, without_echo
from tml_jax.scenes.clips import Clip
from tml_jax.scenes.scene import Scene, new_scene
from tml_jax.scenes.voices import Synthesizer


@dataclasses.dataclass(frozen=True)
class Family:
    """How a family plays out, its share of the training scenes, and whether it has pictures."""

    play: Callable[[Scene], float]
    share: float
    seen: bool = False


FAMILIES: dict[str, Family] = {
    "answer": Family(turns.answer, 0.08),
    "pause": Family(turns.pause, 0.07),
    "interruption": Family(turns.interruption, 0.14),
    "backchannel": Family(turns.backchannel, 0.04),
    "timed": Family(turns.timed, 0.04),
    "cue": Family(turns.cue, 0.09),
    "silence": Family(sights.silence, 0.08, seen=True),
    "side_talk": Family(company.side_talk, 0.11),
    "background": Family(company.background, 0.06),
    "visual": Family(sights.visual, 0.04, seen=True),
    "visual_stop": Family(sights.visual_stop, 0.04, seen=True),
    "repetition": Family(sights.repetition, 0.02, seen=True),
    "count_seen": Family(sights.count_seen, 0.04, seen=True),
    "quiet_until_seen": Family(sights.quiet_until_seen, 0.02, seen=True),
    "simultaneous": Family(listening.simultaneous, 0.02),
    "model_backchannel": Family(listening.model_backchannel, 0.03),
    "delegation": Family(delegation.delegation, 0.08),
}
SEEN = tuple(name for name, family in FAMILIES.items() if family.seen)


def make_scene(
    synthesizer: Synthesizer,
    name: str,
    rng: np.random.Generator,
    split: str,
    family: str,
    clips: tuple[Clip, ...] = (),
) -> Conversation:
    """Plays out one scene.

    Args:
      synthesizer: speaks for all.
      name: id of the record.
      rng: every draw of the scene.
      split: one of `scripts.SPLITS`: which voices, wordings, times, sizes and colours it may use.
      family: a key of `FAMILIES`.
      clips: of the split, as `clips.load_clips` gives them; none for drawn backgrounds.

    Returns:
      The conversation, with `words`, `cues` and sound that agree to the sample.
    """
    scene = new_scene(synthesizer, rng, split, clips)
    end = FAMILIES[family].play(scene) + scene.draw(scene.grids.tail)
    microphone = draw_acoustics(rng, split) if scene.microphone else None
    if microphone is not None and split != scripts.TRAIN:
        microphone, facts = without_echo(microphone)
        scene.meta.update(facts)
    return scene.timeline.conversation(name, family, end, scene.meta, microphone)


def draw_family(rng: np.random.Generator) -> str:
    """A family, drawn by its share of the training scenes."""
    shares = np.asarray([family.share for family in FAMILIES.values()])
    return str(rng.choice(list(FAMILIES), p=shares / shares.sum()))
