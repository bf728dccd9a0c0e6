import collections
import dataclasses
import json

import grain
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import make_config, make_conversation, tokenizer

from tml_jax.data import workers
from tml_jax.data.lengths import measure_lengths, source_lengths
from tml_jax.data.mixture import RowPlan
from tml_jax.data.packing import Batch
from tml_jax.data.pipeline import TrainingData, held_out_batches, make_train_iterator
from tml_jax.data.record import Conversation
from tml_jax.data.shards import DataError, open_shards, write_shards

SOURCES = {"a": {"path": "a"}, "b": {"path": "b", "weight": 0.5}}
RECORDS = {
    "a": [make_conversation(seed, duration=1.5) for seed in range(17)],
    "b": [make_conversation(100 + seed, duration=1.0) for seed in range(7)],
}
SMALL_ROW = dict(elements=160, audio_in=96, video=8, audio_out=64, outputs=64, segments=3)


def silent(line):
    """Takes no reports."""


def open_data(workers=0, report=silent, records=RECORDS, **packing):
    sources = {name: SOURCES[name] for name in records}
    config = make_config(workers, sources, **{**SMALL_ROW, **packing})
    return TrainingData(config, tokenizer(), records, report)


def assert_equal(left: Batch, right: Batch):
    for field in dataclasses.fields(Batch):
        assert np.array_equal(getattr(left, field.name), getattr(right, field.name)), field.name


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def records_of(batch):
    return batch.record[batch.record >= 0].tolist()


plans = st.tuples(
    st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 10)), min_size=1, max_size=4), st.integers(0, 1000)
)


def make_plan(drawn):
    sources, seed = drawn
    first = np.cumsum([0] + [count for count, _ in sources])
    numbers = [np.arange(count) + start for (count, _), start in zip(sources, first)]
    lengths = np.random.default_rng(seed).integers(1, 60, (first[-1], 5))
    packing = make_config(**SMALL_ROW).data.packing
    lengths = np.minimum(lengths, [packing.elements, packing.audio_in, packing.video, packing.audio_out, 64])
    return RowPlan(lengths, numbers, [weight for _, weight in sources], packing, seed), numbers


@settings(max_examples=40, deadline=None)
@given(plans)
def test_shares_of_drawn_records_follow_the_weights(drawn):
    plan, numbers = make_plan(drawn)
    total = sum(map(len, numbers))
    weights = np.array([weight for _, weight in drawn[0]])
    count = collections.Counter()
    for epoch in range(6):
        count.update(plan.epoch_order(epoch).tolist())
        for share, mine in zip(weights / weights.sum(), numbers):
            given_out = sum(count[n] for n in mine.tolist())
            assert abs(given_out - (epoch + 1) * total * share) <= 0.5 + 1e-6


@settings(max_examples=40, deadline=None)
@given(plans)
def test_no_record_of_a_source_comes_again_before_all_others_came(drawn):
    plan, numbers = make_plan(drawn)
    count = collections.Counter()
    for epoch in range(5):
        count.update(plan.epoch_order(epoch).tolist())
        for mine in numbers:
            times = [count[n] for n in mine.tolist()]
            assert max(times) - min(times) <= 1


@settings(max_examples=40, deadline=None)
@given(plans, st.integers(0, 30), st.integers(0, 12))
def test_rows_of_the_run_are_the_rows_of_its_epochs_without_a_gap(drawn, start, count):
    plan, _ = make_plan(drawn)
    rows, epoch = [], 0
    while len(rows) < start + count:
        rows += plan.epoch_rows(epoch)
        packed = collections.Counter(n for row in plan.epoch_rows(epoch) for n in row)
        assert packed == collections.Counter(plan.epoch_order(epoch).tolist())
        epoch += 1
    assert make_plan(drawn)[0].rows(start, start + count) == rows[start : start + count]


def test_one_source_gives_every_record_once_an_epoch_and_another_order_in_the_next():
    data = open_data(records={"a": RECORDS["a"]})
    first, second = data.plan.epoch_order(0).tolist(), data.plan.epoch_order(1).tolist()
    assert sorted(first) == sorted(second) == list(range(17)) and first != second


