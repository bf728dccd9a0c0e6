"""Generates conversations: each depends on (seed, source, index) alone, so any process can make any of them."""

import collections
import concurrent.futures
import time
import zlib
from collections.abc import Generator

import numpy as np
from absl import logging

from tml_jax.data.packet_loss import lose_packets
from tml_jax.data.record import Conversation
from tml_jax.data.workers import pool
from tml_jax.scenes import families, notes, scripts, texts
from tml_jax.scenes.clips import load_clips
from tml_jax.scenes.voices import Synthesizer

TRAINING = "scenes"
SPLITS = {TRAINING: scripts.TRAIN} | {split: split for split in scripts.TEST_SPLITS}  # sources made of scenes → split
SOURCES = (*SPLITS, "transcribed", "text", "captioned", "named", "sought", "noted")
# A chunk is the unit of work of a process. It pays once for loading the voice (about 0.7 s), and it is held in memory.
_LARGEST_CHUNK = 100
_LOSSY_SHARE = 0.15  # of training conversations over a network that loses packets


def generate(
    source: str, count: int, seed: int, processes: int, family: str | None = None, clips: str | None = None
) -> Generator[Conversation, None, None]:
    """Generates conversations in order, with a line of progress now and then; the processes end when it is closed.

    Args:
      source: `scenes` (the training split of every family), `development` (the same in other wordings, families
        equally often), `held_out` (the held-out split, families equally often),
        `extrapolation` (the same beyond the times, amounts and levels of training), `other_voices` (held out, with
        voices of another engine, see `flite.py`), `transcribed`, `text`, `captioned`, `named`, `sought` or `noted`.
      count: how many.
      seed: another seed gives other conversations; the result does not depend on `processes`.
      processes: processes to work in (spawned); 0 or 1: this one.
      family: the only family of scenes wanted, or None.
      clips: folder of videos that lie behind the pictures of scenes, see `clips.py`, or None.

    Yields:
      `count` conversations with ids `{source}-{seed}-{index}`, or `{source}-{family}-{seed}-{index}`.

    Raises:
      ValueError: an argument is out of range (raised at the call).
    """
    check_request(source, count, seed, family, clips)
    if processes < 0:
        raise ValueError(f"processes {processes} must not be negative")
    return _generate(source, count, seed, processes, family, clips)


def check_request(source: str, count: int, seed: int, family: str | None, clips: str | None = None) -> None:
    """Makes sure that conversations can be made; arguments as in `generate`.

    Raises:
      ValueError: an argument is out of range.
    """
    if source not in SOURCES:
        raise ValueError(f"source {source!r}: expected one of {', '.join(SOURCES)}")
    if count <= 0 or seed < 0:
        raise ValueError(f"count {count} must be above 0; seed {seed} must not be negative")
    if family is not None and source not in SPLITS:
        raise ValueError(f"family {family!r} of source {source!r}: only {', '.join(SPLITS)} have families")
    if family is not None and family not in families.FAMILIES:
        raise ValueError(f"family {family!r}: expected one of {', '.join(families.FAMILIES)}")
    if clips:
        if family is not None and family not in families.SEEN:
            raise ValueError(f"clips {clips}: family {family!r} has no pictures; {', '.join(families.SEEN)} have")
        if source not in SPLITS:
            raise ValueError(f"clips {clips}: only {', '.join(SPLITS)} have pictures to put before them, not {source}")
        load_clips(clips, SPLITS[source])


def make_conversation(
    synthesizer: Synthesizer, source: str, seed: int, index: int, family: str | None = None, clips: str | None = None
) -> Conversation:
    """Makes conversation number `index` of a source; arguments as in `generate`."""
    kind = source if family is None else f"{source}-{family}"
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), index])
    name = f"{kind}-{seed}-{index:06d}"
    if source in SPLITS:
        if family is None and source == TRAINING:
            family = families.draw_family(rng)
        elif family is None:
            family = list(families.FAMILIES)[index % len(families.FAMILIES)]
        split = SPLITS[source]
        record = families.make_scene(synthesizer, name, rng, split, family, load_clips(clips, split) if clips else ())
    else:
        makers = {
            "transcribed": texts.make_transcribed,
            "text": texts.make_text,
            "captioned": texts.make_captioned,
            "named": texts.make_named,
            "sought": texts.make_sought,
            "noted": notes.make_noted,
        }
        record = makers[source](synthesizer, name, rng)
    record.meta["seed"] = seed
    if source in (TRAINING, "transcribed", "sought", "noted") and rng.random() < _LOSSY_SHARE:
        record = lose_packets(record, rng)
    return record


def _chunk(source: str, seed: int, family: str | None, clips: str | None, start: int, stop: int) -> list[Conversation]:
    """The work of one process: conversations `start` … `stop` - 1."""
    synthesizer = Synthesizer()
    return [make_conversation(synthesizer, source, seed, index, family, clips) for index in range(start, stop)]


def _generate(
    source: str, count: int, seed: int, processes: int, family: str | None, clips: str | None
) -> Generator[Conversation, None, None]:
    progress = _Progress(source, count)
    if processes <= 1:
        synthesizer = Synthesizer()
        for index in range(count):
            record = make_conversation(synthesizer, source, seed, index, family, clips)
            progress.made([record])
            yield record
        return
    size = min(_LARGEST_CHUNK, -(-count // processes))
    starts = collections.deque(range(0, count, size))
    with pool(min(processes, len(starts))) as workers:
        waiting: collections.deque[concurrent.futures.Future] = collections.deque()
        while starts or waiting:
            # Few chunks are under way at a time, so that a slow consumer does not fill the memory.
            while starts and len(waiting) < processes + 1:
                start = starts.popleft()
                stop = min(start + size, count)
                waiting.append(workers.submit(_chunk, source, seed, family, clips, start, stop))
            records = waiting.popleft().result()
            progress.made(records)
            yield from records


class _Progress:
    """Logs how many are made, how fast, and how long the rest will take."""

    def __init__(self, source: str, count: int, every: float = 5.0):
        self._source, self._count, self._every = source, count, every
        self._made, self._seconds = 0, 0.0
        self._begun = self._logged = time.monotonic()

    def made(self, records: list[Conversation]) -> None:
        self._made += len(records)
        self._seconds += sum(record.duration for record in records)
        now = time.monotonic()
        if now - self._logged < self._every and self._made < self._count:
            return
        self._logged = now
        rate = self._made / max(now - self._begun, 1e-6)
        logging.info(
            "%s: %d of %d conversations (%.0f s of time), %.1f a second, %.0f s left",
            self._source, self._made, self._count, self._seconds, rate, (self._count - self._made) / rate,
        )  # fmt: skip
