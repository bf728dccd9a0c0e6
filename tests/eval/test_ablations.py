import dataclasses

import numpy as np
import pytest

from tml_jax.data.layout import arrived_samples
from tml_jax.data.record import BACKGROUND, MODEL, USER, Conversation, Cue, Text, Word
from tml_jax.eval.abilities.ablations import ABLATIONS, AUDIO_MUTED, TIME_SHUFFLED, VIDEO_FROZEN, shuffle_time


def conversation():
    """Three seconds in which every window of sound and every frame holds its own number."""
    frames = np.stack([np.full((40, 40, 3), number, np.uint8) for number in range(30)])
    return Conversation(
        "a",
        3.0,
        user_audio=np.repeat(np.arange(1, 16), 3200).astype(np.int16),
        model_audio=np.full(72_000, 7, np.int16),
        frames=frames,
        frame_times=0.05 + 0.1 * np.arange(30),
        words=(Word(USER, "hm", 1.0, 1.4), Word(MODEL, "yes", 2.0, 2.4)),
        texts=(Text(USER, "typed", 0.45), Text(MODEL, "shown", 1.0), Text(BACKGROUND, "#1. 4", 2.3)),
        cues=(Cue("respond", 1.4, 2.4, "yes"),),
        gaps=((0.3, 0.5), (1.0, 1.2)),
        meta={"tasks": []},
    )


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        (AUDIO_MUTED, {"user_audio"}),
        (VIDEO_FROZEN, {"frames"}),
        (TIME_SHUFFLED, {"user_audio", "frames", "frame_times", "texts", "gaps"}),
    ],
)
def test_an_ablation_changes_its_own_input_and_nothing_else(name, changed):
    before, after = conversation(), ABLATIONS[name](conversation(), 0)
    for field in dataclasses.fields(Conversation):
        one, other = getattr(before, field.name), getattr(after, field.name)
        same = np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
        assert same != (field.name in changed) or field.name == "frame_times", field.name
    assert [text for text in after.texts if text.speaker == MODEL] == [Text(MODEL, "shown", 1.0)]


def test_the_frozen_frame_is_the_first_and_the_muted_sound_is_silence():
    assert not ABLATIONS[AUDIO_MUTED](conversation(), 0).user_audio.any()
    assert not ABLATIONS[VIDEO_FROZEN](conversation(), 0).frames.any()
    bare = Conversation("b", 1.0)
    for change in ABLATIONS.values():
        assert change(bare, 0) == bare  # no sound does not become silence, no frames no picture


def test_shuffled_windows_stay_whole_and_what_came_together_stays_together():
    before, after = conversation(), shuffle_time(conversation(), 3)
    windows = after.user_audio.reshape(15, 3200)
    order = windows[:, 0] - 1
    assert (windows == windows[:, :1]).all() and sorted(order) == list(range(15)) and list(order) != list(range(15))
    np.testing.assert_array_equal(after.frames[:, 0, 0, 0].reshape(15, 2), 2 * order[:, None] + [0, 1])
    np.testing.assert_allclose(after.frame_times, before.frame_times)  # a frame in the same place of each window
    np.testing.assert_array_equal(arrived_samples(after, 15), arrived_samples(before, 15)[order])
    typed = next(text for text in after.texts if text.speaker == USER)
    assert order[int(typed.time / 0.2)] == 2 and typed.time % 0.2 == pytest.approx(0.05)


def test_the_order_depends_on_the_seed_alone():
    orders = [shuffle_time(conversation(), seed).user_audio[::3200].tolist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
