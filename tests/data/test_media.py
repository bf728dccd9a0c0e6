"""Decoding of sound and video of several containers, rates and layouts."""

import wave

import av
import numpy as np
import pytest

from tml_jax.signal.media import MediaError, float_audio, kinds, pcm16, read_audio, read_video, resample, write_wav


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


def encode_video(path, frames, rate, sound=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.bit_rate = 2_000_000
        audio = container.add_stream("aac", rate=48000, layout="mono") if sound is not None else None
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
        if audio is not None:
            frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="mono")
            frame.sample_rate = 48000
            resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000, frame_size=1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(audio.encode(piece))
            container.mux(audio.encode(None))


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
    samples = np.arange(-32767, 32768, dtype=np.int16)
    np.testing.assert_array_equal(pcm16(float_audio(samples)), samples)
    assert pcm16(np.asarray([2.0, -2.0], np.float32)).tolist() == [32767, -32767]


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
