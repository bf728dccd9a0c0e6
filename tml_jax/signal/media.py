"""Sound and video files in and out: decoding by PyAV, resampling by soxr, PCM16 conversion.

Decoded sound is float32 in [-1, 1], (channels, samples). Everything here runs on the host.
"""

import os
import pathlib
import wave
from collections.abc import Iterator

import av
import numpy as np
import soxr

Path = str | os.PathLike


class MediaError(ValueError):
    """A file cannot be decoded: names the file and says why."""


def _open(path: Path, kind: str) -> av.container.InputContainer:
    """Opens a container that has a stream of `kind` ("audio" or "video")."""
    if not pathlib.Path(path).is_file():
        raise MediaError(f"{path}: no such file")
    try:
        container = av.open(os.fspath(path))
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a sound or video file that can be read ({error})") from error
    if not getattr(container.streams, kind):
        held = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        container.close()
        raise MediaError(f"{path}: holds no {kind} stream (it holds {held})")
    return container


def kinds(path: Path) -> frozenset[str]:
    """What a file holds: a set of `audio` and `video`. The cover picture of a sound file is no video.

    Raises:
      MediaError: the file is missing or cannot be read.
    """
    if not pathlib.Path(path).is_file():
        raise MediaError(f"{path}: no such file")
    try:
        with av.open(os.fspath(path)) as container:
            cover = av.stream.Disposition.attached_pic
            return frozenset(
                stream.type
                for stream in container.streams
                if stream.type == "audio" or (stream.type == "video" and not stream.disposition & cover)
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"{path}: not a sound or video file that can be read ({error})") from error


def read_audio(path: Path, rate: int, channels: int | None = None) -> np.ndarray:
    """Decodes the first audio stream of a file of any container, codec and rate.

    Args:
      path: the file.
      rate: Hz of the result.
      channels: number of channels wanted: 1 averages what is there, otherwise the file must have just as many; None
        keeps them all.

    Returns:
      (channels, samples) float32 in [-1, 1].

    Raises:
      MediaError: the file is missing, broken, empty, or has another number of channels.
    """
    blocks = []
    with _open(path, "audio") as container:
        stream = container.streams.audio[0]
        source_rate = stream.rate
        try:
            # Only the sample format changes here. Rate and layout stay, so nothing is mixed behind our back.
            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(stream):
                blocks.extend(out.to_ndarray() for out in to_float.resample(frame))
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{path}: sound breaks off after {len(blocks)} blocks ({error})") from error
    if not blocks or not source_rate:
        raise MediaError(f"{path}: holds an audio stream but no samples")
    if len({len(block) for block in blocks}) > 1:
        raise MediaError(f"{path}: the number of channels changes within the file")
    samples = np.concatenate(blocks, axis=1)
    if channels == 1:
        samples = samples.mean(axis=0, keepdims=True)
    elif channels is not None and len(samples) != channels:
        raise MediaError(f"{path}: has {len(samples)} channels, expected {channels}")
    return np.clip(resample(samples, source_rate, rate), -1.0, 1.0)


def resample(samples: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """Resamples (channels, samples) float32 from `source_rate` to `rate` Hz, without delay, at soxr's high quality."""
    if source_rate == rate:
        return samples.astype(np.float32, copy=False)
    return np.ascontiguousarray(soxr.resample(samples.T.astype(np.float32), source_rate, rate).T)


def read_video(path: Path, rows: int, columns: int, rate: float = 10.0) -> Iterator[tuple[float, np.ndarray]]:
    """Decodes frames, at most `rate` a second, scaled to fit into `rows` × `columns` with black bars.

    The time axis starts at the file's own start, which its sound shares, so sound and pictures stay together.

    Args:
      path: the file.
      rows: rows of the result.
      columns: columns of the result.
      rate: most frames a second; of a faster video, the first frame in each 1/rate seconds is kept.

    Yields:
      (seconds from the start of the file, (rows, columns, 3) uint8 RGB), times rising.

    Raises:
      MediaError: the file is missing, broken, or has no pictures.
    """
    if rows <= 0 or columns <= 0 or rate <= 0:
        raise ValueError(f"read_video of {path}: rows {rows}, columns {columns} and rate {rate} must be above 0")
    count, last_tick, last_time = 0, -1, -1.0
    with _open(path, "video") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        origin = container.start_time / av.time_base if container.start_time is not None else 0.0
        try:
            for frame in container.decode(stream):
                time = max(0.0, frame.time - origin) if frame.time is not None else count / rate
                tick = int(np.floor(time * rate + 1e-6))
                if tick <= last_tick or time <= last_time:
                    continue
                count, last_tick, last_time = count + 1, tick, time
                yield time, _letterbox(frame, rows, columns)
        except (av.FFmpegError, ValueError) as error:
            raise MediaError(f"{path}: video breaks off after {count} frames ({error})") from error
    if not count:
        raise MediaError(f"{path}: holds a video stream but no frame")


def _letterbox(frame: av.VideoFrame, rows: int, columns: int) -> np.ndarray:
    scale = min(rows / frame.height, columns / frame.width)
    height, width = max(1, round(frame.height * scale)), max(1, round(frame.width * scale))
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    picture = np.zeros((rows, columns, 3), np.uint8)
    top, left = (rows - height) // 2, (columns - width) // 2
    picture[top : top + height, left : left + width] = small
    return picture


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Writes (channels, samples) float32 in [-1, 1] as a PCM16 wave file."""
    if samples.ndim != 2:
        raise ValueError(f"write_wav to {path}: samples have shape {samples.shape}, expected (channels, samples)")
    with wave.open(os.fspath(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm16(samples).T.astype("<i2").tobytes())


def pcm16(samples: np.ndarray) -> np.ndarray:
    """Converts float sound in [-1, 1] to int16 of the same shape; louder samples are clipped."""
    return np.rint(np.clip(samples, -1.0, 1.0) * 32767.0).astype(np.int16)


def float_audio(samples: np.ndarray) -> np.ndarray:
    """The inverse of `pcm16`: int16 to float32 in [-1, 1], same shape."""
    return samples.astype(np.float32) / 32767.0
