"""Files written whole: what stood there stays when the new content cannot be written."""

import os

import pytest

from tml_jax.files import write_whole


def test_text_and_bytes_arrive_and_folders_are_made(tmp_path):
    write_whole(tmp_path / "a/b/text.json", "größer\n")
    write_whole(tmp_path / "bytes.bin", b"\x00\xff")
    assert (tmp_path / "a/b/text.json").read_bytes() == "größer\n".encode()
    assert (tmp_path / "bytes.bin").read_bytes() == b"\x00\xff"
    assert os.listdir(tmp_path / "a/b") == ["text.json"]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "kept.json"
    write_whole(path, "old")

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept.json"]
