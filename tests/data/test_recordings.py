"""Import of real recordings: layouts, broken files, cutting."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from test_media import encode_audio, encode_video, spoil, tone

from tml_jax.data.record import MODEL, USER, Conversation, Word
from tml_jax.data.recordings import Options, Report, cut, import_recordings
from tml_jax.data.shards import open_shards
from tml_jax.signal.media import write_wav
from tml_jax.signal.pcm import float_audio


def level(audio):
    return 0.0 if audio is None else float(np.sqrt(np.mean(float_audio(audio) ** 2)))


def strongest(audio, rate):
    spectrum = np.abs(np.fft.rfft(float_audio(audio) * np.hanning(len(audio))))
    return np.argmax(spectrum) * rate / len(audio)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    write_wav(folder / "two.wav", tone(8000, 2.0, (300.0, 900.0)), 8000)
    encode_audio(folder / "pair.user.flac", tone(44100, 2.0), 44100, "flac", "mono")
    encode_audio(folder / "pair.model.ogg", tone(48000, 1.0, (800.0,)), 48000, "libopus", "mono")
    write_wav(folder / "deep" / "alone.wav", tone(22050, 1.0), 22050)
    (folder / "deep" / "alone.txt").write_text("a tone\n")
    frames = np.zeros((30, 48, 48, 3), np.uint8)
    frames[:, 10:30, 10:30] = (250, 30, 30)
    encode_video(folder / "film.mp4", frames, 15, tone(48000, 2.0))
    encode_video(folder / "mute.avi", frames, 15)
    words = [
        {"speaker": "model", "text": "so", "start": 1.0, "end": 1.2},
        {"speaker": "user", "text": "hm", "start": 0.2, "end": 9},
    ]
    (folder / "two.words.json").write_text(json.dumps(words))
    (folder / "README.md").write_text("about")
    return folder


BROKEN = ("bad", "cut", "half", "lost", "times")


def break_some(folder):
    (folder / "bad.wav").write_bytes(b"RIFF but no more")
    (folder / "cut.flac").write_bytes((folder / "pair.user.flac").read_bytes()[:60])
    write_wav(folder / "half.model.wav", tone(16000), 16000)
    (folder / "lost.words.json").write_text("[]")
    write_wav(folder / "times.wav", tone(16000), 16000)
    (folder / "times.words.json").write_text('[{"speaker": "user", "text": "x", "start": 5, "end": 4}]')


def test_every_layout_becomes_the_right_channels(folder):
    report = Report()
    found = {record.id: record for record in import_recordings(folder, report=report)}
    assert list(found) == ["deep/alone", "film", "mute", "pair", "two"]
    assert (report.recordings, report.pieces, report.skipped) == (5, 5, [])
    assert report.seconds == pytest.approx(sum(record.duration for record in found.values()))
    two = found["two"]
    assert strongest(two.user_audio, 16000) == pytest.approx(300, abs=2)
    assert strongest(two.model_audio, 24000) == pytest.approx(900, abs=2)
    assert two.words == (Word(USER, "hm", 0.2, 2.0), Word(MODEL, "so", 1.0, 1.2))
    pair = found["pair"]
    assert pair.duration == pytest.approx(2.0, abs=0.01)
    assert strongest(pair.user_audio, 16000) == pytest.approx(440, abs=2)
    assert strongest(pair.model_audio, 24000) == pytest.approx(800, abs=2)
    alone = found["deep/alone"]
    assert alone.model_audio is None and alone.meta["transcript"] == "a tone" and level(alone.user_audio) > 0.2
    film, mute = found["film"], found["mute"]
    assert film.frames.shape == mute.frames.shape == (20, 40, 40, 3)
    assert film.frames[5, 16, 16, 0] > 150 and film.frames[5, 36, 36, 0] < 60
    assert level(film.user_audio) > 0.2 and mute.user_audio is None
    assert all(record.family == "recording" for record in found.values())


def test_the_user_may_be_on_the_right_and_the_grid_larger(folder):
    found = {r.id: r for r in import_recordings(folder, Options(user_channel="right", video_grid=(2, 3)))}
    assert strongest(found["two"].user_audio, 16000) == pytest.approx(900, abs=2)
    assert found["film"].frames.shape == (20, 80, 120, 3)


def test_broken_recordings_are_named_counted_and_do_not_stop_the_others(folder):
    break_some(folder)
    report = Report()
    found = [record.id for record in import_recordings(folder, report=report)]
    assert found == ["deep/alone", "film", "mute", "pair", "two"]
    assert tuple(name for name, _ in report.skipped) == BROKEN
    reasons = dict(report.skipped)
    assert "bad.wav: " in reasons["bad"] and "cut.flac: " in reasons["cut"]
    assert "no half.user file" in reasons["half"] and "no sound or video" in reasons["lost"]
    assert "0 ≤ start ≤ end" in reasons["times"]


def test_damaged_recordings_are_named_and_not_imported(tmp_path):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 6 * 48000)).astype(np.float32)
    blocks = np.random.default_rng(1).integers(0, 255, (90, 12, 12, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    write_wav(tmp_path / "cut.wav", noise, 48000)
    encode_audio(tmp_path / "short.mp3", noise, 48000, "libmp3lame", "mono")
    encode_video(tmp_path / "torn.avi", blocks, 15, noise)
    write_wav(tmp_path / "whole.wav", noise, 48000)
    for name, how in (("cut.wav", "cut"), ("short.mp3", "cut"), ("torn.avi", "middle")):
        spoil(tmp_path / name, how)
    report = Report()
    assert [record.id for record in import_recordings(tmp_path, report=report)] == ["whole"]
    reasons = dict(report.skipped)
    assert list(reasons) == ["cut", "short", "torn"]
    assert "cut.wav: cut short" in reasons["cut"] and "short.mp3: cut short" in reasons["short"]
    assert "torn.avi: cut short or damaged" in reasons["torn"]


def test_both_files_of_a_broken_recording_are_named(tmp_path):
    for name in ("broken.wav", "broken.mp4", "half.wav"):
        (tmp_path / name).write_bytes(b"nothing that can be read")
    encode_video(tmp_path / "half.mp4", np.zeros((15, 48, 48, 3), np.uint8), 15)
    report = Report()
    assert not list(import_recordings(tmp_path, report=report))
    reasons = dict(report.skipped)
    assert "broken.mp4: not a sound" in reasons["broken"] and "broken.wav: not a sound" in reasons["broken"]
    assert "half.wav: not a sound" in reasons["half"] and "(its files: half.mp4, half.wav)" in reasons["half"]


def test_files_that_belong_to_no_recording_are_ignored_by_name(folder):
    for name in ("take1", "take2.xyz", "deep/lonely.txt", ".hidden"):
        (folder / name).write_bytes((folder / "two.wav").read_bytes())
    report = Report()
    assert len(list(import_recordings(folder, report=report))) == 5
    assert report.ignored == ["README.md", "deep/lonely.txt", "take1", "take2.xyz"] and not report.skipped


def test_long_recordings_are_cut_in_silence_without_loss():
    rate, seconds = 16000, 25.0
    rng = np.random.default_rng(0)
    user = rng.normal(0, 3000, int(rate * seconds)).astype(np.int16)
    silences = (6.0, 8.4, 15.0, 21.6)
    for silence in silences:
        user[int((silence - 0.2) * rate) : int((silence + 0.2) * rate)] = 0
    model = rng.normal(0, 9, int(24000 * seconds)).astype(np.int16)
    times = np.arange(250) / 10.0
    words = tuple(Word(USER, f"w{index}", index + 0.1, index + 0.6) for index in range(25))
    whole = Conversation(
        "x", seconds, user, model, np.zeros((250, 40, 40, 3), np.uint8), times, words, meta={"source": ["x.wav"]}
    )
    pieces = cut(whole, 10.0)
    offsets = [piece.meta["offset"] for piece in pieces]
    assert offsets[:2] == [0.0, 8.4] and all(piece.duration <= 10.0 for piece in pieces)
    assert all(offset == 0.0 or any(abs(offset - silence) < 1e-6 for silence in silences) for offset in offsets)
    np.testing.assert_array_equal(np.concatenate([piece.user_audio for piece in pieces]), user)
    np.testing.assert_array_equal(np.concatenate([piece.model_audio for piece in pieces]), model)
    assert sum(len(piece.frames) for piece in pieces) == 250
    assert [word.text for piece in pieces for word in piece.words] == [word.text for word in words]
    for piece in pieces:
        for word in piece.words:
            assert word.start + piece.meta["offset"] == pytest.approx(int(word.text[1:]) + 0.1)
            assert word.end <= piece.duration + 1e-6
    assert [piece.id for piece in pieces] == [f"x/{index:03d}" for index in range(len(pieces))]
    assert cut(whole, 25.0) == [whole]


def test_missing_and_empty_folders_and_bad_options_are_errors(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        import_recordings(tmp_path / "none")
    (tmp_path / "notes.md").write_text("nothing here")
    with pytest.raises(ValueError, match="holds no recordings"):
        import_recordings(tmp_path)
    for wrong in ({"user_channel": "up"}, {"video_grid": (0, 1)}, {"max_seconds": 0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Options(**wrong)


def run_prepare(*flags):
    """The command as a user runs it: exit code, what it printed."""
    command = [sys.executable, "-m", "launch.prepare", *flags]
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_prepare_writes_recordings_and_lists_what_it_skipped(folder, tmp_path):
    break_some(folder)
    flags = f"--recordings={folder}", f"--output={tmp_path / 'out'}"
    code, printed = run_prepare(*flags, "--max_seconds=1.0", "--video_grid=1x2")
    assert code == 0
    shards = open_shards(tmp_path / "out")
    assert len(shards) > 8 and max(record.duration for record in shards) <= 1.0 + 1e-6
    assert min(record.duration for record in shards) > 0.3
    seconds = sum(record.duration for record in shards)
    assert f"{len(shards)} conversations {seconds:10.1f} s, 5 skipped, 1 ignored" in printed
    assert "ignored (.md is not sound or video): README.md" in printed
    assert all(f"skipped {name}: " in printed for name in BROKEN)
    code, printed = run_prepare(*flags)
    assert code != 0 and "exists already" in printed
    code, _ = run_prepare(*flags, "--overwrite")
    assert code == 0 and len(open_shards(tmp_path / "out")) == 5


def test_prepare_ends_with_one_line_if_no_recording_can_be_used(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("one.wav", "two.mp4"):
        (tmp_path / "in" / name).write_bytes(b"nothing that can be read")
    code, printed = run_prepare(f"--recordings={tmp_path / 'in'}", f"--output={tmp_path / 'out'}")
    assert code == 1 and "skipped one: " in printed and "skipped two: " in printed
    assert printed.splitlines()[-1].endswith("none of 2 can be used, see above")
    assert "Traceback" not in printed and "flags:" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    code, printed = run_prepare()
    assert code == 1 and "--generate=SOURCE or --recordings=FOLDER, and --output=FOLDER" in printed


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "either --generate"),
        (("--generate=text", "--recordings={folder}"), "either --generate"),
        (("--recordings={folder}", "--video_grid=2by3"), "--video_grid=2by3"),
        (("--output={folder}", "--generate=text", "--overwrite"), "is no folder of records, and is left alone"),
    ],
)
def test_prepare_refuses_flags_that_do_not_fit(folder, tmp_path, flags, message):
    out = tmp_path / "out"
    code, printed = run_prepare(f"--output={out}", *(flag.format(folder=folder) for flag in flags))
    assert code == 1 and message in printed and "flags:" not in printed
    assert not out.exists()


def test_links_are_followed_once_and_those_to_nothing_are_named(folder, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_wav(other / "linked.wav", tone(16000), 16000)
    (folder / "batch").symlink_to(other)
    (folder / "round").symlink_to(folder)
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    report = Report()
    names = [record.id for record in import_recordings(folder, report=report)]
    assert names.count("batch/linked") == 1 and not any(name.startswith("round/") for name in names)
    assert [name for name, reason in report.skipped if "no such file" in reason] == ["gone"]
