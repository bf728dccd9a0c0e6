"""Packing: several conversations in one row of fixed shape, so that one compiled step serves every batch."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.struct
import numpy as np

from tml_jax.config import MEL_BINS, OWN_FRAMES, PATCH, PackingConfig
from tml_jax.data.elements import Elements, output_token_positions
from tml_jax.tokens import Stream

OPEN_ROWS = 32  # rows that may still take a conversation while an epoch is planned
SIZE_NAMES = ("elements", "audio_in", "video", "audio_out", "outputs")  # as in PackingConfig


@flax.struct.dataclass
class Batch:
    """B packed rows of S elements; sizes Na, Nv, No, Nt and G are those of `PackingConfig`.

    Attributes:
      stream: (B, S) int8, `tokens.Stream`; PADDING after the last conversation.
      token: (B, S) int32, 0 where the element is not a token.
      slot: (B, S) int32, row in the side array of the element's stream, 0 where it has none.
      segment: (B, S) int32, 1 … for the conversations of a row, 0 for padding.
      position: (B, S) int32, within the segment.
      micro_turn: (B, S) int32, within the segment.
      audio_in: (B, Na, 80) uint8 dMel levels.
      video: (B, Nv, 2, 40, 40, 3) uint8 patches.
      audio_out: (B, No, 5, 80) float32 log10 mel.
      output_from: (B, Nt) int32, positions whose next element is text out or a gate, rising; −1 where empty.
      output_token: (B, Nt) int32, that token; 0 where empty.
      audio_out_from: (B, No) int32, position whose next element is audio-out slot j; −1 where empty.
      record: (B, G) int32, record number of each segment; −1 where empty.
    """

    stream: Any
    token: Any
    slot: Any
    segment: Any
    position: Any
    micro_turn: Any
    audio_in: Any
    video: Any
    audio_out: Any
    output_from: Any
    output_token: Any
    audio_out_from: Any
    record: Any


def sizes(elements: Elements) -> np.ndarray:
    """What `elements` take of a row.

    Returns:
      (5,) int32: elements, audio-in elements, video patches, audio-out elements, output tokens.
    """
    outputs = output_token_positions(elements).size
    sides = len(elements.audio_in), len(elements.video), len(elements.audio_out)
    return np.array([elements.stream.size, *sides, outputs], np.int32)


def capacities(packing: PackingConfig) -> np.ndarray:
    """What a row holds, in the order of `sizes`. Returns (5,) int64."""
    return np.array([getattr(packing, name) for name in SIZE_NAMES], np.int64)


def fits(lengths: np.ndarray, packing: PackingConfig) -> np.ndarray:
    """Which conversations fit into an empty row: `lengths` (N, 5) to (N,) bool."""
    return np.all(lengths <= capacities(packing), axis=1)


def plan_epoch(lengths: np.ndarray, order: np.ndarray, packing: PackingConfig) -> list[list[int]]:
    """Assigns conversations to rows: first fit, in the given order, over a bounded number of open rows.

    Args:
      lengths: (N, 5) int, `sizes` of every conversation.
      order: conversations (rows of `lengths`) in the order in which they are placed; one may come twice.
      packing: what a row holds.

    Returns:
      Rows of conversation numbers; together exactly `order`. A function of the arguments alone.

    Raises:
      ValueError: a conversation does not fit into an empty row (find them with `fits`).
    """
    order = np.asarray(order, np.int64)
    too_large = order[~fits(lengths[order], packing)]
    if too_large.size:
        raise ValueError(
            f"conversations {too_large[:10].tolist()} ({too_large.size} in all) do not fit into a row of {packing}: "
            "leave them out, or raise config.data.packing"
        )
    capacity = np.append(capacities(packing), packing.segments)
    needs = np.concatenate([lengths, np.ones((len(lengths), 1), np.int64)], axis=1)
    room = np.zeros((0, capacity.size), np.int64)  # what is left in each open row
    open_rows: list[list[int]] = []
    closed: list[list[int]] = []
    for number in order.tolist():
        need = needs[number]
        fitting = np.flatnonzero((room >= need).all(axis=1))
        if fitting.size:
            row = fitting[0]
        else:
            if len(open_rows) == OPEN_ROWS:
                fullest = int(np.argmin(room[:, 0]))
                closed.append(open_rows.pop(fullest))
                room = np.delete(room, fullest, axis=0)
            room = np.concatenate([room, capacity[None]])
            open_rows.append([])
            row = len(open_rows) - 1
        room[row] -= need
        open_rows[row].append(number)
    return closed + open_rows


def empty_batch(rows: int, packing: PackingConfig) -> Batch:
    """A batch of `rows` rows of padding, to be filled."""
    zeros = lambda size, dtype=np.int32: np.zeros((rows, size), dtype)  # noqa: E731
    empty = lambda size: np.full((rows, size), -1, np.int32)  # noqa: E731
    size = packing.elements
    return Batch(
        stream=zeros(size, np.int8),
        token=zeros(size),
        slot=zeros(size),
        segment=zeros(size),
        position=zeros(size),
        micro_turn=zeros(size),
        audio_in=np.zeros((rows, packing.audio_in, MEL_BINS), np.uint8),
        video=np.zeros((rows, packing.video, *PATCH), np.uint8),
        audio_out=np.zeros((rows, packing.audio_out, OWN_FRAMES, MEL_BINS), np.float32),
        output_from=empty(packing.outputs),
        output_token=zeros(packing.outputs),
        audio_out_from=empty(packing.audio_out),
        record=empty(packing.segments),
    )


def pack(rows: Sequence[Sequence[Elements]], records: Sequence[Sequence[int]], packing: PackingConfig) -> Batch:
    """Packs conversations into rows.

    Args:
      rows: the conversations of each row, in order.
      records: their record numbers.
      packing: shape of a row.

    Returns:
      The batch, one row for each of `rows`.

    Raises:
      ValueError: a row holds more than `packing` allows.
    """
    batch = empty_batch(len(rows), packing)
    for index, (conversations, numbers) in enumerate(zip(rows, records, strict=True)):
        row = Batch(**{field.name: getattr(batch, field.name)[index] for field in dataclasses.fields(Batch)})
        _fill_row(row, conversations, numbers, packing)
    return batch


def _fill_row(row: Batch, conversations: Sequence[Elements], numbers: Sequence[int], packing: PackingConfig) -> None:
    """Writes conversations one after another into `row`, views of one row of a batch."""
    used = np.zeros(len(SIZE_NAMES), np.int64)
    ends = used + sum((sizes(conversation) for conversation in conversations), used)
    if len(conversations) > packing.segments or np.any(ends > capacities(packing)):
        raise ValueError(
            f"a row of {len(conversations)} conversations needs {dict(zip(SIZE_NAMES, ends.tolist()))}: "
            f"expected at most {packing}"
        )
    for segment, (elements, number) in enumerate(zip(conversations, numbers, strict=True)):
        start, audio_in, video, audio_out, outputs = used.tolist()
        used += sizes(elements)
        here = slice(start, used[0])
        row.stream[here] = elements.stream
        row.token[here] = elements.token
        row.segment[here] = segment + 1
        row.position[here] = np.arange(elements.stream.size)
        row.micro_turn[here] = elements.micro_turn
        slot = elements.slot.copy()
        for stream, before in ((Stream.AUDIO_IN, audio_in), (Stream.VIDEO, video), (Stream.AUDIO_OUT, audio_out)):
            slot[elements.stream == stream] += before
        row.slot[here] = slot
        row.audio_in[audio_in : used[1]] = elements.audio_in
        row.video[video : used[2]] = elements.video
        row.audio_out[audio_out : used[3]] = elements.audio_out
        targets = output_token_positions(elements)
        row.output_from[outputs : used[4]] = start + targets - 1
        row.output_token[outputs : used[4]] = elements.token[targets]
        spoken = np.flatnonzero(elements.stream == Stream.AUDIO_OUT)
        row.audio_out_from[audio_out + elements.slot[spoken]] = start + spoken - 1
        row.record[segment] = number
