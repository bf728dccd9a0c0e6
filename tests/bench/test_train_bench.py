import dataclasses

import numpy as np
import pytest
from small import PACKING, small_config

from tml_jax.bench.batches import full_batch, random_tokens, text_batch
from tml_jax.bench.own_step import whole_step
from tml_jax.bench.train import train_bench
from tml_jax.data.packing import SIZE_NAMES
from tml_jax.tokens import Stream


@pytest.fixture(scope="module")
def config():
    whole = small_config()
    return dataclasses.replace(whole, data=dataclasses.replace(whole.data, packing=PACKING, batch_size=2))


def test_a_batch_of_text_asks_for_every_token_but_the_first(config):
    tokens = random_tokens(config)
    batch = text_batch(tokens, config)
    assert tokens.shape == (2, PACKING.elements)
    reached = np.take_along_axis(tokens, batch.output_from + 1, axis=1)
    np.testing.assert_array_equal(batch.output_token, reached)
    np.testing.assert_array_equal(batch.output_token, tokens[:, 1:])


def test_a_whole_batch_holds_every_stream_and_cannot_hold_another_micro_turn(config):
    batch = full_batch(config)
    streams = {Stream(kind) for kind in np.unique(batch.stream)}
    assert {*Stream} - streams <= {Stream.TEXT_IN, Stream.PADDING}
    used = dict.fromkeys(SIZE_NAMES, 0) | {
        "elements": int(np.sum(batch.stream[0] != Stream.PADDING)),
        "audio_in": int(np.sum(batch.stream[0] == Stream.AUDIO_IN)),
        "audio_out": int(np.sum(batch.stream[0] == Stream.AUDIO_OUT)),
    }
    assert all(used[name] <= getattr(PACKING, name) for name in used)
    assert used["audio_in"] > PACKING.audio_in - 4


@pytest.mark.slow
def test_the_whole_step_learns_the_batch_it_is_given(config):
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, warmup_steps=0))
    step = whole_step(config)
    first = step()
    for _ in range(5):
        last = step()
    assert last < first


@pytest.mark.parity
def test_the_bench_finds_the_same_work_on_both_sides_and_prints_a_table(config):
    pytest.importorskip("transformers.models.inkling")
    pytest.importorskip("torch").set_num_threads(1)  # several wait for each other where tests share the cores
    from tml_jax.bench.reference_step import Setting

    settings = [Setting("eager", "eager"), Setting("eager", "sdpa"), Setting("no_such", "eager")]
    lines = []
    found = train_bench(config, repeats=2, settings=settings, log=lines.append)
    assert found.setting in settings[:2]
    assert found.tried[settings[2]].startswith("does not run")
    assert len(lines) == 4 and found.tokens == 2 * PACKING.elements
    assert found.ratio == found.reference.median / found.text.median > 0
    table = str(found).splitlines()
    columns = {line.count("|") for line in table[:5]}
    assert columns == {6} and f"{found.ratio:.2f}" in table[3]
    assert 0 < found.text_flops < found.whole_flops
