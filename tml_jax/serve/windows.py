"""The input side of a session: what arrives in 200 ms windows, as input elements of a micro-turn."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, MICRO_TURN_SECONDS, OWN_FRAMES, PATCH, Config
from tml_jax.data.elements import Elements, input_elements, patches_of_pair
from tml_jax.data.layout import INPUT_SAMPLES, control_token, results_room, text_in_tokens
from tml_jax.data.record import BACKGROUND, Text
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.model.inputs import ElementArrays
from tml_jax.model.stream import InputBlock
from tml_jax.signal.mel import HISTORY, dmel
from tml_jax.tokens import Control


class InputError(ValueError):
    """What arrived is nothing that the model can take in: says what was given, and what is expected."""


@dataclasses.dataclass(frozen=True)
class Arrived:
    """What arrived in one 200 ms window.

    Attributes:
      audio: (3200,) float32 at 16 kHz, or None where the session has no microphone.
      frames: frames of the window, (seconds since its start, (rows, columns, 3) uint8), in order.
      texts: typed text and background results of the window.
      lost: sound of this window did not arrive. Where some of it did, `audio` holds that, with silence in its gaps.
      results: tokens of background results, as many as `background.meter` finds room for after the texts.
    """

    audio: np.ndarray | None
    frames: Sequence[tuple[float, np.ndarray]] = ()
    texts: Sequence[Text] = ()
    lost: bool = False
    results: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Ear:
    """What the input side of a session carries: typed text and results still waiting, the last frame and samples."""

    waiting: tuple[int, ...] = ()
    results: tuple[int, ...] = ()
    frame: np.ndarray | None = None
    samples: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(HISTORY, np.float32))


def check_arrived(arrived: Arrived, config: Config) -> None:
    """Refuses what the model cannot take in, before it reaches the batch.

    Args:
      arrived: what came in.
      config: grid of the frames.

    Raises:
      InputError: audio or frames have the wrong shape or type, or audio holds numbers that are not finite.
    """
    if arrived.audio is not None:
        if arrived.audio.shape != (INPUT_SAMPLES,):
            raise InputError(f"audio of shape {arrived.audio.shape}: a micro-turn takes ({INPUT_SAMPLES},)")
        if not np.isfinite(arrived.audio).all():
            raise InputError("audio holds NaN or infinity: expected finite samples, about -1 to 1; check the source")
    for _, frame in arrived.frames:
        check_frame(frame, config)


def check_frame(frame: np.ndarray, config: Config) -> None:
    """Refuses a frame that is not (rows, columns, 3) uint8 of the model's grid, with an InputError."""
    expected = (config.data.video_grid[0] * PATCH[1], config.data.video_grid[1] * PATCH[2], PATCH[3])
    if frame.shape != expected:
        raise InputError(f"frame of shape {frame.shape}: the model sees {expected}, scale it")
    if frame.dtype != np.uint8:
        raise InputError(f"frame of {frame.dtype}: expected uint8, 0 to 255; convert it")


