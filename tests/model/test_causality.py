"""Nothing put out depends on what comes later: in streaming, bit for bit, and in the packed pass."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SMALL

from tml_jax.config import MICRO_TURN_SECONDS
from tml_jax.data.record import BACKGROUND, USER, Text
from tml_jax.model.attention import Packed
from tml_jax.model.inputs import ElementArrays
from tml_jax.tokens import Stream

TURNS = 5
WORDS = "the red one is here and what do you see now".split()
few = settings(max_examples=12, deadline=None, database=None, derandomize=True)


def random_input(seed: int, streams: tuple[str, ...]) -> dict:
    """A conversation's input: noise at changing levels, frames and typed text at any time."""
    rng = np.random.default_rng(seed)
    seconds = TURNS * MICRO_TURN_SECONDS
    times = lambda most: np.sort(rng.uniform(0, seconds, rng.integers(1, most))).round(3).tolist()  # noqa: E731
    audio = rng.standard_normal(TURNS * 3200) * np.repeat(10.0 ** -rng.uniform(1, 3, TURNS), 3200)
    frames = [(time, rng.integers(0, 256, (40, 40, 3), np.uint8)) for time in times(8)]
    texts = [
        Text(str(rng.choice([USER, BACKGROUND])), " ".join(rng.choice(WORDS, rng.integers(1, 4))), time)
        for time in times(5)
    ]
    return {
        "user_audio": audio.astype(np.float32) if "audio" in streams else None,
        "frames": frames if "video" in streams else [],
        "texts": texts if "text" in streams else [],
    }


def changed_from(given: dict, other: dict, turn: int) -> dict:
    """`given` up to the start of micro-turn `turn`, `other` from there on."""
    start, sample = turn * MICRO_TURN_SECONDS, turn * 3200
    mixed = {"user_audio": None}
    if given["user_audio"] is not None:
        mixed["user_audio"] = np.concatenate([given["user_audio"][:sample], other["user_audio"][sample:]])
    before, after = (lambda time: time < start - 1e-6), (lambda time: time >= start - 1e-6)
    mixed["frames"] = [f for f in given["frames"] if before(f[0])] + [f for f in other["frames"] if after(f[0])]
    mixed["texts"] = [t for t in given["texts"] if before(t.time)] + [t for t in other["texts"] if after(t.time)]
    return mixed


def run(talker, inputs: dict) -> list[tuple]:
    """Everything put out in each micro-turn."""
    turns = talker.talk(**inputs, micro_turns=TURNS)
    return [(t.index, t.gate, t.text, t.display, t.mel.tobytes(), t.samples.tobytes()) for t in turns]


@pytest.mark.parametrize("streams", [("audio",), ("text",), ("video",), ("audio", "text", "video")])
@settings(few, max_examples=3)
@given(seed=st.integers(0, 2**31), turn=st.integers(1, TURNS - 1))
def test_no_output_depends_on_later_input(small_talker, streams, seed, turn):
    one, other = random_input(seed, streams), random_input(seed + 1, streams)
    before, after = run(small_talker, one), run(small_talker, changed_from(one, other, turn))
    assert before[:turn] == after[:turn]


@pytest.mark.parametrize("stream", ["audio", "text", "video"])
def test_every_stream_is_heard_in_its_own_micro_turn(small_talker, stream):
    """So that the test above does not pass because nothing is heard at all."""
    turn = 2
    one = random_input(0, ("audio",))
    start = turn * MICRO_TURN_SECONDS
    other = dict(one)
    if stream == "audio":
        other["user_audio"] = one["user_audio"].copy()
        other["user_audio"][turn * 3200 : (turn + 1) * 3200] *= 30
    elif stream == "text":
        other["texts"] = [Text(USER, "what do you see", start)]
    else:
        other["frames"] = [(start, np.full((40, 40, 3), 200, np.uint8))]
    before, after = run(small_talker, one), run(small_talker, other)
    assert before[:turn] == after[:turn]
    assert any(a[1:] != b[1:] for a, b in zip(before[turn:], after[turn:]))


LENGTH, SIDE = 192, 24


@pytest.fixture(scope="module")
def hidden_of(small_model, small_variables):
    apply = jax.jit(lambda variables, elements, where: small_model.apply(variables, elements, where)[0])
    return lambda elements, where: np.asarray(apply(small_variables, elements, where))


def random_row(seed: int, slots: slice) -> tuple[ElementArrays, np.ndarray]:
    """One row of random elements of every stream that read the side arrays at `slots`, and its segments."""
    rng = np.random.default_rng(seed)
    elements = ElementArrays(
        rng.integers(1, len(Stream), (1, LENGTH)).astype(np.int8),
        rng.integers(0, SMALL.vocab_size, (1, LENGTH)).astype(np.int32),
        rng.integers(slots.start, slots.stop, (1, LENGTH)).astype(np.int32),
        rng.integers(0, 16, (1, SIDE, 80)).astype(np.uint8),
        rng.integers(0, 256, (1, SIDE, 2, 40, 40, 3)).astype(np.uint8),
        rng.uniform(-5, 1, (1, SIDE, 5, 80)).astype(np.float32),
    )
    return elements, np.sort(rng.integers(1, 4, (1, LENGTH))).astype(np.int32)


def placed(segment: np.ndarray) -> Packed:
    starts = np.flatnonzero(np.diff(segment[0], prepend=-1))
    position = np.arange(LENGTH) - np.maximum.accumulate(np.isin(np.arange(LENGTH), starts) * np.arange(LENGTH))
    return Packed(segment, position[None].astype(np.int32))


def replaced(one: ElementArrays, other: ElementArrays, where: np.ndarray) -> ElementArrays:
    """`one` with the elements, and all they refer to, of `other` at the positions `where`."""
    late = np.arange(SIDE) >= SIDE // 2  # `other` reads the second half of the side arrays
    choose = lambda mask, name: np.where(  # noqa: E731
        mask.reshape(1, -1, *[1] * (getattr(one, name).ndim - 2)), getattr(other, name), getattr(one, name)
    )
    elements = {name: choose(where, name) for name in ("stream", "token", "slot")}
    return ElementArrays(**elements, **{name: choose(late, name) for name in ("audio_in", "video", "audio_out")})


@few
@given(st.integers(0, 2**31), st.integers(0, LENGTH - 2))
def test_no_hidden_state_depends_on_later_elements(hidden_of, seed, last):
    (one, segment), (other, _) = random_row(seed, slice(0, SIDE // 2)), random_row(seed + 1, slice(SIDE // 2, SIDE))
    before = hidden_of(one, placed(segment))
    later = np.arange(LENGTH) > last
    regrouped = np.where(later, segment[0, last] + np.sort(np.random.default_rng(seed).integers(0, 2, LENGTH)), segment)
    after = hidden_of(replaced(one, other, later), placed(regrouped.astype(np.int32)))
    np.testing.assert_array_equal(before[0, : last + 1], after[0, : last + 1])
    assert np.any(before[0, last + 1 :] != after[0, last + 1 :])


@few
@given(st.integers(0, 2**31), st.integers(1, 3))
def test_no_hidden_state_depends_on_another_segment(hidden_of, seed, number):
    (one, segment), (other, _) = random_row(seed, slice(0, SIDE // 2)), random_row(seed + 1, slice(SIDE // 2, SIDE))
    here = segment[0] == number
    before, after = hidden_of(one, placed(segment)), hidden_of(replaced(one, other, here), placed(segment))
    np.testing.assert_array_equal(before[0, ~here], after[0, ~here])
    assert np.any(before[0, here] != after[0, here])
