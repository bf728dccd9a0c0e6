"""Time: sound that arrives early, late, twice, out of order or never, as the windows of 200 ms that the model hears.

The clock is an argument everywhere, so nothing here waits. A session's time begins with the first sound that arrives.
From then on window i is due `delay` seconds after its last sample could have arrived at the earliest, whether it has
arrived or not. What comes in time is heard exactly once, in its place. What comes after its window was taken is lost,
and counted as late. What is missing when its window is due is silence there, and the window says how much.

Sound comes in two ways. *Stamped*: with the number of its first sample, so what is missing was lost on the way.
*Unstamped*: one after the other, as fast as the sender likes, so a gap is a time in which nothing was sent; what comes
after a gap is heard from the next window on. Where such gaps have put a live client behind, `lag` catches up.
"""

import dataclasses

import numpy as np

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS
from tml_jax.data.layout import INPUT_SAMPLES
from tml_jax.serve import lag as lags
from tml_jax.serve.lag import Lag

_NEAR = 1e-6  # seconds that two times may differ by and be the same


@dataclasses.dataclass(frozen=True)
class Counts:
    """Samples by what became of them.

    Attributes:
      heard: taken by the model.
      late: arrived after their window was taken.
      duplicate: had already arrived.
      beyond: too far ahead to be kept.
      missing: had not arrived when their window was taken.
      skipped: arrived, but their window was passed over.
      dropped: arrived, but given up because a live client was heard too late (see `lag`).
    """

    heard: int = 0
    late: int = 0
    duplicate: int = 0
    beyond: int = 0
    missing: int = 0
    skipped: int = 0
    dropped: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(one + two for one, two in zip(dataclasses.astuple(self), dataclasses.astuple(other))))

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(one - two for one, two in zip(dataclasses.astuple(self), dataclasses.astuple(other))))


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """A window's length of sound that waits, and which of it has arrived: (3200,) float32 and bool. Never changed."""

    samples: np.ndarray
    here: np.ndarray


_NOTHING = Block(np.zeros(INPUT_SAMPLES, np.float32), np.zeros(INPUT_SAMPLES, bool))


@dataclasses.dataclass(frozen=True)
class JitterBuffer:
    """Sound that waits for its window. Never changed: `push` and `take` give a new one, which shares with it the blocks
    that are as they were. So what it costs to push a piece depends on its length, not on what waits.

    Attributes:
      delay: seconds that a window waits for sound that is on its way.
      horizon: most samples kept ahead of the window that is due next.
      origin: when sample 0 could have arrived at the earliest, seconds; None before the first sound.
      taken: windows taken so far.
      blocks: the windows that come next, as far as something of them has arrived.
      waiting: samples from the next window's first to the last that has arrived.
      counts: what became of all samples.
      lag: how far behind its client sound without stamps is.
    """

    delay: float = 0.06
    horizon: int = 10 * INPUT_RATE
    origin: float | None = None
    taken: int = 0
    blocks: tuple[Block, ...] = ()
    waiting: int = 0
    counts: Counts = Counts()
    lag: Lag = Lag()

    def __post_init__(self) -> None:
        if self.delay < 0 or self.horizon < INPUT_SAMPLES:
            raise ValueError(
                f"delay = {self.delay}, horizon = {self.horizon}: expected seconds from 0 on, and at least one window "
                f"of {INPUT_SAMPLES} samples"
            )

    @property
    def samples(self) -> np.ndarray:
        """(n,) float32 at 16 kHz, n = `waiting`, from the next window's first sample on: a copy."""
        return np.concatenate([block.samples for block in (*self.blocks, _NOTHING)])[: self.waiting]

    @property
    def here(self) -> np.ndarray:
        """(n,) bool, which of the samples have arrived: a copy."""
        return np.concatenate([block.here for block in (*self.blocks, _NOTHING)])[: self.waiting]


