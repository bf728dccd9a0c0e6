"""Imports a folder of real recordings as conversations.

What belongs to one recording NAME lies in one folder (subfolders are searched too):

  NAME.EXT                             two channels: one is the user, the other the model; one channel: the user alone
  NAME.user.EXT and NAME.model.EXT     the two sides in files of their own (the model's may be missing)
  NAME.EXT with pictures               the video; its sound is used unless there is NAME.user.EXT or a sound file
  NAME.words.json                      optional: [{"speaker": "user", "text": "hello", "start": 0.1, "end": 0.5}, …]
  NAME.txt                             optional: what is said, kept in `meta["transcript"]`

EXT is one of ENDINGS below, which PyAV decodes. Other files are ignored, and named in the report.
"""

import collections
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Generator

import numpy as np
from absl import logging

from tml_jax.config import INPUT_RATE, MICRO_TURN_SECONDS, OUTPUT_RATE, PATCH
from tml_jax.data.record import MODEL, USER, Conversation, Word
from tml_jax.signal.media import MediaError, kinds, read_audio, read_video
from tml_jax.signal.pcm import pcm16

_WORDS, _TRANSCRIPT = ".words.json", ".txt"
# Endings of sound and video files. What a file without one of them is, nobody said: it is not guessed.
ENDINGS = frozenset(
    ".3g2 .3gp .aac .ac3 .aif .aifc .aiff .amr .asf .au .avi .caf .dv .eac3 .flac .flv .gsm .m2ts .m4a .m4b .m4v .mj2 "
    ".mka .mkv .mov .mp2 .mp3 .mp4 .mpeg .mpg .mts .mxf .oga .ogg .ogv .opus .ra .rf64 .rm .snd .sph .spx .ts .tta "
    ".vob .voc .w64 .wav .webm .wma .wmv .wv .y4m".split()
)
_QUIET = 33.0  # rms of 16-bit samples, -60 dBFS: no speech
_ADVICE = 1200.0  # seconds: longer recordings take noticeable memory


@dataclasses.dataclass(frozen=True)
class Options:
    """How recordings are read.

    Attributes:
      user_channel: `left` or `right`: which channel of a two-channel file is the user.
      video_grid: patches of 40 × 40 pixels down and across a frame.
      max_seconds: longest piece; longer recordings are cut, where it is silent if possible.
      frame_rate: most frames a second.
    """

    user_channel: str = "left"
    video_grid: tuple[int, int] = (1, 1)
    max_seconds: float = 30.0
    frame_rate: float = 10.0

    def __post_init__(self) -> None:
        if self.user_channel not in ("left", "right"):
            raise ValueError(f"user_channel {self.user_channel!r}: expected left or right")
        if len(self.video_grid) != 2 or min(self.video_grid) <= 0:
            raise ValueError(f"video_grid {self.video_grid}: expected two numbers above 0")
        if self.max_seconds < 1.0 or self.frame_rate <= 0:
            raise ValueError(f"max_seconds {self.max_seconds} must be at least 1, frame_rate {self.frame_rate} above 0")


@dataclasses.dataclass
class Report:
    """What became of a folder; filled while `import_recordings` is consumed.

    Attributes:
      recordings: recordings that were read.
      pieces: conversations made of them.
      seconds: their length.
      skipped: (name, reason) of each recording that could not be used.
      ignored: files, by their path below the folder, that are not known to belong to a recording.
    """

    recordings: int = 0
    pieces: int = 0
    seconds: float = 0.0
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    ignored: list[str] = dataclasses.field(default_factory=list)


