"""Folders of records: complete or absent, the same bytes each time, readable in any order and process."""

import json
import os
import pickle
import socket
import subprocess
import sys

import numpy as np
import pytest

from tml_jax.data.record import MODEL, USER, Conversation, Cue, Text, Word
from tml_jax.data.shards import DataError, open_shards, write_shards


def records(count):
    rng = np.random.default_rng(0)
    for index in range(count):
        yield Conversation(
            id=f"r{index}",
            duration=1.0 + index,
            user_audio=rng.integers(-900, 900, 160).astype(np.int16),
            model_audio=None if index % 2 else rng.integers(-900, 900, 240).astype(np.int16),
            frames=rng.integers(0, 255, (2, 40, 40, 3)).astype(np.uint8),
            frame_times=np.asarray([0.1, 0.2]),
            words=(Word(USER, "hello", 0.1, 0.4), Word(MODEL, "tiger", 0.5, 0.8)),
            texts=(Text(USER, "write", 0.0),),
            cues=(Cue("respond", 0.4, 0.8, "tiger"),),
            meta={"index": index},
        )


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/a cannot be made \(.*\): choose a folder"):
        write_shards(records(1), tmp_path / "file" / "a")


def test_a_shard_that_was_cut_off_is_told_with_its_folder(tmp_path):
    write_shards(records(3), tmp_path / "a")
    (shard,) = (tmp_path / "a").glob("*.array_record")
    os.truncate(shard, 500)
    with pytest.raises(DataError, match=r"/a: a shard is damaged \(.*\); remove the folder, and the same command"):
        open_shards(tmp_path / "a")[1]


def test_records_come_back_unchanged_in_any_order_and_after_pickling(tmp_path):
    assert write_shards(records(7), tmp_path / "a", records_per_shard=3) == 7
    shards = pickle.loads(pickle.dumps(open_shards(tmp_path / "a")))
    originals = list(records(7))
    assert len(shards) == 7 and shards.ids == tuple(f"r{index}" for index in range(7))
    for index in (5, 0, -1, 3):
        found, original = shards[index], originals[index]
        assert (found.id, found.duration, found.words, found.texts, found.cues, found.meta) == (
            original.id, original.duration, original.words, original.texts, original.cues, original.meta,
        )  # fmt: skip
        np.testing.assert_array_equal(found.user_audio, original.user_audio)
        np.testing.assert_array_equal(found.frames, original.frames)
        np.testing.assert_array_equal(found.frame_times, original.frame_times)
        assert (found.model_audio is None) == (original.model_audio is None)
    reopened = pickle.loads(pickle.dumps(shards))  # now with files open
    assert reopened[6].id == "r6"
    with pytest.raises(IndexError, match="record 7"):
        shards[7]


def test_the_same_records_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shards(records(5), tmp_path / name, records_per_shard=2)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["index.json"] + [f"shard-0000{index}.array_record" for index in range(3)]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_failure_leaves_nothing_behind_and_keeps_the_old_folder(tmp_path):
    def failing():
        yield from records(3)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write_shards(failing(), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    write_shards(records(2), tmp_path / "a")
    with pytest.raises(RuntimeError, match="the source broke"):
        write_shards(failing(), tmp_path / "a", overwrite=True)
    assert len(open_shards(tmp_path / "a")) == 2 and len(list(tmp_path.iterdir())) == 1


def test_an_existing_folder_is_replaced_only_if_allowed(tmp_path):
    write_shards(records(2), tmp_path / "a")
    with pytest.raises(DataError, match="exists already"):
        write_shards(records(3), tmp_path / "a")
    assert write_shards(records(3), tmp_path / "a", overwrite=True) == 3
    assert len(open_shards(tmp_path / "a")) == 3 and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_holds_anything_else_is_never_replaced(tmp_path):
    write_shards(records(2), tmp_path / "a")
    (tmp_path / "a" / "notes.txt").write_text("precious")
    with pytest.raises(DataError, match="other files than records .notes.txt.: it is left alone"):
        write_shards(records(3), tmp_path / "a", overwrite=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.json").write_text('{"my": "index"}')
    with pytest.raises(DataError, match="index.json is missing or broken"):
        write_shards(records(3), tmp_path / "b", overwrite=True)
    assert (tmp_path / "a" / "notes.txt").exists() and (tmp_path / "b" / "index.json").exists()


def test_what_a_killed_writer_left_is_cleared_away_and_a_living_ones_is_not(tmp_path):
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left, living, elsewhere = (
        tmp_path / f".a.partial-{host}-{process}"
        for host, process in (
            (socket.gethostname(), ended.stdout.strip()), (socket.gethostname(), os.getppid()), ("other", 1),
        )
    )  # fmt: skip
    for folder in (left, living, elsewhere):
        folder.mkdir()
    write_shards(records(1), tmp_path / "a")
    assert not left.exists() and living.exists() and elsewhere.exists()


def test_double_ids_and_empty_sources_are_refused(tmp_path):
    with pytest.raises(DataError, match="'r0' occurs twice"):
        write_shards([*records(2), *records(1)], tmp_path / "a")
    with pytest.raises(DataError, match="no records"):
        write_shards([], tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_missing_and_incomplete_folders_say_what_to_do(tmp_path):
    with pytest.raises(DataError, match="no such folder of records .*make it with"):
        open_shards(tmp_path / "none")
    write_shards(records(4), tmp_path / "a", records_per_shard=2)
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    assert index["records"] == 4 and [shard["count"] for shard in index["shards"]] == [2, 2]
    (tmp_path / "a" / "shard-00001.array_record").unlink()
    with pytest.raises(DataError, match="lacks shard-00001.array_record"):
        open_shards(tmp_path / "a")
    (tmp_path / "a" / "index.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(DataError, match="format 99"):
        open_shards(tmp_path / "a")
    (tmp_path / "a" / "index.json").unlink()
    with pytest.raises(DataError, match="missing or broken"):
        open_shards(tmp_path / "a")
