"""Record → elements: a conversation as the one interleaved sequence that the model reads and continues.

[TIME] [text in ×n] [video ×P] [audio in ×4]  →  [text out ×m] [LISTEN | SPEAK] [audio out ×4 if SPEAK]
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tml_jax.config import AUDIO_ELEMENTS, MEL_BINS, OWN_FRAMES, PATCH, Config, ModelConfig
from tml_jax.data.layout import (
    INPUT_SAMPLES,
    OUTPUT_SAMPLES,
    Layout,
    arrived_samples,
    control_token,
    fit_samples,
    layout,
    layout_sizes,
)
from tml_jax.data.layout import gates as gates
from tml_jax.data.layout import spoken_words as spoken_words
from tml_jax.data.record import Conversation
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.signal.mel import OWN, dmel, own_mel
from tml_jax.signal.runs import true_runs
from tml_jax.tokens import OUTPUT_TOKEN_STREAMS, Control, Stream

LOOK_AHEAD = OWN.window - OWN.hop  # samples that the last own-mel frame of a window sees of the next one


@dataclasses.dataclass(frozen=True)
class Elements:
    """One conversation, or the input of one micro-turn, as n elements.

    Attributes:
      stream: (n,) int8, `tokens.Stream`.
      token: (n,) int32, 0 where the element is not a token.
      slot: (n,) int32, row in the side array of the element's stream, 0 where it has none.
      micro_turn: (n,) int32.
      audio_in: (a, 80) uint8 dMel levels of 50 ms each.
      video: (v, 2, 40, 40, 3) uint8 patches.
      audio_out: (o, 5, 80) float32 log10 mel of 50 ms each.
    """

    stream: np.ndarray
    token: np.ndarray
    slot: np.ndarray
    micro_turn: np.ndarray
    audio_in: np.ndarray
    video: np.ndarray
    audio_out: np.ndarray


def element_sizes(conversation: Conversation, tokenizer: Tokenizer, config: Config) -> np.ndarray:
    """What a conversation takes of a packed row, without computing any spectrum.

    Args:
      conversation: the record.
      tokenizer: tokenizer of the text.
      config: the run's configuration.

    Returns:
      (5,) int32: elements, audio-in elements, video patches, audio-out elements, output tokens. Equal to
      `packing.sizes(conversation_elements(…))`.

    Raises:
      ValueError: see `layout`.
    """
    return layout_sizes(layout(conversation, tokenizer, config))


def patches_of_pair(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cuts two frames into patches.

    Args:
      first: (rows, columns, 3) uint8, rows and columns multiples of 40.
      second: the later frame, same shape.

    Returns:
      (patches, 2, 40, 40, 3) uint8, row-major.

    Raises:
      ValueError: the shapes differ or do not divide into patches.
    """
    _, height, width, colours = PATCH
    shape = first.shape
    if shape != second.shape or len(shape) != 3 or shape[0] % height or shape[1] % width or shape[2] != colours:
        raise ValueError(f"frames of shape {shape} and {second.shape}: expected equal, multiples of {height}×{width}")
    down, across = shape[0] // height, shape[1] // width
    pair = np.stack([first, second]).reshape(2, down, height, across, width, colours)
    return pair.transpose(1, 3, 0, 2, 4, 5).reshape(-1, *PATCH)


def _input_plan(text: Sequence[int], patches: int, heard: int, config: ModelConfig) -> tuple[list[int], list[int]]:
    """Streams and tokens of one micro-turn's input."""
    streams = [Stream.TIME] + [Stream.TEXT_IN] * len(text) + [Stream.VIDEO] * patches + [Stream.AUDIO_IN] * heard
    return streams, [control_token(Control.TIME, config), *text] + [0] * (patches + heard)


def _output_plan(text: Sequence[int], speak: bool, config: ModelConfig) -> tuple[list[int], list[int]]:
    """Streams and tokens of one micro-turn's output."""
    sound = AUDIO_ELEMENTS if speak else 0
    gate = control_token(Control.SPEAK if speak else Control.LISTEN, config)
    streams = [Stream.TEXT_OUT] * len(text) + [Stream.GATE] + [Stream.AUDIO_OUT] * sound
    return streams, [*text, gate] + [0] * sound


def _assemble(
    streams: list[int], tokens: list[int], turns: np.ndarray, audio_in: np.ndarray, video: np.ndarray, own: np.ndarray
) -> Elements:
    stream = np.array(streams, np.int8)
    slot = np.zeros(stream.size, np.int32)
    for kind in (Stream.AUDIO_IN, Stream.VIDEO, Stream.AUDIO_OUT):
        chosen = np.flatnonzero(stream == kind)
        slot[chosen] = np.arange(chosen.size)
    return Elements(stream, np.array(tokens, np.int32), slot, turns.astype(np.int32), audio_in, video, own)


