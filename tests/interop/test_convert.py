"""A release becomes a checkpoint and a release again, bit for bit, whatever happens on the way."""

import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from releases import BF16, F32, make_release
from small import SMALL, small_config
from trained_run import make_run

from tml_jax.config import ConfigError
from tml_jax.interop import convert
from tml_jax.interop.array_store import open_arrays, slices
from tml_jax.interop.convert import DROP, KEEP, from_release
from tml_jax.interop.inkling import MODULES, RELEASE, from_tensors
from tml_jax.interop.inkling_config import PLANNED_STAGES
from tml_jax.interop.journal import ConvertError, Journal
from tml_jax.interop.tensor_files import read_tensors
from tml_jax.interop.to_transformers import to_transformers
from tml_jax.model.interaction import InteractionModel, init_variables
from tml_jax.tokens import Control
from tml_jax.train import checkpoint, init_from
from tml_jax.train.checkpoint import CheckpointError, restore_params_for_inference

MODEL = dataclasses.replace(SMALL, vision_stages=(*PLANNED_STAGES[2], (2, 40, 40, SMALL.d_model)))
CONFIG = dataclasses.replace(small_config(), model=MODEL)
MTP = {"model.mtp.layers.0.proj.weight": (BF16, (32, 64)), "model.mtp.norm.weight": (F32, (32,))}