def test_batches_of_an_epoch_lose_and_repeat_no_record():
    data = open_data(records={"a": RECORDS["a"]}, segments=2)
    rows = [row for epoch in range(2) for row in data.plan.epoch_rows(epoch)]
    steps = len(rows) // 4
    seen = collections.Counter(n for step in range(steps) for n in records_of(data.batch_at(step)))
    assert seen == collections.Counter(n for row in rows[: 4 * steps] for n in row)
    assert len(data.plan.epoch_rows(0)) % 4 != 0  # so one batch lies across two epochs


def test_a_batch_is_a_pure_function_of_the_step():
    forward = [open_data().batch_at(step) for step in range(6)]
    backward = [open_data().batch_at(step) for step in reversed(range(6))][::-1]
    jumping = open_data()
    for step, (left, right) in enumerate(zip(forward, backward)):
        assert_equal(left, right)
        assert_equal(left, jumping.batch_at(step))
    other = dataclasses.replace(jumping._config, data=dataclasses.replace(jumping._config.data, seed=1))
    assert records_of(TrainingData(other, tokenizer(), RECORDS, silent).batch_at(0)) != records_of(forward[0])


@pytest.mark.parametrize("parts", [[(0, 1, 2, 3)], [(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0,), (1,), (2,), (3,)]])
def test_rows_of_all_processes_make_up_the_global_batch(parts):
    data = open_data()
    back = np.argsort([row for rows in parts for row in rows])
    for step in range(4):
        built = [data.batch_at(step, rows) for rows in parts]
        assert_equal(jax.tree.map(lambda *part: np.concatenate(part)[back], *built), data.batch_at(step))


@pytest.mark.parametrize("rows", [(), (3, 4), (-1, 0), (1, 0), (1, 1)])
def test_rows_that_the_batch_lacks_are_refused(rows):
    with pytest.raises(ValueError, match=r"rows of the batch, rising, in 0 … 3"):
        open_data().iterator(0, rows)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_workers_change_no_batch_and_a_state_fits_any_number_of_them(workers):
    reference = open_data()
    iterator = open_data(workers).iterator(start_step=1)
    assert isinstance(iterator, grain.DatasetIterator)
    for step in (1, 2, 3):
        assert_equal(next(iterator), reference.batch_at(step))
    state = json.loads(json.dumps(iterator.get_state()))
    iterator.close()
    # The state of `workers` workers, taken up in this process by one of two hosts.
    resumed = open_data().iterator(0, rows=(2, 3))
    resumed.set_state(state)
    for step in (4, 5):
        assert_equal(next(resumed), reference.batch_at(step, (2, 3)))


def test_a_run_resumes_in_the_middle_of_an_epoch_with_the_same_batches():
    data = open_data()
    per_epoch = len(data.plan.epoch_rows(0)) / 4
    iterator = data.iterator()
    for before in (1, int(per_epoch) + 2):  # the middle of epochs 0 and 1
        assert before % per_epoch != 0
        iterator.set_state({"next_step": 0})
        take(iterator, before)
        state = iterator.get_state()
        going_on = take(iterator, 4)
        resumed = open_data().iterator()
        resumed.set_state(state)
        for left, right in zip(going_on, take(resumed, 4)):
            assert_equal(left, right)
    with pytest.raises(ValueError, match="next_step = -1"):
        iterator.set_state({"next_step": -1})


def test_a_closed_iterator_says_so():
    iterator = open_data().iterator()
    iterator.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


class Flaky(list):
    """Records of which some cannot be read."""

    bad = {3}

    def __getitem__(self, index):
        if index in self.bad:
            raise DataError(f"record {index} is damaged")
        return super().__getitem__(index)


def test_records_that_are_unreadable_or_too_large_are_named_counted_and_left_out():
    lines = []
    records = Flaky(RECORDS["a"])
    records.append(make_conversation(1, duration=30.0))
    data = open_data(report=lines.append, records={"a": records})
    assert any("record 3 is left out: record 3 is damaged" in line for line in lines)
    assert any("1 of 18 records left out, unreadable: 3" in line for line in lines)
    assert any("1 of 18 records left out, too large for a row: 17" in line for line in lines)
    assert sorted(data.plan.epoch_order(0).tolist()) == [n for n in range(17) if n != 3]


def test_a_source_without_a_usable_record_is_an_error():
    with pytest.raises(ValueError, match="source 'a': none of its 17 records can be used"):
        open_data(records={"a": RECORDS["a"]}, elements=5)