def input_elements(
    text_tokens: Sequence[int], patches: np.ndarray | None, levels: np.ndarray | None, config: ModelConfig
) -> Elements:
    """The input of one micro-turn: [TIME] [text in] [video] [audio in].

    Args:
      text_tokens: tokens, sources included (see `text_in_tokens`).
      patches: (P, 2, 40, 40, 3) uint8, or None where there is no new frame.
      levels: (4, 80) uint8 dMel levels, or None where there is no sound.
      config: the model's configuration.

    Returns:
      The elements, micro-turn 0.

    Raises:
      ValueError: a shape is wrong.
    """
    patches = np.zeros((0, *PATCH), np.uint8) if patches is None else patches
    levels = np.zeros((0, MEL_BINS), np.uint8) if levels is None else levels
    if patches.shape[1:] != PATCH or levels.shape not in ((0, MEL_BINS), (AUDIO_ELEMENTS, MEL_BINS)):
        raise ValueError(
            f"patches {patches.shape} and levels {levels.shape}: expected (P, {', '.join(map(str, PATCH))}) and "
            f"({AUDIO_ELEMENTS}, {MEL_BINS})"
        )
    streams, tokens = _input_plan(text_tokens, len(patches), len(levels), config)
    silent = np.zeros((0, OWN_FRAMES, MEL_BINS), np.float32)
    return _assemble(streams, tokens, np.zeros(len(streams)), levels, patches, silent)


def conversation_elements(conversation: Conversation, tokenizer: Tokenizer, config: Config) -> Elements:
    """A whole conversation as a sequence of elements.

    Text that is still waiting for room when the conversation ends is cut off (`Layout.cut` counts it).

    Args:
      conversation: the record.
      tokenizer: tokenizer of the text.
      config: the run's configuration.

    Returns:
      The elements of all its micro-turns.

    Raises:
      ValueError: see `layout`.
    """
    plan = layout(conversation, tokenizer, config)
    streams, tokens, lengths = [], [], []
    micro_turns = zip(plan.text_in, plan.frames[:, 1], plan.heard.tolist(), plan.text_out, plan.speak)
    for text_in, pair, heard, text_out, speak in micro_turns:
        before = len(streams)
        for part in (
            _input_plan(text_in, plan.patches if pair >= 0 else 0, heard, config.model),
            _output_plan(text_out, bool(speak), config.model),
        ):
            streams += part[0]
            tokens += part[1]
        lengths.append(len(streams) - before)
    turns = np.repeat(np.arange(len(lengths)), lengths)
    levels, seen, spoken = _heard(conversation, plan), _seen(conversation, plan), _spoken(conversation, plan)
    return _assemble(streams, tokens, turns, levels, seen, spoken)


def _heard(conversation: Conversation, plan: Layout) -> np.ndarray:
    """(a, 80) uint8 levels of the user's sound as it arrived: silence in gaps and after its end."""
    if conversation.user_audio is None:
        return np.zeros((0, MEL_BINS), np.uint8)
    count = conversation.micro_turns
    sound = fit_samples(conversation.user_audio, count * INPUT_SAMPLES)
    if conversation.gaps:
        sound = sound * arrived_samples(conversation, count).ravel()
    return dmel(sound)[np.repeat(plan.heard > 0, AUDIO_ELEMENTS)]


def _seen(conversation: Conversation, plan: Layout) -> np.ndarray:
    """(v, 2, 40, 40, 3) uint8 patches of all micro-turns with a new frame."""
    shown = [patches_of_pair(*conversation.frames[pair]) for pair in plan.frames if pair[1] >= 0]
    return np.concatenate(shown) if shown else np.zeros((0, *PATCH), np.uint8)


def _spoken(conversation: Conversation, plan: Layout) -> np.ndarray:
    """(o, 5, 80) float32 log10 mel of the windows in which the model speaks."""
    if not plan.speak.any():
        return np.zeros((0, OWN_FRAMES, MEL_BINS), np.float32)
    sound = fit_samples(conversation.model_audio, (len(plan.speak) + 1) * OUTPUT_SAMPLES + LOOK_AHEAD)
    mels = []
    for first, last in true_runs(plan.speak):  # each run of speaking windows, with the sound its last frames look into
        run = sound[(first + 1) * OUTPUT_SAMPLES : (last + 1) * OUTPUT_SAMPLES + LOOK_AHEAD]
        mels.append(own_mel(run)[: -(LOOK_AHEAD // OWN.hop)])
    return np.concatenate(mels).reshape(-1, OWN_FRAMES, MEL_BINS)


def output_token_positions(elements: Elements) -> np.ndarray:
    """Positions of text-out and gate elements, ascending."""
    return np.flatnonzero(np.isin(elements.stream, OUTPUT_TOKEN_STREAMS))
