"""Sound that did not arrive: gaps in the user's side of a conversation, as a bad network makes them.

A two-state chain over packets of 20 ms (E. N. Gilbert, "Capacity of a burst-noise channel", 1960): in the bad state
every packet is lost. It is set by the share of packets lost and by the mean length of a burst.
"""

import dataclasses

import numpy as np

from tml_jax.data.record import Conversation
from tml_jax.signal.runs import true_runs

PACKET_SECONDS = 0.02
TRAINED_SHARES = (0.02, 0.2)  # range of the share of packets lost in training
TRAINED_BURSTS = (1.0, 8.0)  # range of the mean packets of a burst


def draw_gaps(rng: np.random.Generator, duration: float, share: float, burst: float) -> tuple[tuple[float, float], ...]:
    """Draws what is lost.

    Args:
      rng: every draw.
      duration: seconds.
      share: of packets lost, in (0, 1).
      burst: mean packets of a burst, at least 1.

    Returns:
      (start, end) of each gap in seconds, rising, apart from each other.

    Raises:
      ValueError: share or burst is out of range, or so many packets cannot be lost in bursts so short.
    """
    if not 0 < share < 1 or burst < 1 or share / (1 - share) > burst:
        raise ValueError(
            f"share {share} of packets lost in bursts of {burst}: expected 0 < share < 1, burst >= 1 and "
            "burst >= share / (1 - share)"
        )
    packets = int(np.ceil(round(duration / PACKET_SECONDS, 6)))
    draws = rng.random(packets)
    enter, leave = share / (1 - share) / burst, 1 / burst
    lost = np.zeros(packets, bool)
    bad = bool(rng.random() < share)
    for packet in range(packets):
        lost[packet] = bad
        bad = draws[packet] >= leave if bad else draws[packet] < enter
    return tuple((float(a * PACKET_SECONDS), float(b * PACKET_SECONDS)) for a, b in true_runs(lost))


def lose_packets(
    conversation: Conversation, rng: np.random.Generator, share: float | None = None, burst: float | None = None
) -> Conversation:
    """The conversation over a bad network: the same in all but its gaps.

    Args:
      conversation: its sound is kept whole; what counts as arrived is in `gaps`.
      rng: every draw.
      share: of packets lost; None draws one from `TRAINED_SHARES`.
      burst: mean packets of a burst; None draws one from `TRAINED_BURSTS`.

    Returns:
      The record with new `gaps`; where it has no user sound, the record as it was.
    """
    if conversation.user_audio is None:
        return conversation
    share = float(rng.uniform(*TRAINED_SHARES)) if share is None else share
    burst = float(rng.uniform(*TRAINED_BURSTS)) if burst is None else burst
    meta = {**conversation.meta, "packets_lost": round(share, 4), "mean_burst": round(burst, 2)}
    return dataclasses.replace(conversation, gaps=draw_gaps(rng, conversation.duration, share, burst), meta=meta)
