"""How far two models agree."""

import dataclasses

import numpy as np
import pytest
from synthetic import make_conversation

from tml_jax.eval import baselines
from tml_jax.eval.agreement import agreement


def spoken():
    conversation = dataclasses.replace(make_conversation(5, 2.0), gaps=())
    return conversation, baselines.as_recorded(conversation)


def test_a_model_agrees_with_itself():
    conversation, turns = spoken()
    both = agreement([conversation], [turns], [turns], {})
    assert (both.same_gates, both.same_text, both.same_conversations) == (1.0, 1.0, 1.0)
    assert both.first.gate == both.second.gate and both.micro_turns == 10


def test_differences_are_counted_and_the_sound_only_as_long_as_nothing_else_differs():
    conversation, turns = spoken()
    turns = [dataclasses.replace(turn, gate="SPEAK", mel=np.zeros((20, 80), np.float32)) for turn in turns]
    others = [dataclasses.replace(turn, mel=turn.mel + 0.1) for turn in turns]
    others[6] = dataclasses.replace(others[6], text=" other")
    others[7:] = [dataclasses.replace(turn, mel=turn.mel + 9, gate="LISTEN") for turn in others[7:]]
    both = agreement([conversation], [turns], [others], {})
    assert (both.same_gates, both.same_text, both.same_conversations) == (0.7, 0.9, 0.0)
    assert both.mel_db == pytest.approx(2.0)  # 0.1 in log10 of magnitude


def test_other_micro_turns_are_refused():
    conversation, turns = spoken()
    with pytest.raises(ValueError, match="the same micro-turns of both"):
        agreement([conversation], [turns], [turns[:-1]], {})
