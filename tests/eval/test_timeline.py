import sys

import numpy as np
import pytest
from PIL import Image

from tml_jax.data.record import BACKGROUND, OTHER, USER, Cue, Text, Word
from tml_jax.eval import timeline
from tml_jax.serve.words import MicroTurn


def micro_turns(count=25, speaking=range(10, 16), display=""):
    tone = np.sin(2 * np.pi * 200 * np.arange(4800) / 24_000).astype(np.float32)
    return [
        MicroTurn(
            index=t,
            start=0.2 * t,
            gate="SPEAK" if t in speaking else "LISTEN",
            text=" word" if t in speaking else "",
            display=display if t == 12 else "",
            mel=np.zeros((20, 80), np.float32),
            samples=tone if t in speaking else 0 * tone,
            compute_seconds=0.0,
        )
        for t in range(count)
    ]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def columns_of(picture, colour, tolerance=12):
    """Columns that have a pixel of a colour, given as #rrggbb."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return np.flatnonzero((np.abs(picture - wanted).max(axis=2) <= tolerance).any(axis=0))


def column_at(seconds, picture, duration):
    left, right = 105, picture.shape[1] - 25
    return left + (right - left) * seconds / duration


def test_the_models_sound_and_gate_stand_at_the_time_they_are_heard(tmp_path):
    timeline.draw_timeline(tmp_path / "t.png", micro_turns())
    picture = pixels(tmp_path / "t.png")
    model = columns_of(picture, timeline.COLOURS["model"], tolerance=2)
    # Micro-turns 10 … 15 are heard from 2.2 to 3.4 s.
    assert model[0] == pytest.approx(column_at(2.2, picture, 5.0), abs=4)
    assert model[-1] == pytest.approx(column_at(3.4, picture, 5.0), abs=4)


def test_every_kind_of_content_shows(tmp_path):
    turns = micro_turns(display="shown")
    audio = np.sin(np.arange(5 * 16_000) / 10).astype(np.float32)
    frame = np.full((80, 80, 3), (10, 200, 30), np.uint8)
    timeline.draw_timeline(tmp_path / "bare.png", turns)
    timeline.draw_timeline(
        tmp_path / "full.png",
        turns,
        audio,
        frames=[(1.0, frame)],
        texts=[Text(USER, "typed", 0.5), Text(BACKGROUND, "found $1 and $2", 4.9)],
        cues=[Cue("hold", 0.2, 1.0), Cue("respond", 2.2, 3.4, "word"), Cue("yield", 3.0, 3.2), Cue("keep", 2.6, 3.0)],
        words=[Word(USER, "hello", 0.4, 0.9), Word(USER, "there", 0.5, 1.3), Word(OTHER, "come", 3.0, 3.4)],
        title="a $ sign is not mathematics",
    )
    bare, full = pixels(tmp_path / "bare.png"), pixels(tmp_path / "full.png")
    assert full.shape[1] == bare.shape[1] == 1600 and 600 <= full.shape[0] <= 900
    video = columns_of(full, "#0ac81e", tolerance=2)
    assert video[0] == pytest.approx(column_at(1.0, full, 5.0), abs=2)
    for colour in (*(timeline.COLOURS[who] for who in (USER, OTHER, BACKGROUND)), *timeline.CUE_COLOURS.values()):
        assert columns_of(full, colour, tolerance=2).size >= columns_of(bare, colour, tolerance=2).size + 3, colour


@pytest.mark.parametrize("seed", range(5))
def test_staggered_labels_never_overlap_on_a_line_and_use_the_lowest_free_one(seed):
    rng = np.random.default_rng(seed)
    lefts = np.sort(rng.uniform(0, 100, 40))
    spans = [(left, left + width) for left, width in zip(lefts, rng.uniform(1, 12, 40))]
    lanes = timeline.stagger(spans, 3)
    for lane in range(3):
        placed = [span for span, chosen in zip(spans, lanes) if chosen == lane]
        assert all(before[1] <= after[0] for before, after in zip(placed, placed[1:]))
    for number, (left, _) in enumerate(spans):
        busy = {lanes[i] for i in range(number) if spans[i][1] > left}
        free = [lane for lane in range(3) if lane not in busy]
        assert lanes[number] == (free[0] if free else None)


def test_a_long_conversation_gets_a_wider_picture(tmp_path):
    timeline.draw_timeline(tmp_path / "t.png", micro_turns(300, range(0, 300, 7)))
    assert pixels(tmp_path / "t.png").shape[1] == 4200


def test_drawing_does_not_touch_pyplot(tmp_path):
    loaded = "matplotlib.pyplot" in sys.modules
    timeline.draw_timeline(tmp_path / "t.png", micro_turns(3))
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_nothing_to_draw_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no micro-turns"):
        timeline.draw_timeline(tmp_path / "t.png", [])
