import numpy as np
import pytest

from tml_jax.data.record import Cue
from tml_jax.eval import activity


def sounding(*spans, count=10):
    """A tone in each span, in seconds as they are heard: (count, 4800) float32 from micro-turn 0, heard from 0.2 s."""
    times = 0.2 + np.arange(4800 * count) / 24_000
    inside = np.any([(times >= start) & (times < end) for start, end in spans], axis=0)
    return (0.1 * inside * np.sin(2 * np.pi * 300 * times)).astype(np.float32).reshape(count, 4800)


def test_sound_has_its_times_to_10_ms_and_gates_those_of_micro_turns():
    side = activity.of_sound(sounding((0.47, 0.93)))
    assert side.active.tolist() == [False, True, True, True, *[False] * 6]
    assert (side.starts[1], side.ends[3]) == pytest.approx((0.47, 0.93))
    assert side.onsets == pytest.approx([0.47])
    gated = activity.of_gates(side.active)
    assert (gated.starts[1], gated.ends[3]) == pytest.approx((0.4, 1.0)) and gated.onsets == pytest.approx([0.4])


def test_clicks_and_soft_noise_are_no_sound():
    noise = 1e-3 * np.random.default_rng(0).normal(size=(10, 4800)).astype(np.float32)  # −60 dBFS
    side = activity.of_sound(noise + sounding((0.7, 0.71)))
    assert not side.active.any() and not side.onsets.size


@pytest.mark.parametrize(("gap", "onsets"), [(0.08, [0.5]), (0.2, [0.5, 1.0])])
def test_sound_begins_anew_after_a_silence_but_not_after_a_closure_in_a_word(gap, onsets):
    side = activity.of_sound(sounding((0.5, 1.0 - gap), (1.0, 1.3)))
    assert side.onsets == pytest.approx(onsets)
    assert activity.first_onset(side, 0.6, 2.0) == (pytest.approx(1.0) if len(onsets) > 1 else None)


def test_a_stop_is_as_long_as_the_silence_that_is_heard():
    """Two silent micro-turns and a bit: by sound 0.46 s, which is a stop; by gates 0.4 s, which is a pause."""
    side, cue = activity.of_sound(sounding((0.4, 0.97), (1.43, 2.0))), Cue("yield", 0.8, 1.2)
    found = activity.stop(side, cue, since=0.5)
    assert found == pytest.approx(0.17) and activity.stopped_in_time(found, side, cue)
    assert activity.stop(side, cue, since=1.0) is None  # it had stopped before
    gated = activity.of_gates(side.active)
    assert activity.stop(gated, cue, since=0.5) == pytest.approx(1.2)  # the silence that lasts to the end
    assert not activity.kept(side, Cue("keep", 0.4, 2.0)) and activity.kept(gated, Cue("keep", 0.4, 2.0))


def test_a_stop_by_sound_is_held_to_the_deadline():
    cue = Cue("yield", 0.8, 1.2)
    for end, in_time in ((1.2, True), (1.25, False)):
        side = activity.of_sound(sounding((0.4, end)))
        assert activity.stopped_in_time(activity.stop(side, cue, 0.0), side, cue) == in_time