def text_bytes(text: str) -> int:
    """Bytes of a text in UTF-8.

    Raises:
      InputError: it is no Unicode.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"text that is no Unicode ({error.reason}): expected whole characters") from error


def take_in(ear: Ear, arrived: Arrived, tokenizer: Tokenizer, config: Config) -> tuple[Ear, Elements]:
    """The input elements of one micro-turn, the same that training made of the same conversation.

    Args:
      ear: state of the input side.
      arrived: what came in.
      tokenizer: of the text.
      config: grid of the frames and most text of a micro-turn.

    Returns:
      The new state, and the elements.

    Raises:
      InputError: see `check_arrived`.
    """
    check_arrived(arrived, config)
    waiting, results = list(ear.waiting), list(ear.results)
    for text in arrived.texts:
        queue = results if text.speaker == BACKGROUND else waiting
        queue += text_in_tokens(text.speaker, text.text, tokenizer, config.model)
    waiting += arrived.results
    if arrived.lost:  # before all else, as what was typed stays true in the next micro-turn
        waiting.insert(0, control_token(Control.LOST_AUDIO, config.model))
    now, later = waiting[: config.serve.max_text_in], waiting[config.serve.max_text_in :]
    room = results_room(config, config.serve.max_text_in - len(now))
    now, results = now + results[:room], results[room:]

    patches, last = None, ear.frame
    if arrived.frames:
        early = [frame for offset, frame in arrived.frames if round(offset, 6) < MICRO_TURN_SECONDS / 2]
        first = early[-1] if early else (ear.frame if ear.frame is not None else arrived.frames[0][1])
        last = arrived.frames[-1][1]
        patches = patches_of_pair(first, last)

    levels, samples = None, np.zeros(HISTORY, np.float32) if arrived.lost else ear.samples
    if arrived.audio is not None:
        levels = dmel(arrived.audio.astype(np.float32), ear.samples)
        samples = arrived.audio[-HISTORY:].astype(np.float32)
    return Ear(tuple(later), tuple(results), last, samples), input_elements(now, patches, levels, config.model)


def make_block(inputs: Sequence[Elements | None], config: Config, length: int | None = None) -> InputBlock:
    """Inputs of B sessions as one padded block.

    Args:
      inputs: of each session; None for one that is idle.
      config: grid of the frames and most text of a micro-turn.
      length: one of `block_sizes`; None takes the smallest that holds all inputs.

    Returns:
      The block, numpy arrays.
    """
    grid = config.data.video_grid[0] * config.data.video_grid[1]
    sizes = block_sizes(config)
    given = [(row, elements) for row, elements in enumerate(inputs) if elements is not None]
    if length is None:
        seen = any(len(elements.video) for _, elements in given)  # the smallest block has no room for a frame
        length = next(size for size in sizes[seen:] if size >= max((len(e.stream) for _, e in given), default=0))
    batch = len(inputs)
    stream = np.zeros((batch, length), np.int8)
    token, slot = np.zeros((2, batch, length), np.int32)
    audio = np.zeros((batch, AUDIO_ELEMENTS, MEL_BINS), np.uint8)
    video = np.zeros((batch, 0 if length == sizes[0] else grid, *PATCH), np.uint8)
    valid = np.zeros((batch,), np.int32)
    for row, elements in given:
        valid[row] = count = len(elements.stream)
        stream[row, :count], token[row, :count], slot[row, :count] = elements.stream, elements.token, elements.slot
        audio[row, : len(elements.audio_in)] = elements.audio_in
        video[row, : len(elements.video)] = elements.video
    silent = np.zeros((batch, 0, OWN_FRAMES, MEL_BINS), np.float32)
    return InputBlock(ElementArrays(stream, token, slot, audio, video, silent), valid)


def block_sizes(config: Config) -> tuple[int, ...]:
    """The few lengths of input blocks: time and audio; those and a frame; those and text."""
    grid = config.data.video_grid[0] * config.data.video_grid[1]
    bare = 1 + AUDIO_ELEMENTS
    return bare, bare + grid, bare + grid + config.serve.max_text_in


def arrivals(
    user_audio: np.ndarray | None,
    frames: Sequence[tuple[float, np.ndarray]],
    texts: Sequence[Text],
    micro_turns: int,
    arrived: np.ndarray | None = None,
) -> Iterator[Arrived]:
    """Cuts a recording into what arrives in each window.

    Args:
      user_audio: (n,) float32 at 16 kHz, silence past its end; None without a microphone.
      frames: (seconds, (rows, columns, 3) uint8), by time.
      texts: typed text and background results.
      micro_turns: windows.
      arrived: (micro_turns, 3200) bool, see `layout.arrived_samples`; None where all of the sound arrives.

    Yields:
      What a session would get.
    """
    window_of = lambda seconds: int(round(seconds / MICRO_TURN_SECONDS, 6))  # noqa: E731
    for index in range(micro_turns):
        audio = None
        if user_audio is not None:
            audio = user_audio[index * INPUT_SAMPLES : (index + 1) * INPUT_SAMPLES]
            audio = np.pad(audio, (0, INPUT_SAMPLES - len(audio)))
        lost = audio is not None and arrived is not None and not arrived[index].all()
        if lost:
            audio = audio * arrived[index] if arrived[index].any() else None
        start = index * MICRO_TURN_SECONDS
        yield Arrived(
            audio,
            [(seconds - start, frame) for seconds, frame in frames if window_of(seconds) == index],
            [text for text in texts if window_of(text.time) == index],
            lost,
        )