def silent(line: str) -> None:
    del line


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """File → bytes, subfolders included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "hf"
    make_release(folder, MODEL, extra=MTP, most_bytes=60_000)
    return folder


@pytest.fixture(scope="module")
def converted(release, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "run"
    lines = []
    from_release(release, folder, CONFIG, KEEP, lines.append)
    return folder, lines


def test_every_parameter_is_the_one_of_the_in_memory_mapping(release, converted):
    _, _, variables = restore_params_for_inference(converted[0])
    tensors = {name: tensor.read().astype(np.float32) for name, tensor in read_tensors(release).items()}
    empty = jax.eval_shape(lambda key: init_variables(InteractionModel(MODEL), key), jax.random.key(0))
    empty = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), empty)
    expected, report = from_tensors(tensors, MODEL, empty)
    assert report.missing == () and set(report.unmapped) == set(MTP)
    found = flatten_dict(variables, sep="/")
    for path, value in flatten_dict(expected, sep="/").items():
        if path in report.unfilled:
            continue
        ours, theirs = np.asarray(found[path], np.float32), np.array(value)
        if path in ("params/inputs/text_table", "params/unembedding"):
            controls = slice(MODEL.text_vocab_size, MODEL.text_vocab_size + len(Control))
            rows = (lambda x: x) if path.endswith("table") else np.transpose
            assert not np.any(np.all(rows(ours)[controls] == rows(theirs)[controls], axis=1))
            rows(theirs)[controls] = rows(ours)[controls]
        np.testing.assert_array_equal(ours, theirs, err_msg=path)


@pytest.mark.slow
def test_what_the_release_lacks_is_initialised_as_in_a_new_model_and_listed(converted):
    folder, lines = converted
    _, _, variables = restore_params_for_inference(folder)
    new = init_variables(InteractionModel(MODEL), jax.random.key(CONFIG.train.seed))
    fresh = {path: leaf for path, leaf in flatten_dict(new, sep="/").items() if "/flow/" in path or "own_audio" in path}
    assert fresh
    for path, leaf in fresh.items():
        np.testing.assert_allclose(flatten_dict(variables, sep="/")[path], leaf, rtol=1e-6, atol=1e-7, err_msg=path)
        assert any(line.startswith(f"initialised: {path} ") for line in lines), path
    for control in Control:
        assert any(line.endswith(control.name) and str(MODEL.text_vocab_size + control) in line for line in lines)


def test_numbers_keep_their_types(converted):
    _, _, variables = restore_params_for_inference(converted[0])
    backbone = variables["params"]["backbone"]["layer_7"]
    assert backbone["moe"]["expert_gate"].dtype == BF16
    assert backbone["attention_conv"]["kernel"].dtype == F32


@pytest.mark.parametrize("spelling", [RELEASE, MODULES])
def test_the_way_back_gives_the_same_files(tmp_path, spelling):
    make_release(tmp_path / "hf", MODEL, seed=1, spelling=spelling, extra=MTP, most_bytes=60_000)
    (tmp_path / "hf" / "tiktoken").mkdir()
    (tmp_path / "hf" / "tiktoken" / "tokenizer.model").write_bytes(b"merges")
    from_release(tmp_path / "hf", tmp_path / "run", CONFIG, KEEP, silent)
    to_transformers(tmp_path / "run", tmp_path / "back", log=silent)
    assert contents(tmp_path / "back") == contents(tmp_path / "hf")
    assert {"model.safetensors.index.json", "tiktoken/tokenizer.model"} < contents(tmp_path / "back").keys()


def test_dropped_mtp_layers_are_named_and_the_rest_is_the_same(release, tmp_path):
    lines = []
    from_release(release, tmp_path / "run", CONFIG, DROP, lines.append)
    assert f"dropped: {len(MTP)} tensors under model.mtp." in lines
    to_transformers(tmp_path / "run", tmp_path / "back", log=lines.append)
    assert any("not written: 2 MTP tensors" in line for line in lines)
    back, there = read_tensors(tmp_path / "back"), read_tensors(release)
    assert back.keys() == there.keys() - MTP.keys()
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor.read(), there[name].read(), err_msg=name)


def test_sliding_layers_with_heads_of_their_own_as_in_the_large_inkling(tmp_path):
    model = dataclasses.replace(MODEL, num_heads=4, num_kv_heads=1, sliding_heads=(6, 3, 4))
    make_release(tmp_path / "hf", model)
    from_release(tmp_path / "hf", tmp_path / "run", CONFIG, log=silent)
    config, _, variables = restore_params_for_inference(tmp_path / "run")
    assert config.model == model
    assert variables["params"]["backbone"]["layer_0"]["attention"]["key"].shape == (32, 3, 4)
    assert variables["params"]["backbone"]["layer_7"]["attention"]["key"].shape == (32, 1, 8)
    to_transformers(tmp_path / "run", tmp_path / "back", log=silent)
    assert contents(tmp_path / "back") == contents(tmp_path / "hf")


def test_an_unembedding_without_padding_comes_back_without(tmp_path):
    name = "model.llm.unembed.weight"
    make_release(tmp_path / "hf", MODEL, extra={name: (BF16, (MODEL.text_vocab_size, MODEL.d_model))})
    from_release(tmp_path / "hf", tmp_path / "run", CONFIG, log=silent)
    _, _, variables = restore_params_for_inference(tmp_path / "run")
    unembedding = np.asarray(variables["params"]["unembedding"], np.float32)
    assert unembedding.shape == (MODEL.d_model, MODEL.vocab_size)
    assert np.all(np.std(unembedding[:, : MODEL.logits_size], axis=0) > 0)
    to_transformers(tmp_path / "run", tmp_path / "back", log=silent)
    assert contents(tmp_path / "back") == contents(tmp_path / "hf")


def test_what_is_trained_from_a_release_goes_out_with_its_processor_and_ids(release, tmp_path):
    shutil.copytree(release, tmp_path / "hf")
    small = {"processor_config.json": '{"image_processor": {}}', "chat_template.jinja": "{{ messages }}"}
    for name, text in small.items():
        (tmp_path / "hf" / name).write_text(text)
    from_release(tmp_path / "hf", tmp_path / "base", CONFIG, DROP, silent)
    variables = restore_params_for_inference(tmp_path / "base")[2]
    variables["params"]["unembedding"] = variables["params"]["unembedding"] + 1
    make_run(tmp_path / "run", CONFIG, variables)
    shutil.copyfile(tmp_path / "base" / "tokenizer.json", tmp_path / "run" / "tokenizer.json")
    init_from.adopt_files(tmp_path / "base", tmp_path / "run", MODEL)

    to_transformers(tmp_path / "run", tmp_path / "out", log=silent)
    written = contents(tmp_path / "out")
    assert {name: written[name].decode() for name in small} == small
    config, theirs = (json.loads((tmp_path / folder / "config.json").read_text()) for folder in ("out", "hf"))
    assert config["image_token_id"] == theirs["image_token_id"]
    assert config["text_config"]["unpadded_vocab_size"] == MODEL.logits_size  # control tokens are logits now
    assert "model.safetensors.index.json" not in written and "tokenizer.json" in written


def test_training_into_a_converted_folder_says_what_to_do(converted):
    with checkpoint.Checkpoints(converted[0], keep=1) as checkpoints:
        with pytest.raises(CheckpointError, match="without an optimizer.*init_from="):
            checkpoints.restore_latest(None)


def test_slices_of_a_stored_array_are_the_array(converted):
    arrays = open_arrays(converted[0] / "checkpoints" / "0")
    for name in ("params/backbone/layer_7/moe/expert_gate", "params/unembedding", "params/backbone/final_norm/scale"):
        whole = arrays[name].read().result()
        for most in (1, 100, 4000, 1 << 30):
            parts = list(slices(arrays[name], most))
            np.testing.assert_array_equal(np.concatenate([part.reshape(-1) for part in parts]), whole.reshape(-1))
            assert max(part.nbytes for part in parts) <= max(most, whole.shape[-1] * whole.itemsize)


SHARDED = """
import sys
import jax, numpy as np
from tml_jax.config import MeshConfig
from tml_jax.parallel.mesh import make_mesh, parameter_shardings
from tml_jax.train.checkpoint import restore_params_for_inference
assert len(jax.devices()) == 8
_, _, plain = restore_params_for_inference(sys.argv[1])
shardings = parameter_shardings(make_mesh(MeshConfig(fsdp=2, expert=2, tensor=2)), plain)
abstract = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), plain, shardings)
_, _, sharded = restore_params_for_inference(sys.argv[1], abstract_variables=abstract)
for found, leaf, sharding in zip(*map(jax.tree.leaves, (sharded, plain, shardings))):
    assert found.sharding == sharding
    np.testing.assert_array_equal(found, leaf)
