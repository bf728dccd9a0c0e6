"""Packets that are lost: as many as asked, in bursts as long; the record stays whole and says what is missing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_conversation

from tml_jax.data.packet_loss import draw_gaps, lose_packets
from tml_jax.data.record import Conversation, from_bytes, to_bytes


@pytest.mark.parametrize("share,burst", [(0.02, 1.0), (0.1, 3.0), (0.2, 8.0), (0.5, 1.0)])
def test_as_much_is_lost_as_asked_in_bursts_as_long(share, burst):
    gaps = np.asarray(draw_gaps(np.random.default_rng(0), 20_000.0, share, burst))
    lengths = gaps[:, 1] - gaps[:, 0]
    assert lengths.sum() / 20_000 == pytest.approx(share, rel=0.05)
    assert lengths.mean() / 0.02 == pytest.approx(burst, rel=0.05)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 0.6), st.floats(2.0, 20.0))
def test_gaps_are_whole_packets_that_do_not_touch(seed, share, burst):
    gaps = np.asarray(draw_gaps(np.random.default_rng(seed), 3.1, share, burst)).reshape(-1, 2)
    np.testing.assert_allclose(gaps / 0.02, np.round(gaps / 0.02), atol=1e-9)
    assert np.all(gaps[:, 1] > gaps[:, 0]) and np.all(gaps[1:, 0] - gaps[:-1, 1] > 0.019)
    assert np.all(gaps >= 0) and np.all(gaps <= 3.1 + 0.02)


def test_a_record_keeps_its_sound_and_its_gaps_survive_the_disk():
    whole = make_conversation(3, 5.0)
    lossy = lose_packets(whole, np.random.default_rng(1), 0.3, 2.0)
    assert lossy.gaps and np.array_equal(lossy.user_audio, whole.user_audio)
    assert from_bytes(to_bytes(lossy)).gaps == lossy.gaps
    assert lose_packets(Conversation("typed", 2.0), np.random.default_rng(1)).gaps == ()


@pytest.mark.parametrize("share,burst", [(0.0, 2.0), (1.0, 2.0), (0.1, 0.5), (0.9, 2.0)])
def test_losses_that_cannot_be_are_refused(share, burst):
    with pytest.raises(ValueError, match="expected 0 < share < 1, burst >= 1"):
        draw_gaps(np.random.default_rng(0), 1.0, share, burst)


@pytest.mark.parametrize("gaps", [((0.4, 0.2),), ((0.1, 0.3), (0.3, 0.4)), ((0.5, 0.6), (0.1, 0.2))])
def test_gaps_out_of_order_are_refused(gaps):
    with pytest.raises(ValueError, match="gaps: .*rising and apart"):
        Conversation("bad", 1.0, gaps=gaps)
