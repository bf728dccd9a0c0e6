"""Decoding of sound and video of several containers, rates and layouts."""

import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from films import encode_video

from tml_jax.signal.media import MediaError, kinds, read_audio, read_video, resample, write_wav
from tml_jax.signal.pcm import float_audio, pcm16


def tone(rate, seconds=1.0, frequencies=(440.0,)):
    time = np.arange(int(rate * seconds)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * f * time) for f in frequencies]).astype(np.float32)


def encode_audio(path, samples, rate, codec, layout):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        fitted = av.AudioResampler(format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
        frame.sample_rate = rate
        for piece in [*fitted.resample(frame), *fitted.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def encode_clapper(path, codec, start, pause=(9.0, 9.0)):
    """A film of 4 s with a white frame at 2 s; its sound starts late, lacks a pause, and beeps from 2.0 to 2.2 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream(codec, rate=48000, layout="mono")
        for index in range(100):
            picture = np.full((64, 64, 3), 255 if index == 50 else 0, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        time = start + np.arange(round((4 - start) * 48000)) / 48000
        sound = np.where((time >= 2.0) & (time < 2.2), 0.5 * np.sin(2 * np.pi * 1000 * time), 0.0).astype(np.float32)
        size = audio.frame_size or 1024
        as_coded = av.AudioResampler(format=audio.format, layout="mono", rate=48000)
        for begin in range(0, len(sound) - size + 1, size):
            if pause[0] <= time[begin] < pause[1]:
                continue
            frame = av.AudioFrame.from_ndarray(sound[None, begin : begin + size], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
            frame.pts = round(time[begin] * 48000)
            for piece in as_coded.resample(frame):
                container.mux(audio.encode(piece))
        container.mux(audio.encode(None))


def spoil(path, how):
    """Damages a file: `cut` leaves the first quarter, `middle` overwrites the middle third with noise."""
    content = bytearray(path.read_bytes())
    first, last = len(content) // 3, 2 * len(content) // 3
    if how == "cut":
        del content[len(content) // 4 :]
    else:
        content[first:last] = np.random.default_rng(0).bytes(last - first)
    path.write_bytes(content)


def strongest(samples, rate):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return np.argmax(spectrum) * rate / len(samples)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [("a.wav", "pcm_s16le", 11025), ("a.wav", "pcm_u8", 8000), ("a.flac", "flac", 44100), ("a.ogg", "libopus", 48000),
     ("a.mp3", "libmp3lame", 22050), ("a.m4a", "aac", 32000), ("a.mka", "pcm_s24le", 37800)],
)  # fmt: skip
def test_any_container_and_rate_gives_the_same_tones_at_the_rate_asked(tmp_path, name, codec, rate):
    encode_audio(tmp_path / name, tone(rate, frequencies=(440.0, 700.0)), rate, codec, "stereo")
    samples = read_audio(tmp_path / name, 16000)
    assert samples.shape[0] == 2 and samples.dtype == np.float32
    assert samples.shape[1] == pytest.approx(16000, abs=1600)
    for channel, frequency in zip(samples, (440.0, 700.0)):
        assert strongest(channel[2000:14000], 16000) == pytest.approx(frequency, abs=3)
        assert np.abs(channel[4000:12000]).max() == pytest.approx(0.4, abs=0.05)


def test_wav_round_trip_is_exact_to_16_bits_and_one_channel_is_the_average(tmp_path):
    samples = tone(24000, frequencies=(300.0, 500.0))
    write_wav(tmp_path / "a.wav", samples, 24000)
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 24000, 24000)
    both = read_audio(tmp_path / "a.wav", 24000)
    np.testing.assert_allclose(both, samples, atol=1e-4)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", 24000, 1)[0], both.mean(axis=0), atol=1e-6)
    with pytest.raises(MediaError, match="a.wav: has 2 channels, expected 3"):
        read_audio(tmp_path / "a.wav", 24000, 3)


def test_resampling_keeps_time():
    click = np.zeros((1, 24000), np.float32)
    click[0, 12000] = 1.0
    assert np.argmax(resample(click, 24000, 16000)[0]) == 8000


def test_pcm16_round_trips_and_clips_what_is_too_loud():
    samples = np.arange(-32768, 32768, dtype=np.int16)
    np.testing.assert_array_equal(pcm16(float_audio(samples)), samples)
    assert pcm16(np.asarray([2.0, -2.0], np.float32)).tolist() == [32767, -32768]


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "not a sound"), (b"hello there" * 99, "not a sound")]
)
def test_unreadable_files_are_named_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "broken.wav"
    if content is not None:
        path.write_bytes(content)
    for read in (lambda: read_audio(path, 16000), lambda: list(read_video(path, 40, 40)), lambda: kinds(path)):
        with pytest.raises(MediaError, match=rf"broken\.wav: {reason}"):
            read()


def test_a_wave_file_without_samples_is_an_error(tmp_path):
    write_wav(tmp_path / "empty.wav", np.zeros((1, 0), np.float32), 16000)
    with pytest.raises(MediaError, match="empty.wav"):
        read_audio(tmp_path / "empty.wav", 16000)


def test_video_is_thinned_to_the_rate_and_letterboxed(tmp_path):
    frames = np.zeros((60, 48, 96, 3), np.uint8)
    frames[:30], frames[30:] = (220, 0, 0), (0, 0, 220)
    encode_video(tmp_path / "v.mp4", frames, 30, tone(48000, 2.0))
    assert kinds(tmp_path / "v.mp4") == {"audio", "video"}
    times, pictures = zip(*read_video(tmp_path / "v.mp4", 40, 80, rate=10.0))
    assert len(times) == 20
    np.testing.assert_allclose(np.diff(times), 0.1, atol=0.04)
    red, blue = pictures[2], pictures[15]
    assert red.shape == (40, 80, 3) and red.dtype == np.uint8
    assert red[20, 40, 0] > 150 and red[20, 40, 2] < 90 and blue[20, 40, 2] > 150
    tall = next(read_video(tmp_path / "v.mp4", 80, 80))[1]
    assert tall[:15].max() == 0 and tall[-15:].max() == 0 and tall[40, 40, 0] > 150
    assert read_audio(tmp_path / "v.mp4", 16000, 1).shape[1] == pytest.approx(32000, abs=1600)


def test_sound_without_pictures_says_so(tmp_path):
    write_wav(tmp_path / "a.wav", tone(16000), 16000)
    with pytest.raises(MediaError, match="holds no video stream"):
        list(read_video(tmp_path / "a.wav", 40, 40))


@pytest.mark.parametrize(
    ("name", "codec", "start"),
    [("a.mkv", "pcm_s16le", 1.0), ("a.mkv", "aac", 1.0), ("a.mkv", "libopus", 1.0), ("a.mp4", "aac", 1.0),
     ("a.ts", "aac", 1.0), ("a.mov", "pcm_s16le", 1.0), ("a.mp4", "aac", 0.0), ("a.mkv", "libmp3lame", 0.0)],
)  # fmt: skip
def test_sound_that_starts_late_stays_with_its_pictures(tmp_path, name, codec, start):
    encode_clapper(tmp_path / name, codec, start)
    sound = read_audio(tmp_path / name, 16000, 1)[0]
    white = next(time for time, picture in read_video(tmp_path / name, 40, 40, 25.0) if picture.mean() > 128)
    beep = np.flatnonzero(np.abs(sound) > 0.2)[0] / 16000
    assert white == pytest.approx(2.0, abs=0.03) and beep == pytest.approx(white, abs=0.03)
    assert len(sound) / 16000 == pytest.approx(4.0, abs=0.06)


def test_a_pause_of_the_timestamps_is_silence(tmp_path):
    encode_clapper(tmp_path / "a.mkv", "pcm_s16le", 0.0, pause=(0.5, 1.5))
    sound = read_audio(tmp_path / "a.mkv", 16000, 1)[0]
    assert np.flatnonzero(np.abs(sound) > 0.2)[0] / 16000 == pytest.approx(2.0, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.wav", "pcm_s16le"), ("a.flac", "flac"), ("a.ogg", "libopus"), ("a.mp3", "libmp3lame"), ("a.mka", "pcm_s16le")],
)
def test_a_codecs_delay_makes_sound_neither_longer_nor_later(tmp_path, name, codec):
    sound = tone(48000, 2.0)
    sound[:, :24000] = 0.0
    encode_audio(tmp_path / name, sound, 48000, codec, "mono")
    heard = read_audio(tmp_path / name, 48000)[0]
    assert len(heard) == pytest.approx(96000, abs=64)
    assert np.flatnonzero(np.abs(heard) > 0.2)[0] == pytest.approx(24000, abs=100)


@pytest.mark.parametrize(
    ("name", "codec", "how", "message"),
    [("a.wav", "pcm_s16le", "cut", "cut short .* of the 6.00 s"), ("a.mp3", "libmp3lame", "cut", "cut short"),
     ("a.flac", "flac", "cut", "cut short"), ("a.mka", "aac", "cut", "cut short"),
     ("a.mp3", "libmp3lame", "middle", "damaged"), ("a.flac", "flac", "middle", "s of sound are missing"),
     ("a.ogg", "libopus", "middle", "s of sound are missing"), ("a.m4a", "aac", "middle", "cannot be decoded")],
)  # fmt: skip
def test_sound_that_is_cut_or_damaged_is_an_error(tmp_path, name, codec, how, message):
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, (1, 6 * 48000)).astype(np.float32)
    encode_audio(tmp_path / name, noise, 48000, codec, "mono")
    assert read_audio(tmp_path / name, 16000).shape[1] == pytest.approx(96000, abs=1600)
    spoil(tmp_path / name, how)
    with pytest.raises(MediaError, match=rf"{name}: .*{message}"):
        read_audio(tmp_path / name, 16000)


@pytest.mark.parametrize("name", ["v.avi", "v.mkv", "v.mp4"])
@pytest.mark.parametrize("how", ["cut", "middle"])
def test_video_that_is_cut_or_damaged_is_an_error(tmp_path, name, how):
    blocks = np.random.default_rng(1).integers(0, 255, (90, 12, 12, 3), np.uint8)
    encode_video(tmp_path / name, blocks.repeat(8, axis=1).repeat(8, axis=2), 15)
    assert len(list(read_video(tmp_path / name, 40, 40, 25.0))) == 90
    spoil(tmp_path / name, how)
    with pytest.raises(MediaError, match=f"{name}: (cut short or damaged|damaged|not a sound)"):
        list(read_video(tmp_path / name, 40, 40))


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wave_file_from_a_pipe_does_not_say_how_long_it_is(tmp_path, size):
    write_wav(tmp_path / "a.wav", tone(16000), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = size.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    assert read_audio(tmp_path / "a.wav", 16000).shape == (1, 16000)


def test_an_mp3_without_a_count_of_its_frames_and_with_a_tag_at_its_end_is_whole(tmp_path):
    encode_audio(tmp_path / "a.mp3", tone(48000, 3.0), 48000, "libmp3lame", "mono")
    content = (tmp_path / "a.mp3").read_bytes()
    first = content.index(b"\xff\xfb")
    second = content.index(b"\xff\xfb", first + 4)  # the first frame only counts the others
    tags = b"APETAGEX" + bytes(200) + b"TAG" + bytes(125)
    (tmp_path / "a.mp3").write_bytes(content[second:] + tags)
    assert read_audio(tmp_path / "a.mp3", 16000).shape[1] == pytest.approx(48000, abs=1600)


@pytest.mark.parametrize(("source_rate", "ahead"), [(8000, 0.010), (11025, 0.007), (22050, 0.005), (48000, 0.005)])
def test_resampling_looks_ahead_no_further_than_it_says(source_rate, ahead):
    rng = np.random.default_rng(0)
    one = rng.uniform(-1, 1, (1, source_rate)).astype(np.float32)
    half = source_rate // 2
    other = np.concatenate([one[:, :half], rng.uniform(-1, 1, (1, source_rate - half))], axis=1, dtype=np.float32)
    differs = np.abs(resample(one, source_rate, 16000) - resample(other, source_rate, 16000))[0] > 1e-4
    seen = half / source_rate - np.flatnonzero(differs)[0] / 16000
    assert 0.001 < seen <= ahead
