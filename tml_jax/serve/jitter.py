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


@dataclasses.dataclass(frozen=True)
class JitterBuffer:
    """Sound that waits for its window. Never changed: `push` and `take` give a new one.

    Attributes:
      delay: seconds that a window waits for sound that is on its way.
      horizon: most samples kept ahead of the window that is due next.
      origin: when sample 0 could have arrived at the earliest, seconds; None before the first sound.
      taken: windows taken so far.
      samples: (n,) float32 at 16 kHz from the next window's first sample on.
      here: (n,) bool, which of them have arrived.
      counts: what became of all samples.
      lag: how far behind its client sound without stamps is.
    """

    delay: float = 0.06
    horizon: int = 10 * INPUT_RATE
    origin: float | None = None
    taken: int = 0
    samples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    here: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, bool))
    counts: Counts = Counts()
    lag: Lag = Lag()

    def __post_init__(self) -> None:
        if self.delay < 0 or self.horizon < INPUT_SAMPLES:
            raise ValueError(
                f"delay = {self.delay}, horizon = {self.horizon}: expected seconds from 0 on, and at least one window "
                f"of {INPUT_SAMPLES} samples"
            )


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
    arrived = np.flatnonzero(buffer.here)
    return buffer.taken * INPUT_SAMPLES + (int(arrived[-1]) + 1 if arrived.size else 0)


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
    first = buffer.taken * INPUT_SAMPLES
    if offset is None:
        offset = end(buffer)
        buffer = dataclasses.replace(buffer, lag=lags.arrive(buffer.lag, len(samples)))
    if buffer.origin is None:
        # Its last sample has just been made, if it was sent as it was made; the rest of a long piece was held back.
        held = min(len(samples), INPUT_SAMPLES)
        buffer = dataclasses.replace(buffer, origin=now - (offset + held) / INPUT_RATE)
    start, stop = offset - first, offset - first + len(samples)
    kept = slice(min(max(start, 0), buffer.horizon), min(max(stop, 0), buffer.horizon))
    late, beyond = min(max(-start, 0), len(samples)), min(max(stop - buffer.horizon, 0), len(samples))

    size = max(len(buffer.samples), kept.stop)
    grown = np.zeros(size, np.float32), np.zeros(size, bool)
    for new, old in zip(grown, (buffer.samples, buffer.here)):
        new[: len(old)] = old
    waiting, here = grown
    fresh = ~here[kept]
    waiting[kept] = np.where(fresh, samples[kept.start - start : kept.stop - start], waiting[kept])
    here[kept] = True
    counts = dataclasses.replace(
        buffer.counts,
        late=buffer.counts.late + late,
        beyond=buffer.counts.beyond + beyond,
        duplicate=buffer.counts.duplicate + int(np.sum(~fresh)),
    )
    return dataclasses.replace(buffer, samples=waiting, here=here, counts=counts)


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
    audio, here = np.zeros(INPUT_SAMPLES, np.float32), buffer.here[:INPUT_SAMPLES]
    audio[: len(here)] = buffer.samples[:INPUT_SAMPLES]
    heard = int(np.sum(here))
    missing = INPUT_SAMPLES - heard
    counts = dataclasses.replace(
        buffer.counts, heard=buffer.counts.heard + heard, missing=buffer.counts.missing + missing
    )
    after = dataclasses.replace(
        buffer,
        taken=buffer.taken + 1,
        samples=buffer.samples[INPUT_SAMPLES:],
        here=buffer.here[INPUT_SAMPLES:],
        counts=counts,
        lag=lags.window(buffer.lag, missing, max(0, _waiting(buffer) - INPUT_SAMPLES)),
    )
    return after, Window(buffer.taken, audio, missing, dropped, cut)


def _waiting(buffer: JitterBuffer) -> int:
    return end(buffer) - buffer.taken * INPUT_SAMPLES


def _keep_up(buffer: JitterBuffer) -> tuple[JitterBuffer, int, bool]:
    """Where a live client is heard too late: without the oldest sound, how much that was, if it was more than quiet."""
    excess = lags.behind(buffer.lag, _waiting(buffer), round(buffer.delay * INPUT_RATE))
    count = lags.given_up(buffer.samples, excess)
    if not count:
        return buffer, 0, False
    counts = dataclasses.replace(buffer.counts, dropped=buffer.counts.dropped + int(np.sum(buffer.here[:count])))
    lag = lags.made_up(buffer.lag, count)
    samples, here = buffer.samples[count:], buffer.here[count:]
    return dataclasses.replace(buffer, samples=samples, here=here, counts=counts, lag=lag), count, excess > lags.MOST


def catch_up(buffer: JitterBuffer, now: float) -> JitterBuffer:
    """Passes over the windows that should have been taken long ago, up to the last that is due; for an overload."""
    if buffer.origin is None:
        return buffer
    passed = max(0, int((now - due(buffer) + _NEAR) / MICRO_TURN_SECONDS))
    count = passed * INPUT_SAMPLES
    skipped = int(np.sum(buffer.here[:count]))
    counts = dataclasses.replace(buffer.counts, skipped=buffer.counts.skipped + skipped)
    return dataclasses.replace(
        buffer,
        taken=buffer.taken + passed,
        samples=buffer.samples[count:],
        here=buffer.here[count:],
        counts=counts,
        lag=lags.owe(buffer.lag, count - skipped),
    )


def clear(buffer: JitterBuffer) -> JitterBuffer:
    """Forgets what waits; time goes on."""
    lag = dataclasses.replace(buffer.lag, recent=())
    return dataclasses.replace(buffer, samples=np.zeros(0, np.float32), here=np.zeros(0, bool), lag=lag)
