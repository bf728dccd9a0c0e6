"""Releases as transformers writes them, through our checkpoint and back, run by transformers on the other side."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inkling_inputs import BASE, SEED, stages
from small import small_config

from tml_jax.data.tokenizer import train_tokenizer
from tml_jax.eval.parity import TOLERANCE, Ours, Reference, compare, random_sequence, relative_error
from tml_jax.interop.convert import from_release
from tml_jax.interop.tensor_files import read_tensors
from tml_jax.interop.to_transformers import to_transformers
from tml_jax.train.checkpoint import restore_params_for_inference

pytestmark = pytest.mark.parity

CONFIGS = {
    "scanned layers, folds of the release": dataclasses.replace(BASE, num_layers=8, vision_stages=stages(4)),
    "heads of their own in sliding layers": dataclasses.replace(BASE, sliding_heads=(6, 3, 4), log_scaling_floor=20),
}


def silent(line: str) -> None:
    del line


@pytest.fixture(scope="module", params=CONFIGS)
def release(request, tmp_path_factory):
    """The reference, its folder as save_pretrained writes it, and its configuration."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers.models.inkling")
    config = CONFIGS[request.param]
    config = dataclasses.replace(config, vocab_size=400, text_vocab_size=300)
    reference = importlib.import_module("inkling_reference").Reference(config, SEED)
    folder = tmp_path_factory.mktemp("release") / "hf"
    reference.model.save_pretrained(folder)
    train_tokenizer(["say tiger", "hello there"], 280).save(folder / "tokenizer.json")
    return reference, folder, config


def test_a_saved_release_converts_and_gives_the_same_logits(release, tmp_path):
    reference, folder, config = release
    run = dataclasses.replace(small_config(), model=config)
    from_release(folder, tmp_path / "run", run, log=silent)
    loaded, _, variables = restore_params_for_inference(tmp_path / "run")
    assert loaded.model.sliding_heads == config.sliding_heads and loaded.model.num_layers == config.num_layers
    ours = Ours(loaded.model, jax.tree.map(lambda leaf: leaf.astype(jnp.float32), variables))
    sequence = random_sequence(config, "audio+image+text", 60, seed=1)
    assert relative_error(ours.run([sequence])[0][0], reference.run(sequence)[0]) < TOLERANCE

    to_transformers(tmp_path / "run", tmp_path / "back", log=silent)
    theirs, back = read_tensors(folder), read_tensors(tmp_path / "back")
    assert theirs.keys() == back.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(back[name].read(), tensor.read(), err_msg=name)
    again = Reference.load(tmp_path / "back")
    np.testing.assert_array_equal(again.run(sequence)[0], reference.run(sequence)[0])
    errors = compare(tmp_path / "run", tmp_path / "back", length=40, log=silent)
    assert len(errors) >= 10 and max(errors.values()) < TOLERANCE


def test_the_reference_reads_files_of_the_spelling_of_its_modules(release, tmp_path):
    reference, _, config = release
    reference.model.save_pretrained(tmp_path / "hf", save_original_format=False)
    train_tokenizer(["say tiger"], 270).save(tmp_path / "hf" / "tokenizer.json")
    assert "lm_head.weight" in read_tensors(tmp_path / "hf")
    from_release(tmp_path / "hf", tmp_path / "run", dataclasses.replace(small_config(), model=config), log=silent)
    assert max(compare(tmp_path / "run", tmp_path / "hf", length=40, log=silent).values()) < TOLERANCE


def test_a_model_with_a_patch_network_of_its_own_goes_as_its_text_model(tmp_path):
    pytest.importorskip("transformers.models.inkling")
    from trained_run import make_run

    run = make_run(tmp_path / "run", small_config())
    lines = []
    errors = compare(run, length=60, log=lines.append)
    assert any("text model alone" in line for line in lines)
    assert set(errors) == {"logits, text, at once", "logits, text, with a cache"}
    assert max(errors.values()) < TOLERANCE
    to_transformers(run, tmp_path / "half", dtype="bfloat16", log=silent)
    types = {tensor.dtype for tensor in read_tensors(tmp_path / "half").values()}
    assert types == {"BF16", "F32"}
    importlib.import_module("transformers").AutoModelForCausalLM.from_pretrained(tmp_path / "half")


def test_a_difference_is_reported(release, tmp_path):
    _, folder, config = release
    from_release(folder, tmp_path / "run", dataclasses.replace(small_config(), model=config), log=silent)
    other = importlib.import_module("inkling_reference").Reference(config, SEED + 1)
    other.model.save_pretrained(tmp_path / "other")
    lines = []
    errors = compare(tmp_path / "run", tmp_path / "other", length=40, log=lines.append)
    assert max(errors.values()) > TOLERANCE and any("DIFFERENT" in line for line in lines)
