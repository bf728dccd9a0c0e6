"""Sound and video files in and out: decoding by PyAV, resampling by soxr.

Decoded sound is float32 in [-1, 1], (channels, samples). Everything here runs on the host. FFmpeg goes on in silence
where a file is damaged or cut short; here both are errors.
"""

import io
import os
import pathlib
import struct
import wave
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import soxr

from tml_jax.signal.pcm import pcm16

Path = str | os.PathLike

_GAP = 0.02  # seconds: timestamps are this unsteady without meaning anything (rounding, a codec's delay)
_LONGEST_GAP = 3600.0  # seconds: a longer jump of the timestamps is no pause
_SHORT = 0.2, 0.02  # seconds, and share of the whole, by which a file may be shorter than it says: the larger counts
# Containers whose header says how long they are. Of others FFmpeg guesses it from what is there.
_DECLARING = {"aiff", "au", "avi", "caf", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"}
_GAPLESS = {"flac", "mp3", "ogg", "wav"}  # sound without pauses in its timestamps: one is a lost piece
_ENDLESS = 0x7FFFF000  # from this size of the data on, the writer of a wave file into a pipe did not know it


class MediaError(ValueError):
    """A file cannot be decoded: names the file and says why."""


def _check_file(path: Path) -> None:
    if pathlib.Path(path).is_dir():
        raise MediaError(f"{path}: is a folder, expected a file")
    if not pathlib.Path(path).is_file():
        raise MediaError(f"{path}: no such file")


def _open(path: Path, kind: str) -> av.container.InputContainer:
    """Opens a container that has a stream of `kind` ("audio" or "video")."""
    _check_file(path)
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
    _check_file(path)
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


def sample_rate(path: Path) -> int:
    """Samples a second of a file's first audio stream, as it is stored.

    Raises:
      MediaError: the file is missing, cannot be read, or holds no sound.
    """
    with _open(path, "audio") as container:
        return container.streams.audio[0].rate


def read_audio(path: Path, rate: int, channels: int | None = None) -> np.ndarray:
    """Decodes the first audio stream of a file of any container, codec and rate.

    Args:
      path: the file.
      rate: Hz of the result.
      channels: number of channels wanted: 1 averages what is there, otherwise the file must have just as many; None
        keeps them all.

    Returns:
      (channels, samples) float32 in [-1, 1]. Time 0 is the file's own start, as in `read_video`: sound that begins
      later in the container, or pauses there, has silence before it. Timestamps that are off by 20 ms or less are not
      followed.

    Raises:
      MediaError: the file is missing, damaged, cut short, empty, or has another number of channels.
    """
    blocks, position, source_rate = [], 0, 0
    with _open(path, "audio") as container:
        origin = container.start_time / av.time_base if container.start_time is not None else 0.0
        try:
            # Only the sample format changes here. Rate and layout stay, so nothing is mixed behind our back.
            to_float = av.AudioResampler(format="fltp")
            for frame in _decode(path, container, "audio"):
                source_rate = source_rate or frame.sample_rate
                late = 0 if frame.time is None else round((frame.time - origin) * source_rate) - position
                for out in to_float.resample(frame):
                    block = out.to_ndarray()
                    if late > _GAP * source_rate:
                        _check_gap(path, container, position / source_rate, late / source_rate)
                        blocks.append(np.zeros((len(block), late), np.float32))
                        position, late = position + late, 0
                    blocks.append(block)
                    position += block.shape[1]
        except MediaError:
            raise
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


def _check_gap(path: Path, container: av.container.InputContainer, start: float, seconds: float) -> None:
    """Raises MediaError unless a gap of the timestamps, at `start` seconds, is a pause that the file means."""
    if seconds > _LONGEST_GAP:
        raise MediaError(f"{path}: its timestamps jump by {seconds:.0f} s at {start:.2f} s: write it anew with ffmpeg")
    if container.format.name in _GAPLESS and seconds > _SHORT[0]:
        raise MediaError(f"{path}: damaged: {seconds:.2f} s of sound are missing at {start:.2f} s")


def _decode(path: Path, container: av.container.InputContainer, kind: str) -> Iterator[av.AudioFrame | av.VideoFrame]:
    """Decodes the first stream of a kind to its end.

    Args:
      path: for the errors.
      container: just opened.
      kind: `audio` or `video`.

    Yields:
      Its frames.

    Raises:
      MediaError: after the last frame: pieces were damaged, or the file is shorter than it says.
    """
    stream = getattr(container.streams, kind)[0]
    frames = damaged = pending = 0
    reached, reached_all = 0.0, 0.0
    for packet in container.demux():  # of all streams: in some containers only the longest one's length is written
        timestamp = packet.dts if packet.pts is None else packet.pts
        if timestamp is not None:
            end = float((timestamp + (packet.duration or 0)) * packet.time_base)
            reached_all = max(reached_all, end)
            reached = max(reached, end) if packet.stream.index == stream.index else reached
        if packet.stream.index != stream.index:
            continue
        try:
            decoded = packet.decode()
        except av.FFmpegError:
            pending += 1
            continue
        for frame in decoded:
            if frame.is_corrupt:
                pending += 1
            else:
                # What cannot be decoded before the first or after the last good frame is no damage: a broadcast joined
                # midway, a tag at the end. If it was more, the length tells.
                damaged, pending, frames = damaged + (pending if frames else 0), 0, frames + 1
            yield frame
    if damaged:
        raise MediaError(f"{path}: damaged: of its {kind}, {damaged} packets cannot be decoded")
    _check_length(path, container, stream, reached, reached_all)


def _check_length(
    path: Path, container: av.container.InputContainer, stream: av.stream.Stream, reached: float, reached_all: float
) -> None:
    """Raises MediaError if a file ends before its header says.

    Args:
      path: the file.
      container: it, opened.
      stream: the stream that was decoded.
      reached: seconds, where that stream ended.
      reached_all: seconds, where the last of all streams ended.
    """
    name, lengths = container.format.name, []  # (declared, found) seconds
    if name == "wav":
        lengths.append((_wave_seconds(path), reached))  # FFmpeg's own duration is that of what is left
    elif name in _DECLARING or (name == "mp3" and _mp3_declares(path)):
        if container.duration:
            start = container.start_time / av.time_base if container.start_time else 0.0
            lengths.append((container.duration / av.time_base, reached_all - start))
        if stream.duration:
            start = (stream.start_time or 0) * stream.time_base
            lengths.append((float(stream.duration * stream.time_base), reached - float(start)))
        if name == "avi":  # of which FFmpeg corrects the durations, not the number of frames
            counted = [video for video in container.streams.video if video.frames and video.average_rate]
            lengths += [(float(video.frames / video.average_rate), reached_all) for video in counted]
    for declared, found in lengths:
        if declared - found > max(_SHORT[0], _SHORT[1] * declared):
            raise MediaError(f"{path}: cut short or damaged: {found:.2f} s of the {declared:.2f} s that it says it has")


def _wave_seconds(path: Path) -> float:
    """The length that the header of a wave file declares, in seconds; 0 if it declares none."""
    rate = 0
    with open(path, "rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return 0.0
        while len(header := file.read(8)) == 8:
            name, size = header[:4], int.from_bytes(header[4:], "little")
            if name == b"data":
                return size / rate if rate and size < _ENDLESS else 0.0
            body = file.read(size + size % 2)
            if name == b"fmt " and len(body) >= 12:
                rate = struct.unpack_from("<I", body, 8)[0]  # bytes a second
    return 0.0


def _mp3_declares(path: Path) -> bool:
    """Whether the first frame of an MP3 file says how many there are. If not, FFmpeg guesses from its bit rate."""
    with open(path, "rb") as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":
            file.seek(sum(byte << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0))), os.SEEK_CUR)
        else:
            file.seek(0)
        first = file.read(2048)
    return any(mark in first for mark in (b"Xing", b"Info", b"VBRI"))


