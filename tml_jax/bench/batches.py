"""Batches to time: random numbers in the shapes of training, so that no data need be made."""

import numpy as np

from tml_jax.config import AUDIO_ELEMENTS, DMEL_LEVELS, INPUT_RATE, MEL_BINS, OWN_FRAMES, PATCH, Config
from tml_jax.data.elements import Elements
from tml_jax.data.packing import Batch, capacities, empty_batch, pack, sizes
from tml_jax.signal.mel import OWN_MEL_MAX, OWN_MEL_MIN
from tml_jax.tokens import Control, Stream

_FRAME_EVERY, _SPEAK_OF = 2, 4  # micro-turns: every second one sees a patch, every fourth one is silent


def noise() -> np.ndarray:
    """Ten seconds of it, (n,) float32 at 16 kHz: what users say where no recording is given."""
    return (0.1 * np.random.default_rng(0).standard_normal(INPUT_RATE * 10)).astype(np.float32)


def random_tokens(config: Config, seed: int = 0) -> np.ndarray:
    """(batch_size, elements) int32 text tokens, the row shape of the run."""
    shape = config.data.batch_size, config.data.packing.elements
    return np.random.default_rng(seed).integers(0, config.model.text_vocab_size, shape, np.int32)


def text_batch(tokens: np.ndarray, config: Config) -> Batch:
    """Rows of one text each, in which every token is to be predicted from those before it.

    Args:
      tokens: (B, T) int32.
      config: the run.

    Returns:
      The batch, without sound and pictures.
    """
    rows, time = tokens.shape
    ahead = np.broadcast_to(np.arange(time - 1, dtype=np.int32), (rows, time - 1))
    empty = empty_batch(rows, config.data.packing)
    return empty.replace(
        stream=np.full((rows, time), Stream.TEXT_IN, np.int8),
        token=tokens,
        slot=np.zeros((rows, time), np.int32),
        segment=np.ones((rows, time), np.int32),
        position=np.broadcast_to(np.arange(time, dtype=np.int32), tokens.shape),
        micro_turn=np.zeros((rows, time), np.int32),
        audio_in=empty.audio_in[:, :0],
        video=empty.video[:, :0],
        audio_out=empty.audio_out[:, :0],
        output_from=ahead,
        output_token=tokens[:, 1:],
        audio_out_from=empty.audio_out_from[:, :0],
    )


def full_batch(config: Config, seed: int = 0) -> Batch:
    """Rows that hold every stream: one conversation each, of as many micro-turns as fit."""
    random = np.random.default_rng(seed)
    row = lambda: [_conversation(config, random)]  # noqa: E731
    rows = config.data.batch_size
    return pack([row() for _ in range(rows)], [[number] for number in range(rows)], config.data.packing)


def _conversation(config: Config, random: np.random.Generator) -> Elements:
    text, room = config.model.text_vocab_size, capacities(config.data.packing)
    stream: list[int] = []
    token: list[int] = []
    turns: list[int] = []

    def micro_turn(index: int) -> list[tuple[int, int]]:
        speaks = index % _SPEAK_OF > 0
        return [
            (Stream.TIME, text + Control.TIME),
            *([(Stream.VIDEO, 0)] if index % _FRAME_EVERY == 0 else []),
            *([(Stream.AUDIO_IN, 0)] * AUDIO_ELEMENTS),
            (Stream.TEXT_OUT, int(random.integers(text))),
            (Stream.GATE, text + (Control.SPEAK if speaks else Control.LISTEN)),
            *([(Stream.AUDIO_OUT, 0)] * AUDIO_ELEMENTS if speaks else []),
        ]

    made = _elements(stream, token, turns, random)
    while True:
        index = turns[-1] + 1 if turns else 0
        turn = micro_turn(index)
        stream, token = stream + [s for s, _ in turn], token + [t for _, t in turn]
        turns = turns + [index] * len(turn)
        longer = _elements(stream, token, turns, random)
        if np.any(sizes(longer) > room):
            return made
        made = longer


def _elements(stream: list[int], token: list[int], turns: list[int], random: np.random.Generator) -> Elements:
    streams = np.asarray(stream, np.int8)
    slot = np.zeros(len(stream), np.int32)
    for kind in (Stream.AUDIO_IN, Stream.VIDEO, Stream.AUDIO_OUT):
        slot[streams == kind] = np.arange(np.sum(streams == kind))
    count = lambda kind: int(np.sum(streams == kind))  # noqa: E731
    return Elements(
        stream=streams,
        token=np.asarray(token, np.int32),
        slot=slot,
        micro_turn=np.asarray(turns, np.int32),
        audio_in=random.integers(0, DMEL_LEVELS, (count(Stream.AUDIO_IN), MEL_BINS), np.uint8),
        video=random.integers(0, 256, (count(Stream.VIDEO), *PATCH), np.uint8),
        audio_out=random.uniform(OWN_MEL_MIN, OWN_MEL_MAX, (count(Stream.AUDIO_OUT), OWN_FRAMES, MEL_BINS)).astype(
            np.float32
        ),
    )
