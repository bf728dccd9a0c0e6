import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tml_jax.serve.speech import Edge, Endpointing, listen


def sound(*parts: tuple[float, float]) -> np.ndarray:
    """(seconds, level) after one another."""
    rng = np.random.default_rng(0)
    noise = [level * rng.standard_normal(int(16_000 * seconds)) for seconds, level in parts]
    return np.concatenate(noise).astype(np.float32)


def test_speech_begins_and_ends_where_its_sound_does():
    _, edges = listen(Endpointing(), sound((0.4, 0.001), (0.6, 0.1), (0.8, 0.001)))
    assert edges == [Edge(True, 400), Edge(False, 1000)]


def test_a_click_and_a_short_pause_change_nothing():
    _, edges = listen(Endpointing(), sound((0.2, 0.0), (0.02, 0.5), (0.2, 0.0)))
    assert edges == []
    _, edges = listen(Endpointing(), sound((0.2, 0.1), (0.3, 0.0), (0.2, 0.1)))
    assert edges == [Edge(True, 0)]


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=40))
def test_it_does_not_matter_how_the_sound_is_cut(sizes):
    given_ = sound((0.3, 0.001), (0.5, 0.1), (0.7, 0.001), (0.3, 0.1))
    whole, edges = listen(Endpointing(), given_)
    state, found, first = Endpointing(), [], 0
    for size in [*sizes, len(given_)]:
        state, more = listen(state, given_[first : first + size])
        found, first = found + more, first + size
    assert found == edges and (state.speaking, state.frames) == (whole.speaking, whole.frames)
