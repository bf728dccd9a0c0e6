import collections
import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_config, make_conversation, tokenizer

from tml_jax.config import PackingConfig
from tml_jax.data.elements import conversation_elements
from tml_jax.data.packing import Batch, capacities, fits, pack, plan_epoch, sizes
from tml_jax.tokens import OUTPUT_TOKEN_STREAMS, TOKEN_STREAMS, Stream

CONFIG = make_config()
SMALL = PackingConfig(elements=100, audio_in=60, video=5, audio_out=40, outputs=30, segments=4)

lengths_and_order = st.integers(1, 120).flatmap(
    lambda count: st.tuples(
        st.lists(
            st.tuples(*(st.integers(1 if i == 0 else 0, int(most)) for i, most in enumerate(capacities(SMALL)))),
            min_size=count,
            max_size=count,
        ),
        st.lists(st.integers(0, count - 1), max_size=200),
    )
)


@settings(max_examples=60, deadline=None)
@given(lengths_and_order)
def test_a_plan_holds_every_record_as_often_as_asked_and_no_row_is_too_full(drawn):
    lengths, order = np.array(drawn[0], np.int32), np.array(drawn[1], np.int64)
    rows = plan_epoch(lengths, order, SMALL)
    assert collections.Counter(n for row in rows for n in row) == collections.Counter(order.tolist())
    for row in rows:
        assert 0 < len(row) <= SMALL.segments
        assert np.all(lengths[row].sum(axis=0) <= capacities(SMALL))
    assert rows == plan_epoch(lengths.copy(), order.copy(), SMALL)


def test_rows_of_speech_are_well_filled():
    rng = np.random.default_rng(0)
    elements = rng.integers(100, 700, 2000)
    lengths = np.stack([elements, elements // 2, elements * 0, elements // 4, elements // 5], axis=1)
    packing = CONFIG.data.packing
    rows = plan_epoch(lengths, rng.permutation(2000), packing)
    assert elements.sum() / (len(rows) * packing.elements) > 0.93


def test_records_too_large_for_a_row_are_refused_by_the_plan_and_found_by_fits():
    lengths = np.array([[50, 0, 0, 0, 9], [101, 0, 0, 0, 9], [50, 0, 6, 0, 9]])
    assert fits(lengths, SMALL).tolist() == [True, False, False]
    with pytest.raises(ValueError, match=r"conversations \[2, 1\] \(2 in all\) do not fit"):
        plan_epoch(lengths, np.array([0, 2, 1, 0]), SMALL)


def packed(seeds_of_rows, packing=CONFIG.data.packing):
    rows = [[conversation_elements(make_conversation(s), tokenizer(), CONFIG) for s in row] for row in seeds_of_rows]
    return rows, pack(rows, seeds_of_rows, packing)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5000), max_size=3), min_size=1, max_size=3))
def test_every_conversation_can_be_read_back_from_its_row(seeds_of_rows):
    rows, batch = packed(seeds_of_rows)
    sides = {
        Stream.AUDIO_IN: (batch.audio_in, "audio_in"),
        Stream.VIDEO: (batch.video, "video"),
        Stream.AUDIO_OUT: (batch.audio_out, "audio_out"),
    }
    for b, conversations in enumerate(rows):
        for number, elements in enumerate(conversations):
            here = batch.segment[b] == number + 1
            assert here.sum() == elements.stream.size
            for name in ("stream", "token", "micro_turn"):
                assert np.array_equal(getattr(batch, name)[b, here], getattr(elements, name))
            assert np.array_equal(batch.position[b, here], np.arange(elements.stream.size))
            for stream, (packed_side, name) in sides.items():
                slots = batch.slot[b, here & (batch.stream[b] == stream)]
                assert np.array_equal(packed_side[b][slots], getattr(elements, name))
        assert batch.record[b].tolist() == (seeds_of_rows[b] + [-1] * 8)[:8]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 5000), max_size=3), min_size=1, max_size=3))
def test_targets_point_at_the_position_before_each_output(seeds_of_rows):
    _, batch = packed(seeds_of_rows)
    for b in range(len(seeds_of_rows)):
        targets = np.flatnonzero(np.isin(batch.stream[b], OUTPUT_TOKEN_STREAMS))
        used = batch.output_from[b] >= 0
        assert np.array_equal(batch.output_from[b][used] + 1, targets)
        assert np.array_equal(batch.output_token[b][used], batch.token[b][targets])
        assert not batch.output_token[b][~used].any()
        assert np.all(batch.segment[b][targets - 1] == batch.segment[b][targets])  # never across conversations
        spoken = np.flatnonzero(batch.stream[b] == Stream.AUDIO_OUT)
        used = batch.audio_out_from[b] >= 0
        assert np.array_equal(batch.audio_out_from[b][used] + 1, spoken)
        assert np.array_equal(batch.slot[b][spoken], np.flatnonzero(used))


def test_padding_is_marked_in_every_array():
    _, batch = packed([[1, 2], []])
    end = int((batch.segment[0] > 0).sum())
    assert 0 < end < CONFIG.data.packing.elements
    for name in ("stream", "token", "slot", "segment", "position", "micro_turn"):
        assert not getattr(batch, name)[0, end:].any() and not getattr(batch, name)[1].any()
    assert np.all(batch.stream[0, :end] != Stream.PADDING)
    for name in ("output_from", "audio_out_from", "record"):
        assert np.all(getattr(batch, name)[1] == -1)
    assert not batch.token[0][~np.isin(batch.stream[0], TOKEN_STREAMS)].any()


def test_a_batch_has_the_shapes_and_dtypes_of_the_configuration_and_is_a_pytree():
    _, batch = packed([[3], [4], []])
    size = CONFIG.data.packing
    expected = dict(
        stream=((3, size.elements), "int8"),
        token=((3, size.elements), "int32"),
        slot=((3, size.elements), "int32"),
        segment=((3, size.elements), "int32"),
        position=((3, size.elements), "int32"),
        micro_turn=((3, size.elements), "int32"),
        audio_in=((3, size.audio_in, 80), "uint8"),
        video=((3, size.video, 2, 40, 40, 3), "uint8"),
        audio_out=((3, size.audio_out, 5, 80), "float32"),
        output_from=((3, size.outputs), "int32"),
        output_token=((3, size.outputs), "int32"),
        audio_out_from=((3, size.audio_out), "int32"),
        record=((3, size.segments), "int32"),
    )
    assert {
        f.name: (getattr(batch, f.name).shape, getattr(batch, f.name).dtype.name) for f in dataclasses.fields(Batch)
    } == expected
    assert len(jax.tree.leaves(batch)) == len(expected)


def test_a_row_that_is_too_full_is_refused_with_its_needs():
    elements = conversation_elements(make_conversation(1), tokenizer(), CONFIG)
    tight = dataclasses.replace(CONFIG.data.packing, elements=int(sizes(elements)[0]))
    assert pack([[elements]], [[0]], tight).stream.all()
    with pytest.raises(ValueError, match=f"'elements': {2 * tight.elements}"):
        pack([[elements, elements]], [[0, 1]], tight)
    one = dataclasses.replace(CONFIG.data.packing, segments=1)
    with pytest.raises(ValueError, match="a row of 2 conversations"):
        pack([[elements, elements]], [[0, 1]], one)
