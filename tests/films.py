"""Small video files for tests."""

import av


def encode_video(path, frames, rate, sound=None):
    """Writes (frames, rows, columns, 3) uint8, and (1, samples) float32 sound at 48 kHz, as MPEG-4."""
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