@dataclasses.dataclass(frozen=True)
class Window:
    """What a session hears in 200 ms.

    Attributes:
      index: number, from 0.
      audio: (3200,) float32, silence where nothing arrived.
      missing: how many of its samples did not arrive.
      dropped: how many were given up just before it.
      cut: whether there was more than quiet in them.
    """

    index: int
    audio: np.ndarray
    missing: int
    dropped: int = 0
    cut: bool = False


def begin(buffer: JitterBuffer, now: float) -> JitterBuffer:
    """Starts a session's time without sound, as typed text does; nothing if it has begun."""
    return buffer if buffer.origin is not None else dataclasses.replace(buffer, origin=now)


def end(buffer: JitterBuffer) -> int:
    """The sample that sound without stamps goes on with: after the last that arrived, or the next window's first."""
    return buffer.taken * INPUT_SAMPLES + buffer.waiting


def push(buffer: JitterBuffer, samples: np.ndarray, now: float, offset: int | None = None) -> JitterBuffer:
    """Sound that arrives.

    Args:
      buffer: what waits.
      samples: (n,) float32 at 16 kHz, finite.
      now: seconds.
      offset: number of its first sample in the session's time; None for sound without stamps, which goes on where the
        sound before it ended, or from the next window on if that has passed.

    Returns:
      What waits now.

    Raises:
      ValueError: the offset is negative.
    """
    if offset is not None and offset < 0:
        raise ValueError(f"offset = {offset}: expected the number of a sample, from 0 on")
    if offset is None:
        offset = end(buffer)
        buffer = dataclasses.replace(buffer, lag=lags.arrive(buffer.lag, len(samples)))
    if buffer.origin is None:
        # Its last sample has just been made, if it was sent as it was made; the rest of a long piece was held back.
        held = min(len(samples), INPUT_SAMPLES)
        buffer = dataclasses.replace(buffer, origin=now - (offset + held) / INPUT_RATE)
        # Windows that were over before the session began are none of it, whatever number its first sample has.
        buffer = dataclasses.replace(buffer, taken=_overdue(buffer, now))
    first = buffer.taken * INPUT_SAMPLES
    start, stop = offset - first, offset - first + len(samples)
    kept = slice(min(max(start, 0), buffer.horizon), min(max(stop, 0), buffer.horizon))
    late, beyond = min(max(-start, 0), len(samples)), min(max(stop - buffer.horizon, 0), len(samples))

    more, duplicate = _written(buffer, samples[kept.start - start : kept.stop - start], kept.start)
    if not (late or beyond or duplicate):
        return more
    counts = dataclasses.replace(
        buffer.counts,
        late=buffer.counts.late + late,
        beyond=buffer.counts.beyond + beyond,
        duplicate=buffer.counts.duplicate + duplicate,
    )
    return dataclasses.replace(more, counts=counts)


def _written(buffer: JitterBuffer, samples: np.ndarray, start: int) -> tuple[JitterBuffer, int]:
    """A buffer with samples from `start` on, but not over those that are there, and how many that were."""
    if not len(samples):
        return buffer, 0
    stop = start + len(samples)
    first, last = start // INPUT_SAMPLES, -(-stop // INPUT_SAMPLES)
    blocks, duplicate = [*buffer.blocks, *[_NOTHING] * (last - len(buffer.blocks))], 0
    for number in range(first, last):
        at = number * INPUT_SAMPLES
        part = slice(max(start - at, 0), min(stop - at, INPUT_SAMPLES))
        waiting, here = blocks[number].samples.copy(), blocks[number].here.copy()
        fresh = ~here[part]
        waiting[part] = np.where(fresh, samples[at + part.start - start : at + part.stop - start], waiting[part])
        here[part] = True
        duplicate += int(np.sum(~fresh))
        blocks[number] = Block(waiting, here)
    return dataclasses.replace(buffer, blocks=tuple(blocks), waiting=max(buffer.waiting, stop)), duplicate


