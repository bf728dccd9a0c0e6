"""The micro-turn beside the reference: only what puts out the same tokens is compared, and the table says of what."""

import dataclasses

import pytest
from small import small_config

from tml_jax.config import ServeConfig


@pytest.mark.parity
def test_all_put_out_the_same_tokens_and_are_in_the_table():
    pytest.importorskip("transformers.models.inkling")
    pytest.importorskip("torch").set_num_threads(1)  # several wait for each other where tests share the cores
    from tml_jax.bench.micro_turn import micro_turn_bench
    from tml_jax.bench.reference_model import Setting

    config = dataclasses.replace(small_config(), serve=ServeConfig(context=88))
    setting, lines = Setting("eager", "eager"), []
    found = micro_turn_bench(config, repeats=2, settings=(setting,), sessions=(2,), log=lines.append)
    assert found.setting == setting and set(found.times) == {"reference", "reread", "own"} and set(found.whole) == {2}
    assert all(times.median > 0 for times in found.times.values()) and "all put out the same tokens" in lines[-1]
    shown = str(found)
    assert "| transformers with its cache: eager experts, eager attention |" in shown and "2 sessions" in shown
    assert "88 elements read anew" in shown and "eager experts, eager attention: " in shown
    with pytest.raises(ValueError, match="a context of 88 elements has room for 2"):
        micro_turn_bench(config, repeats=3, settings=(setting,))
