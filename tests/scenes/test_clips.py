"""Real clips behind the pictures of scenes."""

import numpy as np
import pytest
from films import encode_video

from tml_jax.data.record import to_bytes
from tml_jax.data.shards import DataError
from tml_jax.scenes import scripts, sources
from tml_jax.scenes.clips import behind, load_clips
from tml_jax.scenes.families import make_scene

COLOURS = {"a.mp4": (200, 40, 40), "b.mp4": (40, 200, 40), "c.mp4": (40, 40, 200)}
PICTURES = ("visual", "visual_stop", "repetition", "count_seen", "quiet_until_seen")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A folder with three films of one colour each, of different shapes, and a file that is no film."""
    folder = tmp_path_factory.mktemp("clips")
    for (name, colour), (rows, columns) in zip(COLOURS.items(), ((90, 160), (96, 128), (160, 90))):
        encode_video(folder / name, np.tile(np.uint8(colour), (30, rows, columns, 1)), 20)
    for name in ("notes.txt", "._a.mp4"):
        (folder / name).write_text("no film")
    (folder / "more.mp4").mkdir()
    return folder


def test_one_film_of_three_is_held_out_and_no_black_bar_is_seen(clips):
    trained, held_out = load_clips(clips, scripts.TRAIN), load_clips(clips, scripts.HELD_OUT)
    assert [film.name for film in trained] == ["a.mp4", "c.mp4"] and [film.name for film in held_out] == ["b.mp4"]
    assert [film.name for film in load_clips(clips, scripts.EXTRAPOLATION)] == ["b.mp4"]
    assert [film.name for film in load_clips(clips, scripts.DEVELOPMENT)] == ["a.mp4", "c.mp4"]
    for film in (*trained, *held_out):
        assert film.frames.shape == (15, 40, 40, 3) and film.frames.dtype == np.uint8  # 1.5 s at ten frames a second
        assert np.abs(film.frames.astype(int) - COLOURS[film.name]).max() < 12, film.name


def test_a_short_clip_is_shown_to_and_fro():
    film = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 40, 40, 3), np.uint8)
    shown = behind(film, 20, np.random.default_rng(0))[:, 0, 0, 0].astype(int)
    assert shown.shape == (20,) and set(shown) == {0, 1, 2, 3} and np.abs(np.diff(shown)).max() == 1
    assert np.array_equal(behind(film[:1], 5, np.random.default_rng(0)), np.repeat(film[:1], 5, axis=0))


@pytest.mark.parametrize("family", PICTURES)
def test_objects_are_drawn_before_the_clip_of_the_split(clips, synthesizer, family):
    films = load_clips(clips, scripts.HELD_OUT)
    record = make_scene(synthesizer, "x", np.random.default_rng([4, 1]), scripts.HELD_OUT, family, films)
    plain = make_scene(synthesizer, "x", np.random.default_rng([4, 1]), scripts.HELD_OUT, family)
    assert record.meta["clip"] == "b.mp4" and "clip" not in plain.meta
    red, green, blue = np.median(record.frames.reshape(-1, 3), axis=0)
    assert green > red + 40 and green > blue + 40, "the green film is held out"
    colour = np.asarray(scripts.COLOURS[scripts.HELD_OUT][record.meta["colour"]])
    shared = min(len(record.frames), len(plain.frames))  # the silence at the end is drawn after the pictures
    drawn = [(np.abs(r.frames[:shared].astype(int) - colour).max(axis=3) < 3).sum() for r in (record, plain)]
    assert drawn[0] == drawn[1] > 50, "the same objects are there"


def test_half_of_the_training_scenes_have_a_clip_and_processes_make_the_same(clips):
    alone = list(sources.generate("scenes", 20, 6, 1, "count_seen", str(clips)))
    with_clip = sum("clip" in record.meta for record in alone)
    assert 4 <= with_clip <= 16
    shared = list(sources.generate("scenes", 20, 6, 2, "count_seen", str(clips)))
    assert [to_bytes(record) for record in shared] == [to_bytes(record) for record in alone]


def test_what_cannot_be_used_is_refused_by_name_before_anything_is_made(clips, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        sources.generate("scenes", 1, 0, 1, clips=str(tmp_path / "none"))
    with pytest.raises(DataError, match="0 of its files are videos .* expected two at least"):
        sources.generate("held_out", 1, 0, 1, clips=str(tmp_path))
    with pytest.raises(ValueError, match="not transcribed"):
        sources.generate("transcribed", 1, 0, 1, clips=str(clips))
    with pytest.raises(ValueError, match="family 'timed' has no pictures; silence, visual, visual_stop"):
        sources.generate("scenes", 1, 0, 1, "timed", str(clips))
    whole = (clips / "a.mp4").read_bytes()
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2] if name == "b.mp4" else whole)
    with pytest.raises(DataError, match=r"b\.mp4"):
        sources.generate("held_out", 1, 0, 1, clips=str(tmp_path))
