"""Scenes of one family, made from (split, family, seed, index) alone and kept on disk."""

import pathlib
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from tml_jax.data import scene_families
from tml_jax.data.record import Conversation
from tml_jax.data.shards import open_shards, write_shards
from tml_jax.data.voices import Synthesizer


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """The families asked for, in the order of the registry; all of them where none is named.

    Raises:
      ValueError: one is not known.
    """
    known = list(scene_families.FAMILIES)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"family {unknown[0]!r} is not known: choose from {', '.join(known)}")
    return tuple(name for name in known if name in names or not names)


def kept_scenes(folder: pathlib.Path, split: str, family: str, seed: int, count: int) -> list[Conversation]:
    """The first `count` scenes, from disk if that many lie there, else made and written.

    Args:
      folder: holds a folder of records for each split, family and seed, as `launch.prepare` writes them.
      split: of the wordings, voices and times: `train` or `held_out`.
      family: a key of `scene_families.FAMILIES`.
      seed: another seed gives other scenes.
      count: how many; more are the same and further ones.

    Returns:
      The scenes, with ids `{split}-{family}-{seed}-{index}`.

    Raises:
      DataError: what lies there is broken, or something else.
      ImportError: the voices are not installed.
    """
    place = folder / f"{split}-{family}-{seed}"
    if not place.exists() or len(open_shards(place)) < count:
        write_shards(_make(split, family, seed, count), place, overwrite=place.exists())
    scenes = open_shards(place)
    return [scenes[index] for index in range(count)]


def _make(split: str, family: str, seed: int, count: int) -> Iterator[Conversation]:
    synthesizer = Synthesizer()
    for index in range(count):
        rng = np.random.default_rng([seed, zlib.crc32(f"{split}/{family}".encode()), index])
        name = f"{split}-{family}-{seed}-{index:06d}"
        yield scene_families.make_scene(synthesizer, name, rng, split, family)