print(sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(sharded)))
"""


def test_a_checkpoint_restores_onto_a_mesh_of_eight_devices(converted):
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8", JAX_PLATFORMS="cpu")
    command = [sys.executable, "-c", SHARDED, str(converted[0])]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert int(ended.stdout.split()[-1]) > 20  # arrays of which each device holds a part only


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from tml_jax.interop import convert
from tml_jax.interop.array_store import open_arrays, slices
from test_convert import CONFIG
left = {after}
done = convert.Journal.add
def add(self, name, sums):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    done(self, name, sums)
convert.Journal.add = add
convert.from_release({source!r}, {target!r}, CONFIG, "keep", print)
"""


@pytest.mark.parametrize("after", [3, 30])
def test_a_killed_conversion_looks_like_nothing_and_goes_on(release, converted, tmp_path, after):
    target, tests = tmp_path / "run", pathlib.Path(__file__).parents[1]
    paths = [str(tests), str(tests / "data"), str(tests / "interop")]
    code = KILLED.format(paths=paths, after=after, source=str(release), target=str(target))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    with pytest.raises(CheckpointError, match="no checkpoint"):
        restore_params_for_inference(target)

    converted_now = []
    do = convert._convert_tensor
    with pytest.MonkeyPatch.context() as patch:
        watched = lambda part, *rest: converted_now.append(part.tensor) or do(part, *rest)  # noqa: E731
        patch.setattr(convert, "_convert_tensor", watched)
        from_release(release, target, CONFIG, KEEP, silent)
    tensors = len(read_tensors(release)) - len(MTP)
    assert len(converted_now) == tensors - after
    _, _, ours = restore_params_for_inference(target)
    _, _, whole = restore_params_for_inference(converted[0])
    jax.tree.map(np.testing.assert_array_equal, ours, whole)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def check_killed_in_finish(release, converted, target, patch_kill) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch_kill(patch)
        from_release(release, target, CONFIG, KEEP, silent)
    from_release(release, target, CONFIG, KEEP, silent)
    assert not (target / ".converting").exists()
    _, _, ours = restore_params_for_inference(target)
    _, _, whole = restore_params_for_inference(converted[0])
    jax.tree.map(np.testing.assert_array_equal, ours, whole)


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_kill_while_arrays_are_moved_into_the_checkpoint_loses_nothing(release, converted, tmp_path, after):
    def kill(patch):
        left, rename = [after], os.rename

        def renamed(old, new):
            if "arrays" in str(old) and str(new).find(".built") > 0:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
            rename(old, new)

        patch.setattr(os, "rename", renamed)

    check_killed_in_finish(release, converted, tmp_path / "run", kill)


