"""The model gives what transformers' Inkling gave for the same weights and input; runs without torch."""

import json

import numpy as np
import pytest
from inkling_inputs import GOLDEN, GOLDEN_CONFIG, SEED, random_weights
from inkling_ours import Ours

from tml_jax.eval.parity import TOLERANCE, Sequence, random_chunks, relative_error


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def ours(golden):
    shapes = json.loads(golden["shapes"].item())
    return Ours(GOLDEN_CONFIG, random_weights(shapes, SEED))


@pytest.fixture(scope="module")
def sequences(golden):
    names = ("stream", "token", "audio", "video")
    return [Sequence(*(golden[f"{name}_{index}"] for name in names)) for index in (0, 1)]


def test_weights_of_the_reference_fill_all_but_our_own_parts(ours):
    assert ours.report.unmapped == () and ours.report.missing == ()


def test_packed_conversations_give_the_logits_and_loads_of_the_reference(golden, ours, sequences):
    # 128 elements: the sliding layers run in blocks, across the border of the two conversations.
    logits, load = ours.run(sequences, 128)
    for index in (0, 1):
        assert relative_error(logits[index], golden[f"logits_{index}"]) < TOLERANCE
    expected = golden["chosen_0"].sum(1) + golden["chosen_1"].sum(1)
    np.testing.assert_array_equal(np.stack(list(load.values())), expected)


def test_streamed_conversation_gives_the_logits_of_the_reference(golden, ours, sequences):
    chunks = random_chunks(len(sequences[0]), 6, seed=4)
    logits = ours.appended(sequences[0], chunks, 6)
    assert relative_error(logits, golden["logits_0"][np.cumsum(chunks) - 1]) < TOLERANCE


def test_audio_and_image_embeddings_are_the_references(golden, ours, sequences):
    for index, sequence in enumerate(sequences):
        assert relative_error(ours.audio(sequence.audio), golden[f"audio_embedding_{index}"]) < TOLERANCE
    assert relative_error(ours.images(sequences[0].video), golden["image_embedding_0"]) < TOLERANCE
