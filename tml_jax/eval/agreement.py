"""How far two models that should be one do the same on held-out conversations, each hearing its own past."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tml_jax.data.record import Conversation
from tml_jax.eval.interactivity import Score, aggregate, measure
from tml_jax.serve.words import MicroTurn

Turns = Sequence[Sequence[MicroTurn]]


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What two models put out in the same conversations.

    Attributes:
      conversations: number of them.
      micro_turns: of all of them.
      same_gates: share of micro-turns with the same gate.
      same_text: share of micro-turns with the same text, spoken and shown.
      same_conversations: share of conversations in which every gate and text is the same.
      mel_db: median difference of a number of the mel where both speak, dB, until something else differs in that
        conversation (after which they say different things); NaN where they never do.
      first: metrics of the first model.
      second: metrics of the second.
    """

    conversations: int
    micro_turns: int
    same_gates: float
    same_text: float
    same_conversations: float
    mel_db: float
    first: Score
    second: Score


def agreement(
    conversations: Sequence[Conversation], first: Turns, second: Turns, frequency: Mapping[str, int]
) -> Agreement:
    """Compares what two models put out.

    Args:
      conversations: at least one, as they were streamed.
      first: the micro-turns of each conversation, of one model.
      second: of the other.
      frequency: `reply_frequency` of the held-out set.

    Returns:
      The comparison.

    Raises:
      ValueError: there is nothing to compare, or the two differ in number of conversations or micro-turns.
    """
    if not conversations or list(map(len, first)) != list(map(len, second)):
        raise ValueError(
            f"{len(conversations)} conversations, {sum(map(len, first))} and {sum(map(len, second))} micro-turns: "
            "expected at least one conversation, and the same micro-turns of both models"
        )
    gates, texts, whole, differences = [], [], [], []
    for ours, theirs in zip(first, second):
        same_gate = [a.gate == b.gate for a, b in zip(ours, theirs)]
        same_text = [(a.text, a.display) == (b.text, b.display) for a, b in zip(ours, theirs)]
        gates, texts = gates + same_gate, texts + same_text
        whole.append(all(same_gate) and all(same_text))
        until = next((i for i, (a, b) in enumerate(zip(same_gate, same_text)) if not (a and b)), len(ours))
        differences += [a.mel - b.mel for a, b in zip(ours[:until], theirs[:until]) if a.gate == "SPEAK"]
    scores = [
        aggregate([measure(conversation, turns, frequency) for conversation, turns in zip(conversations, every)])
        for every in (first, second)
    ]
    difference = 20 * float(np.median(np.abs(differences))) if differences else float("nan")  # mel is of magnitudes
    shares = (float(np.mean(part)) for part in (gates, texts, whole))
    return Agreement(len(conversations), len(gates), *shares, difference, *scores)