def due(buffer: JitterBuffer) -> float:
    """When the next window is to be taken, seconds; infinity before the session's time has begun."""
    if buffer.origin is None:
        return float("inf")
    return buffer.origin + (buffer.taken + 1) * MICRO_TURN_SECONDS + buffer.delay


def take(buffer: JitterBuffer, now: float) -> tuple[JitterBuffer, Window | None]:
    """The next window, if it is due.

    Args:
      buffer: what waits.
      now: seconds.

    Returns:
      What waits after it, and the window; None where it is not due yet.
    """
    if now < due(buffer) - _NEAR:
        return buffer, None
    buffer, dropped, cut = _keep_up(buffer)
    block = buffer.blocks[0] if buffer.blocks else _NOTHING
    heard = int(np.sum(block.here))
    missing = INPUT_SAMPLES - heard
    counts = dataclasses.replace(
        buffer.counts, heard=buffer.counts.heard + heard, missing=buffer.counts.missing + missing
    )
    rest = max(0, buffer.waiting - INPUT_SAMPLES)
    after = dataclasses.replace(
        buffer,
        taken=buffer.taken + 1,
        blocks=buffer.blocks[1:],
        waiting=rest,
        counts=counts,
        lag=lags.window(buffer.lag, missing, rest),
    )
    return after, Window(buffer.taken, block.samples.copy(), missing, dropped, cut)


def _keep_up(buffer: JitterBuffer) -> tuple[JitterBuffer, int, bool]:
    """Where a live client is heard too late: without the oldest sound, how much that was, if it was more than quiet."""
    excess = lags.behind(buffer.lag, buffer.waiting, round(buffer.delay * INPUT_RATE))
    if not excess:
        return buffer, 0, False
    samples, here = buffer.samples, buffer.here
    count = lags.given_up(samples, excess)
    if not count:
        return buffer, 0, False
    counts = dataclasses.replace(buffer.counts, dropped=buffer.counts.dropped + int(np.sum(here[:count])))
    lag, left = lags.made_up(buffer.lag, count), max(0, buffer.waiting - count)
    kept = dataclasses.replace(buffer, blocks=_blocks(samples[count:], here[count:]), waiting=left)
    return dataclasses.replace(kept, counts=counts, lag=lag), count, excess > lags.MOST


def _blocks(samples: np.ndarray, here: np.ndarray) -> tuple[Block, ...]:
    """(n,) float32 and bool as blocks, the last filled up with nothing."""
    padding = -len(samples) % INPUT_SAMPLES
    rows = [np.pad(array, (0, padding)).reshape(-1, INPUT_SAMPLES) for array in (samples, here)]
    return tuple(Block(*row) for row in zip(*rows))


def catch_up(buffer: JitterBuffer, now: float) -> JitterBuffer:
    """Passes over the windows that should have been taken long ago, up to the last that is due; for an overload."""
    if buffer.origin is None:
        return buffer
    passed = _overdue(buffer, now)
    count = passed * INPUT_SAMPLES
    skipped = sum(int(np.sum(block.here)) for block in buffer.blocks[:passed])
    counts = dataclasses.replace(buffer.counts, skipped=buffer.counts.skipped + skipped)
    return dataclasses.replace(
        buffer,
        taken=buffer.taken + passed,
        blocks=buffer.blocks[passed:],
        waiting=max(0, buffer.waiting - count),
        counts=counts,
        lag=lags.owe(buffer.lag, count - skipped),
    )


def _overdue(buffer: JitterBuffer, now: float) -> int:
    """Windows that should have been taken before the last that is due."""
    return max(0, int((now - due(buffer) + _NEAR) / MICRO_TURN_SECONDS))


def clear(buffer: JitterBuffer) -> JitterBuffer:
    """Forgets what waits; time goes on."""
    lag = dataclasses.replace(buffer.lag, recent=())
    return dataclasses.replace(buffer, blocks=(), waiting=0, lag=lag)