def test_a_record_that_fails_later_is_named():
    records = Flaky(RECORDS["a"])
    records.bad = set()
    data = open_data(records={"a": records})
    records.bad = set(range(17))
    with pytest.raises(ValueError, match=r"record a/\d+ was usable .* is damaged"):
        data.batch_at(0)


class Counted(list):
    """Records in a folder, with the number of reads."""

    reads = 0

    def __getitem__(self, index):
        self.reads += 1
        return super().__getitem__(index)


def test_several_processes_measure_what_one_does(tmp_path, monkeypatch):
    write_shards(RECORDS["a"], tmp_path / "a")
    records, config = open_shards(tmp_path / "a"), make_config(0, SOURCES, **SMALL_ROW)
    alone = measure_lengths(RECORDS["a"], tokenizer(), config, "a", silent)
    monkeypatch.setattr(workers, "_PART", 4)
    monkeypatch.setattr(workers, "_PARTS_PAY", 1)
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 2)
    started, real = [], workers.pool
    monkeypatch.setattr(workers, "pool", lambda processes: started.append(processes) or real(processes))
    np.testing.assert_array_equal(measure_lengths(records, tokenizer(), config, "a", silent), alone)
    assert started == [2]


def test_lengths_are_measured_once_for_each_tokenizer_and_setting(tmp_path):
    records, config = Counted(RECORDS["a"]), make_config()
    records.directory = tmp_path

    def measure(config):
        return source_lengths(records, tokenizer(), config, "a", silent)

    first = measure(config)
    assert np.array_equal(measure(config), first) and records.reads == 17
    assert [path.suffix for path in tmp_path.iterdir()] == [".npy"]
    narrow = dataclasses.replace(config, model=dataclasses.replace(config.model, max_text_out=1))
    assert not np.array_equal(measure(narrow), first) and records.reads == 34
    for path in tmp_path.iterdir():
        path.write_bytes(b"cut off")
    assert np.array_equal(measure(config), first) and records.reads == 51
    records.append(make_conversation(5))
    assert len(measure(config)) == 18 and records.reads == 69


def test_the_data_folder_is_read_end_to_end(tmp_path):
    for name, records in RECORDS.items():
        write_shards(records, tmp_path / name, records_per_shard=5)
    config = make_config(1, SOURCES, **SMALL_ROW)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=str(tmp_path)))
    iterator = make_train_iterator(config, tokenizer(), start_step=2)
    in_memory = open_data()
    for step in (2, 3):
        batch = next(iterator)
        assert_equal(batch, in_memory.batch_at(step))
    iterator.close()
    assert len(list(tmp_path.glob("*/lengths-*.npy"))) == 2


def test_numbers_in_a_batch_name_their_records():
    data = open_data()
    batch = data.batch_at(0)
    for row in range(4):
        numbers = batch.record[row][batch.record[row] >= 0]
        for segment, (number, name) in enumerate(zip(numbers, data.describe(numbers)), 1):
            source, index = name.split("/")
            record: Conversation = RECORDS[source][int(index)]
            turns = batch.micro_turn[row][batch.segment[row] == segment]
            assert turns[-1] + 1 == record.micro_turns
            assert number == int(index) + (17 if source == "b" else 0)
    assert data.describe([-1, 17]) == ["b/0"]


def test_held_out_batches_are_fixed_and_hold_every_conversation_once():
    config = make_config(0, SOURCES, **SMALL_ROW)

    def held_out(count, rows=None):
        return held_out_batches(config, tokenizer(), count, rows, RECORDS["a"], silent)

    batches = held_out(100)
    assert sorted(n for batch in batches for n in records_of(batch)) == list(range(17))
    assert all(batch.stream.shape == (4, SMALL_ROW["elements"]) for batch in batches)
    for left, right in zip(batches, held_out(2), strict=False):
        assert_equal(left, right)
    assert len(held_out(2)) == 2
    for left, right, whole in zip(held_out(9, (0, 1)), held_out(9, (2, 3)), batches, strict=True):
        assert_equal(jax.tree.map(lambda *part: np.concatenate(part), left, right), whole)


def test_sources_must_be_those_of_the_configuration():
    with pytest.raises(ValueError, match="config.data.sources names"):
        TrainingData(make_config(0, SOURCES), tokenizer(), {"a": RECORDS["a"]}, silent)
