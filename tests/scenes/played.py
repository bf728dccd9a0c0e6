"""Scenes for tests, and how they are looked through."""

from collections.abc import Iterable

import numpy as np

from tml_jax.data.record import Conversation, Cue, Word
from tml_jax.scenes import scripts
from tml_jax.scenes.families import make_scene
from tml_jax.scenes.pictures import TINGED
from tml_jax.scenes.voices import Synthesizer

EACH = 6  # scenes of each family and split in the fixture `records`
Played = dict[tuple[str, str], list[Conversation]]  # (family, split) → scenes


def play(synthesizer: Synthesizer, families: Iterable[str], splits: Iterable[str], each: int, seed: int) -> Played:
    """So many scenes of each family and split."""
    return {
        (family, split): [
            make_scene(synthesizer, f"{family}{index}", np.random.default_rng([seed, index]), split, family)
            for index in range(each)
        ]
        for family in families
        for split in splits
    }


def scenes_of(played: Played, *families: str) -> list[Conversation]:
    """Those of some families, of every split."""
    return [record for (family, _), found in played.items() if family in families for record in found]


def words_of(record: Conversation, speaker: str) -> list[Word]:
    """What one of them says."""
    return [word for word in record.words if word.speaker == speaker]


def cues_of(record: Conversation, kind: str) -> list[Cue]:
    """Those of one kind."""
    return [cue for cue in record.cues if cue.kind == kind]


def coloured(record: Conversation, split: str, colour: str) -> np.ndarray:
    """(frames, rows, columns) bool, the pixels that have a colour of the split; in training it varies."""
    off = np.abs(record.frames.astype(int) - np.asarray(scripts.COLOURS[split][colour])).max(axis=3)
    return off <= TINGED if split == scripts.TRAIN else off < 3


def seen(record: Conversation, split: str) -> tuple[np.ndarray, np.ndarray]:
    """In which frames something has the colour of the object asked for, and in which no other object is: (frames,)."""
    near = coloured(record, split, record.meta["colour"])
    alone = np.ones(len(near), bool)
    for appears, gone in record.meta.get("decoys_seen", ()):
        alone &= (record.frame_times < appears - 1e-6) | (record.frame_times >= gone - 1e-6)
    return near.reshape(len(near), -1).sum(axis=1) > 15, alone