def test_a_kill_before_or_after_the_checkpoint_gets_its_name_loses_nothing(release, converted, tmp_path):
    def before(patch):
        rename = os.rename

        def renamed(old, new):
            if pathlib.Path(new).name == "0":
                raise Killed
            rename(old, new)

        patch.setattr(os, "rename", renamed)

    def after(patch):
        remove = shutil.rmtree

        def removed(path, *rest, **named):
            if pathlib.Path(path).name == ".converting":
                raise Killed
            remove(path, *rest, **named)

        patch.setattr(shutil, "rmtree", removed)

    check_killed_in_finish(release, converted, tmp_path / "before", before)
    check_killed_in_finish(release, converted, tmp_path / "after", after)


def test_an_export_of_another_type_is_not_continued(converted, tmp_path):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):

        def begin(self):
            raise Killed

        patch.setattr("tml_jax.interop.tensor_files.TensorFile.__enter__", begin)
        to_transformers(converted[0], tmp_path / "hf", "float16", log=silent)
    with pytest.raises(ConvertError, match="of another export: delete it"):
        to_transformers(converted[0], tmp_path / "hf", "bfloat16", log=silent)


def test_a_conversion_of_something_else_is_not_continued(release, tmp_path):
    (tmp_path / "run" / ".converting").mkdir(parents=True)
    (tmp_path / "run" / ".converting" / "journal.jsonl").write_text('{"fingerprint": "of another"}\n')
    with pytest.raises(ConvertError, match="of another conversion.*delete it"):
        from_release(release, tmp_path / "run", CONFIG, KEEP, silent)


def test_a_finished_run_is_not_overwritten(release, converted, tmp_path):
    with pytest.raises(ConvertError, match="holds something already"):
        from_release(release, converted[0], CONFIG, KEEP, silent)
    with pytest.raises(ConvertError, match="holds something already"):
        to_transformers(converted[0], release, log=silent)


def test_everything_wrong_with_the_tensors_is_a_line_each(tmp_path):
    tensors = make_release(tmp_path / "whole", MODEL)
    missing, narrow = "model.llm.norm.weight", "model.llm.layers.3.attn.wk_dv.weight"
    changed = {narrow: (BF16, (15, 32)), "model.llm.surprise": (BF16, (2,)), **MTP}
    make_release(tmp_path / "hf", MODEL, extra=changed)
    path = tmp_path / "hf" / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(missing.encode(), b"model.llm.gone.weight"))
    with pytest.raises(ConvertError) as caught:
        from_release(tmp_path / "hf", tmp_path / "run", CONFIG, log=silent)
    lines = str(caught.value).splitlines()
    assert f"missing: {missing} (32,), which fills params/backbone/final_norm/scale" in lines
    assert f"wrong shape: {narrow} is (15, 32), its config.json asks for {tensors[narrow][1]}" in lines
    assert "extra: model.llm.surprise (2,) fills nothing" in lines
    assert any("2 tensors under model.mtp." in line and "--mtp=keep" in line for line in lines)
    assert len(lines) == 5 and not (tmp_path / "run").exists()


def test_quantised_releases_are_refused_with_what_is_supported(tmp_path):
    make_release(tmp_path / "hf", MODEL)
    path = tmp_path / "hf" / "config.json"
    release = json.loads(path.read_text())
    path.write_text(json.dumps(release | {"quantization_config": {"quant_method": "modelopt"}}))
    with pytest.raises(ConfigError, match="modelopt.*quantised.*bfloat16, float16 and float32"):
        from_release(tmp_path / "hf", tmp_path / "run", CONFIG, log=silent)


def test_whether_there_are_mtp_layers_to_drop_makes_no_other_conversion(tmp_path):
    make_release(tmp_path / "hf", MODEL)
    plans = [convert.plan(tmp_path / "hf", CONFIG, mtp) for mtp in (None, KEEP, DROP)]
    assert plans[0] == plans[1] == plans[2]


