"""Scenes of one family, made from (source, family, seed, index) alone and kept on disk."""

import itertools
import pathlib
from collections.abc import Sequence

from tml_jax.data.record import Conversation, to_bytes
from tml_jax.data.shards import DataError, open_shards, write_shards
from tml_jax.scenes.families import FAMILIES
from tml_jax.scenes.sources import SPLITS, generate


def check_families(names: Sequence[str]) -> tuple[str, ...]:
    """The families asked for, in the order of the registry; all of them where none is named.

    Raises:
      ValueError: one is not known.
    """
    unknown = [name for name in names if name not in FAMILIES]
    if unknown:
        raise ValueError(f"family {unknown[0]!r} is not known: choose from {', '.join(FAMILIES)}")
    return tuple(name for name in FAMILIES if name in names or not names)


def kept_scenes(folder: pathlib.Path, source: str, family: str, seed: int, count: int) -> list[Conversation]:
    """The first `count` scenes, from disk if that many lie there, else made and written.

    Args:
      folder: holds a folder of records for each source, family and seed, as `launch.prepare` writes them.
      source: one of `scenes.sources.SPLITS`.
      family: a key of `FAMILIES`.
      seed: another seed gives other scenes.
      count: how many; more are the same and further ones.

    Returns:
      The scenes.

    Raises:
      DataError: what lies there is broken, of another family or split, or too few and not what would be made again.
      ImportError: the voices are not installed.
    """
    place = folder / f"{source}-{family}-{seed}"
    if not place.exists():
        write_shards(generate(source, count, seed, 1, family), place)
    scenes = open_shards(place)
    expected = f"{SPLITS[source]} {family}"
    for record in (scenes[0], scenes[-1]):
        if (found := f"{record.meta.get('split')} {record.family}") != expected:
            raise DataError(f"{place} holds {found} scenes, expected {expected}")
    if len(scenes) < count:
        # More of the same are made; what somebody else put there, such as scenes before real clips, is not touched.
        made = generate(source, count, seed, 1, family)
        first = next(made)
        if to_bytes(scenes[0]) != to_bytes(first):
            raise DataError(
                f"{place} holds {len(scenes)} scenes that are not made again by their seed, and {count} are wanted: "
                f"give --scenes={len(scenes)}, or prepare more of them"
            )
        write_shards(itertools.chain([first], made), place, overwrite=True)
        scenes = open_shards(place)
    return [scenes[index] for index in range(count)]