def import_recordings(
    folder: str | os.PathLike, options: Options = Options(), report: Report | None = None
) -> Generator[Conversation, None, None]:
    """Reads every recording of a folder, in the order of their names.

    Args:
      folder: see the head of this file.
      options: how to read.
      report: filled as the iterator is consumed. A recording that is broken, damaged or cut short is skipped, logged
        and listed there.

    Yields:
      Conversations of at most `options.max_seconds`, family `recording`, ids `NAME` or `NAME/000`, `NAME/001`, …

    Raises:
      ValueError: the folder is missing or holds nothing that looks like a recording (raised at the call).
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder of recordings")
    report = Report() if report is None else report
    found, ignored = _find(root)
    report.ignored += ignored
    if not found:
        others = f"; {len(ignored)} other files, such as {ignored[0]}, have no known ending" if ignored else ""
        raise ValueError(f"{root}: holds no recordings; expected NAME.EXT or NAME.user.EXT and NAME.model.EXT{others}")
    return _import(root, found, options, report)


def _import(
    root: pathlib.Path, found: dict[str, list[pathlib.Path]], options: Options, report: Report
) -> Generator[Conversation, None, None]:
    for number, (name, paths) in enumerate(found.items(), 1):
        logging.log_every_n_seconds(logging.INFO, "recording %d of %d: %s", 5, number, len(found), name)
        try:
            pieces = cut(_read(name, root / name, paths, options), options.max_seconds)
        except (ValueError, OSError) as error:
            files = f" (its files: {', '.join(path.name for path in paths)})" if len(paths) > 1 else ""
            logging.warning("skipped %s: %s%s", name, error, files)
            report.skipped.append((name, f"{error}{files}"))
            continue
        report.recordings += 1
        for piece in pieces:
            report.pieces += 1
            report.seconds += piece.duration
            yield piece


def _files(root: pathlib.Path) -> list[pathlib.Path]:
    """All that is no folder, below a folder and below the folders that links in it lead to; hidden ones left out."""
    found, seen = [], set()
    for parent, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [pathlib.Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _find(root: pathlib.Path) -> tuple[dict[str, list[pathlib.Path]], list[str]]:
    """Recording name (path below the folder, without endings) → its sound and video files; and the files of none."""
    found, others = collections.defaultdict(list), []
    for path in _files(root):
        relative = path.relative_to(root)
        if path.name.endswith(_WORDS):
            found[relative.as_posix().removesuffix(_WORDS)] += []  # words without a recording must not go unnoticed
        elif path.suffix.lower() in ENDINGS:
            stem = relative.with_suffix("")
            if stem.suffix in (".user", ".model"):
                stem = stem.with_suffix("")
            found[stem.as_posix()].append(path)
        else:
            others.append(relative.as_posix())
    ignored = [name for name in others if name.removesuffix(_TRANSCRIPT) not in found]
    return dict(sorted(found.items())), ignored


def _side(path: pathlib.Path) -> str:
    """`user` or `model` for NAME.user.EXT and NAME.model.EXT, else "" """
    ending = path.with_suffix("").suffix
    return ending[1:] if ending in (".user", ".model") else ""


def _read(name: str, base: pathlib.Path, paths: list[pathlib.Path], options: Options) -> Conversation:
    """Reads one whole recording."""
    if not paths:
        raise ValueError(f"{base.name}{_WORDS} has no sound or video file beside it")
    by_side = collections.defaultdict(list)
    for path in paths:
        by_side[_side(path)].append(path)
    held = _kinds(paths)
    videos = [path for path in paths if _side(path) != "model" and "video" in held[path]]
    sounds = [path for path in by_side[""] if path not in videos]
    for kind, files in (("video", videos), ("sound", sounds), ("user", by_side["user"]), ("model", by_side["model"])):
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise ValueError(f"{len(files)} {kind} files of one name: {names}; keep one")
    if by_side["user"]:
        user = read_audio(by_side["user"][0], INPUT_RATE, 1)[0]
        model = read_audio(by_side["model"][0], OUTPUT_RATE, 1)[0] if by_side["model"] else None
    elif by_side["model"]:
        raise ValueError(f"{by_side['model'][0].name} has no {base.name}.user file beside it")
    else:
        user, model = _read_channels((sounds or videos)[0], options.user_channel)
    frames, times = _read_frames(videos[0], options) if videos else (None, None)
    lengths = [0.0 if user is None else len(user) / INPUT_RATE, 0.0 if model is None else len(model) / OUTPUT_RATE]
    duration = max(*lengths, 0.0 if times is None else float(times[-1]) + 1.0 / options.frame_rate)
    if duration > _ADVICE:
        logging.warning("%s lasts %.0f s: it is read whole before it is cut", name, duration)
    if duration <= 0:
        raise ValueError("holds no samples and no frames")
    transcript = base.with_name(base.name + _TRANSCRIPT)
    meta = {"source": [path.name for path in paths]}
    if transcript.is_file():
        try:
            meta["transcript"] = transcript.read_text(encoding="utf-8").strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"{transcript.name} is not text in UTF-8 ({error.reason})") from error
    return Conversation(
        id=name,
        duration=duration,
        user_audio=None if user is None else pcm16(user),
        model_audio=None if model is None else pcm16(model),
        frames=frames,
        frame_times=times,
        words=_read_words(base.with_name(base.name + _WORDS), duration),
        meta=meta,
    )


def _kinds(paths: list[pathlib.Path]) -> dict[pathlib.Path, frozenset[str]]:
    """What each file holds. All that cannot be opened are named at once."""
    held, broken = {}, []
    for path in paths:
        try:
            held[path] = kinds(path)
        except MediaError as error:
            broken.append(str(error))
    if broken:
        raise ValueError("; ".join(broken))
    return held


def _read_channels(path: pathlib.Path, user_channel: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """User (n,) at 16 kHz and model (n,) at 24 kHz of a file of one or two channels. A video may have no sound."""
    if "audio" not in kinds(path):
        return None, None
    heard = read_audio(path, INPUT_RATE)
    if len(heard) > 2:
        raise ValueError(f"{path.name} has {len(heard)} channels, expected one or two")
    if len(heard) == 1:
        return heard[0], None
    side = 0 if user_channel == "left" else 1
    return heard[side], read_audio(path, OUTPUT_RATE)[1 - side]


def _read_frames(path: pathlib.Path, options: Options) -> tuple[np.ndarray, np.ndarray]:
    """Frames (n, rows, columns, 3) uint8 and their (n,) times."""
    rows, columns = (PATCH[1] * count for count in options.video_grid)
    times, frames = zip(*read_video(path, rows, columns, options.frame_rate))
    return np.stack(frames), np.asarray(times, np.float64)


def _read_words(path: pathlib.Path, duration: float) -> tuple[Word, ...]:
    """The words of NAME.words.json, by start; none if there is no such file."""
    if not path.is_file():
        return ()
    try:
        words = [
            Word(str(item["speaker"]), str(item["text"]), float(item["start"]), float(item["end"]))
            for item in json.loads(path.read_text(encoding="utf-8"))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path.name} ({error!r}): expected a list of {{speaker: user or model, text, start, end}}"
        ) from error
    for word in words:
        if word.speaker not in (USER, MODEL) or not 0 <= word.start <= word.end or not math.isfinite(word.end):
            raise ValueError(f"{path.name}: {word}: speaker must be {USER} or {MODEL}, and 0 ≤ start ≤ end")
        if word.start >= duration:
            raise ValueError(f"{path.name}: {word} begins after the recording's end at {duration:.2f} s")
    return tuple(sorted((dataclasses.replace(w, end=min(w.end, duration)) for w in words), key=lambda w: w.start))


def cut(recording: Conversation, max_seconds: float) -> list[Conversation]:
    """Cuts a long recording into pieces of at most `max_seconds`, each starting its own time axis.

    Args:
      recording: any length.
      max_seconds: the longest piece.

    Returns:
      The recording itself if it is short enough; else pieces with ids `NAME/000`, … that cover it without a gap. Cuts
      lie on micro-turn boundaries, at a quiet place in the second half of the longest piece; a word belongs to the
      piece it begins in. `meta["offset"]` is where a piece began.
    """
    if recording.duration <= max_seconds + 1e-6:
        return [recording]
    edges = _cut_points(recording, max_seconds)
    pieces = zip(edges, edges[1:])
    return [_piece(recording, start, stop, index) for index, (start, stop) in enumerate(pieces)]


def _cut_points(recording: Conversation, max_seconds: float) -> list[float]:
    """Where to cut, from 0 to the duration: seconds."""
    turns = int(max_seconds / MICRO_TURN_SECONDS + 1e-6)
    energy = np.zeros(recording.micro_turns + 1)
    for audio, rate in ((recording.user_audio, INPUT_RATE), (recording.model_audio, OUTPUT_RATE)):
        if audio is not None:
            # Energy of the 200 ms around each boundary: what a cut there would go through.
            step = int(rate * MICRO_TURN_SECONDS)
            power = np.square(audio.astype(np.float64))
            padded = np.zeros((len(energy) + 1) * step)
            padded[step // 2 : step // 2 + len(power)] = power[: len(padded) - step // 2]
            energy += padded[: len(energy) * step].reshape(-1, step).mean(axis=1)
    points, now = [0], 0
    while (left := recording.duration / MICRO_TURN_SECONDS - now) > max_seconds / MICRO_TURN_SECONDS + 1e-6:
        first, last = now + (turns + 1) // 2, now + turns
        if left < 1.5 * turns:  # two pieces are left: no sliver at the end
            first, last = now + math.ceil(left / 3), now + math.floor(left * 2 / 3)
        window = energy[first : last + 1]
        quiet = window <= max(_QUIET**2, 4.0 * window.min())
        # Of the quiet places the last one: longer pieces keep more context.
        now = first + int(np.flatnonzero(quiet)[-1])
        points.append(now)
    return [point * MICRO_TURN_SECONDS for point in points] + [recording.duration]


def _piece(recording: Conversation, start: float, stop: float, index: int) -> Conversation:
    def sound(audio: np.ndarray | None, rate: int) -> np.ndarray | None:
        return None if audio is None else audio[int(round(start * rate)) : int(round(stop * rate))].copy()

    frames, times = recording.frames, recording.frame_times
    if times is not None:
        inside = (times >= start) & (times < stop)
        frames, times = (frames[inside], times[inside] - start) if inside.any() else (None, None)
    words = tuple(
        dataclasses.replace(word, start=word.start - start, end=min(word.end, stop) - start)
        for word in recording.words
        if start <= word.start < stop
    )
    return Conversation(
        id=f"{recording.id}/{index:03d}",
        duration=round(stop - start, 6),
        user_audio=sound(recording.user_audio, INPUT_RATE),
        model_audio=sound(recording.model_audio, OUTPUT_RATE),
        frames=frames,
        frame_times=times,
        words=words,
        family=recording.family,
        meta={**recording.meta, "offset": round(start, 6)},
    )