def test_a_target_inside_the_release_and_a_second_process_are_refused(release, tmp_path):
    with pytest.raises(ConvertError, match="lies inside of the release"):
        from_release(release, release / "run", CONFIG, DROP, silent)
    (tmp_path / "run" / ".converting").mkdir(parents=True)
    with Journal(tmp_path / "run" / ".converting" / "journal.jsonl", "any"):
        with pytest.raises(ConvertError, match="another process is at work"):
            from_release(release, tmp_path / "run", CONFIG, DROP, silent)


def test_an_export_of_ours_is_not_taken_for_a_release(converted, tmp_path):
    to_transformers(converted[0], tmp_path / "out", "float32", log=silent)
    with pytest.raises(ConfigError, match="tml_jax_export = 'small'.*use the checkpoint"):
        from_release(tmp_path / "out", tmp_path / "run", CONFIG, log=silent)


def test_mtp_tensors_of_a_type_that_is_not_read_can_be_dropped_but_not_kept(tmp_path):
    make_release(tmp_path / "hf", MODEL, extra=MTP)
    path = tmp_path / "hf" / "model.safetensors"
    start = path.read_bytes().index(b'"model.mtp.norm.weight":{"dtype":"F32"')
    data = bytearray(path.read_bytes())
    data[start : start + 38] = b'"model.mtp.norm.weight":{"dtype":"I32"'
    path.write_bytes(data)
    with pytest.raises(ConvertError, match="wrong type: model.mtp.norm.weight is I32"):
        from_release(tmp_path / "hf", tmp_path / "kept", CONFIG, KEEP, silent)
    from_release(tmp_path / "hf", tmp_path / "run", CONFIG, DROP, silent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header: header.update(shape="64"), "damaged"),
        (lambda header: header.update(shape=[-1, 4]), "damaged .*has the shape"),
        (lambda header: header.update(data_offsets=[0, 1, 2]), "damaged"),
        (lambda header: header.update(data_offsets=[-8, header["data_offsets"][1] - 8]), "does not begin where"),
    ],
    ids=["text", "negative", "three", "before"],
)
def test_damaged_headers_are_refused(change, message, tmp_path):
    make_release(tmp_path / "hf", MODEL)
    path = tmp_path / "hf" / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    first = min((name for name in header if name != "__metadata__"), key=lambda name: header[name]["data_offsets"])
    change(header[first])
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(ValueError, match=message):
        read_tensors(tmp_path / "hf")
    (tmp_path / "long").mkdir()
    (tmp_path / "long" / "model.safetensors").write_bytes(data + b"more")
    with pytest.raises(ValueError, match="bytes, its header speaks of"):
        read_tensors(tmp_path / "long")


def test_what_index_and_files_do_not_agree_on_is_a_line_each(release, tmp_path):
    shutil.copytree(release, tmp_path / "hf")
    index = tmp_path / "hf" / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    file = sorted(set(content["weight_map"].values()))[0]
    content["weight_map"] |= {"model.llm.first": file, "model.llm.second": file}
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        read_tensors(tmp_path / "hf")
    lines = str(caught.value).splitlines()
    assert [f"says that model.llm.{name} is in {file}" in line for name, line in zip(("first", "second"), lines)]
    assert len(lines) == 2

    index.write_text("[]")
    with pytest.raises(ValueError, match="not an index of safetensors files"):
        read_tensors(tmp_path / "hf")


def test_tensor_files_outside_the_index_are_named(release, tmp_path):
    shutil.copytree(release, tmp_path / "hf")
    (tmp_path / "hf" / "consolidated.safetensors").write_bytes(b"another layout of the same weights")
    lines = []
    from_release(tmp_path / "hf", tmp_path / "run", CONFIG, DROP, lines.append)
    assert "left behind: consolidated.safetensors, which the index does not name" in lines


def test_a_truncated_file_is_named(tmp_path):
    make_release(tmp_path / "hf", MODEL)
    path = tmp_path / "hf" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="model.safetensors has .* bytes, its header speaks of"):
        from_release(tmp_path / "hf", tmp_path / "run", CONFIG, log=silent)