def resample(samples: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
    """Resamples (channels, samples) float32 from `source_rate` to `rate` Hz, without delay, at soxr's high quality.

    Without delay means that its filter looks ahead. Down to 1e-4 of full scale, and to 16 kHz, a sample depends on what
    comes up to 5 ms later (from 22.05 kHz and more), 7 ms (from 11.025 kHz) or 10 ms (from 8 kHz), as measured.
    """
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
      MediaError: the file is missing, damaged, cut short, or has no pictures. Of damage and length the error comes
        after the last frame.
    """
    if rows <= 0 or columns <= 0 or rate <= 0:
        raise ValueError(f"read_video of {path}: rows {rows}, columns {columns} and rate {rate} must be above 0")
    count, last_tick, last_time = 0, -1, -1.0
    with _open(path, "video") as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        origin = container.start_time / av.time_base if container.start_time is not None else 0.0
        try:
            for frame in _decode(path, container, "video"):
                time = max(0.0, frame.time - origin) if frame.time is not None else count / rate
                tick = int(np.floor(time * rate + 1e-6))
                if tick <= last_tick or time <= last_time:
                    continue
                count, last_tick, last_time = count + 1, tick, time
                yield time, _letterbox(frame, rows, columns)
        except MediaError:
            raise
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


def write_wav(path: Path | BinaryIO, samples: np.ndarray, rate: int) -> None:
    """Writes (channels, samples) float32 in [-1, 1] as a PCM16 wave file, to a path or into an open file."""
    if samples.ndim != 2:
        raise ValueError(f"write_wav to {path}: samples have shape {samples.shape}, expected (channels, samples)")
    with wave.open(path if isinstance(path, io.IOBase) else os.fspath(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm16(samples).T.astype("<i2").tobytes())
