"""The light copy of a run, and its name in place of a folder."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py
from setuptools.config.setupcfg import read_configuration
from small import small_config
from synthetic import make_conversation
from trained_run import make_run

from configs import tiny
from launch import config_flag
from tml_jax import shipped
from tml_jax.config import from_mapping
from tml_jax.data.shards import write_shards
from tml_jax.interop.journal import ConvertError
from tml_jax.scenes.families import FAMILIES
from tml_jax.serve.session import Talker
from tml_jax.shipped import make
from tml_jax.train.checkpoint import CheckpointError, find_checkpoint, read_config, restore_params_for_inference
from tml_jax.train.checkpoint_arrays import named

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEYWORD = {"value": 0.4321, "low": 0.3, "high": 0.5, "count": 9}
UNKNOWN = {"value": float("nan"), "low": float("nan"), "high": float("nan"), "count": 0}
RESULTS = {
    "step": 1,
    "policies": {"model": {"conversations": 9, "keyword": KEYWORD, "yielded": UNKNOWN}},
    "families": {},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory, small_variables):
    """An evaluated run of the small model, whose data lie somewhere on this machine."""
    folder = tmp_path_factory.mktemp("ship")
    conversations = [make_conversation(seed, 1.0) for seed in (1, 2, 3)]
    write_shards((dataclasses.replace(each, frames=None, frame_times=None) for each in conversations),
                 folder / "data/held_out")  # fmt: skip
    config = small_config()
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=str(folder / "data")))
    run = make_run(folder / "run", config, small_variables)
    (run / "eval").mkdir()
    (run / "eval" / make.RESULTS).write_text(json.dumps(RESULTS))
    (run / "eval" / make.TABLE).write_text("| the table |\n")
    return run


@pytest.fixture(scope="module")
def copy(run):
    folder = run.parent / "made/replica"
    options = make.ShipOptions("float16", compare=2, command="python -m launch.train --config=mine.py")
    return folder, make.ship(run, folder, options, log=lambda line: None)


def test_the_copy_is_the_run_with_rounded_matrices(run, copy):
    folder, _ = copy
    config, _, variables = restore_params_for_inference(folder)
    before = named(restore_params_for_inference(run)[2])
    types = {name: leaf.dtype for name, leaf in named(variables).items()}
    assert types["params/unembedding"] == np.float16 and types["params/backbone/final_norm/scale"] == np.float32
    assert all(types[name] == np.float32 for name in types if "router" in name or "balance" in name)
    for name, leaf in named(variables).items():
        assert (np.asarray(leaf) == np.asarray(before[name]).astype(leaf.dtype)).all(), name
    assert config.model == read_config(run).model
    assert json.loads((folder / make.RESULTS).read_text())["policies"]["model"]["keyword"] == KEYWORD


def test_the_copy_names_nothing_of_the_machine_that_made_it(run, copy):
    folder, _ = copy
    assert read_config(folder).data.directory == "data/small"
    for file in folder.rglob("*"):
        if file.is_file():
            assert str(run.parent).encode() not in file.read_bytes(), file


def test_an_evaluation_of_abilities_lies_beside_the_card_if_it_is_of_this_step(run, tmp_path):
    folder = tmp_path / "abilities"
    options = make.ShipOptions("float16", compare=0, abilities=folder)
    with pytest.raises(CheckpointError, match="abilities is no evaluation of abilities .*--suite=interactivity makes"):
        make.ship(run, tmp_path / "copy", options, log=lambda line: None)
    folder.mkdir()
    (folder / make.TABLE).write_text("| yields | 61.2% |\nas `results.json` has it\n")
    results = {"model": "here/run, step 1", "summary": "here/run, step 1: 7 of 13 targets.", "split": "held_out"}
    results["families"] = list(FAMILIES)
    others = (
        ({"model": "here/run, step 2"}, "is of here/run, step 2, not of .*run, step 1"),
        ({"model": "there/other, step 1"}, "is of there/other, step 1, not of"),
        ({"model": "here/run, step 1, int8"}, "is of here/run, step 1, int8, not of"),
        ({"split": "development"}, "is of the split development: the card tells of all held-out families"),
        ({"families": list(FAMILIES)[1:]}, "lacks the families answer: "),
        ({"model": 7}, "is no evaluation of abilities"),
    )
    for change, told in others:
        (folder / make.RESULTS).write_text(json.dumps(results | change))
        with pytest.raises(CheckpointError, match=told):
            make.ship(run, tmp_path / "copy", options, log=lambda line: None)
    (folder / make.RESULTS).write_text(json.dumps(results))
    make.ship(run, tmp_path / "copy", options, log=lambda line: None)
    assert (tmp_path / "copy" / make.ABILITIES).read_text() == "| yields | 61.2% |\nas `abilities.json` has it\n"
    assert json.loads((tmp_path / "copy" / make.MEASURED).read_text()) == results
    card = (tmp_path / "copy" / make.CARD).read_text()
    assert "here/run, step 1: 7 of 13 targets. See `ABILITIES.md`." in card


def test_the_card_tells_the_figures_of_the_evaluation_and_only_those(copy):
    folder, both = copy
    card = (folder / make.CARD).read_text()
    assert "| the table |" in card and "python -m launch.train --config=mine.py" in card
    assert "names the word that is due in 43% of the replies" in card
    assert "interruptions" not in card and "nan" not in card.split("## Limits")[1]
    assert f"{both.same_gates:.1%}" in card and both.conversations == 2
    assert both.same_gates > 0.5 and both.micro_turns == 10


def test_its_name_stands_for_its_folder(copy, monkeypatch):
    folder, _ = copy
    monkeypatch.setattr(shipped, "FOLDER", folder)
    assert find_checkpoint("shipped") == (folder, folder / "checkpoints/1")
    assert jax.tree.leaves(Talker("shipped").variables)[0].dtype == np.float32
    assert shipped.resolve("./shipped") == pathlib.Path("shipped")


def test_without_a_copy_its_name_is_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    with pytest.raises(CheckpointError, match="launch.train.*launch.ship"):
        find_checkpoint("shipped")


def command(script: str, *arguments: str) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own (flags of two do not live in one), with parts replaced by `script`."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT), JAX_PLATFORMS="cpu")
    return subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)


SERVE = """
import pathlib, sys
from absl import app
from launch import serve
from tml_jax import shipped
def load(folder, delegate):
    raise ValueError(f"asked for {folder}")
serve.load_model = load
shipped.FOLDER = pathlib.Path(sys.argv.pop())
app.run(serve.main)
"""


def test_the_server_takes_it_where_no_checkpoint_is_given(copy, tmp_path):
    ended = command(SERVE, str(copy[0]))
    assert ended.stdout.startswith(f"serving the shipped replica ({copy[0]})")
    assert f"launch.serve: asked for {copy[0]}" in ended.stderr
    ended = command(SERVE, str(tmp_path))
    assert "launch.serve: no model is shipped" in ended.stderr and "Traceback" not in ended.stderr


EVAL = """
import pathlib, sys
from absl import app
from launch import eval
from tml_jax import shipped
from tml_jax.eval import replica
replica.evaluate = lambda run, config, output_dir: (str(run), output_dir)
shipped.FOLDER = pathlib.Path(sys.argv.pop())
app.run(eval.main)
"""


def test_an_evaluation_of_it_does_not_write_into_the_package(copy):
    ended = command(EVAL, "--checkpoint=shipped", str(copy[0]))
    assert ended.stdout.strip() == str((str(copy[0]), "runs/shipped")), ended.stderr


def test_a_copy_that_is_too_large_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(make, "MOST_BYTES", 10_000)
    with pytest.raises(ConvertError, match="at most 0 may ship"):
        make.ship(run, tmp_path / "copy", make.ShipOptions(compare=0))
    assert not list(tmp_path.iterdir())


def test_numbers_outside_the_range_of_the_type_are_an_error():
    with pytest.raises(ConvertError, match="does not fit into float16"):
        make.narrowed({"params": {"a": jax.numpy.full((2, 2), 1e5)}, "balance": {}}, "float16")


def test_what_it_learned_from_needs_a_licence(run, tmp_path, small_variables):
    config = read_config(run)
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, generate={}, clips=str(tmp_path / "films"))
    )
    own = make_run(tmp_path / "run", config, small_variables)
    (own / "eval").mkdir()
    for name in (make.RESULTS, make.TABLE):
        (own / "eval" / name).write_text((run / "eval" / name).read_text())
    with pytest.raises(ConvertError, match="--licence='scenes: …' --licence='clips: …'"):
        make.ship(own, tmp_path / "copy", make.ShipOptions(compare=0))
    options = make.ShipOptions(
        compare=0, licences={"scenes": "CC-BY-4.0", "clips": "CC0"}, note="It began with another."
    )
    make.ship(own, tmp_path / "copy", options, lambda line: None)
    card = (tmp_path / "copy" / make.CARD).read_text()
    assert read_config(tmp_path / "copy").data.clips == "data/films"
    assert "scenes: CC-BY-4.0." in card and "clips: CC0." in card and "hibari" not in card and "Not measured." in card
    assert "launch.serve --checkpoint=copy --background=local" in card
    assert "has every field.\n\nIt began with another.\n" in card


def test_a_run_without_figures_is_not_shipped(small_variables, tmp_path):
    make_run(tmp_path / "run", small_config(), small_variables)
    with pytest.raises(CheckpointError, match="launch.eval --checkpoint="):
        make.ship(tmp_path / "run", tmp_path / "copy", make.ShipOptions())


def test_figures_of_another_step_or_of_a_copy_are_not_shipped(run, small_variables, tmp_path):
    own = make_run(tmp_path / "run", read_config(run), small_variables)
    (own / "eval").mkdir()
    (own / "eval" / make.RESULTS).write_text(json.dumps({**RESULTS, "step": 2}))
    (own / "eval" / make.TABLE).write_text("")
    with pytest.raises(CheckpointError, match="is of step 2, not of 1, which is to be copied"):
        make.ship(own, tmp_path / "copy", make.ShipOptions(compare=0))
    (own / make.CARD).write_text("")
    with pytest.raises(CheckpointError, match="is such a copy already"):
        make.ship(own, tmp_path / "copy", make.ShipOptions(compare=0))
    assert not (tmp_path / "copy").exists()


def test_the_command_of_the_card_gives_the_fields_that_differ_from_the_file():
    config = from_mapping(tiny.get_config())
    assert config_flag.training_command(config, str(ROOT / "configs/tiny.py")).endswith("configs/tiny.py")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=7, warmup_steps=2))
    command = config_flag.training_command(config, str(ROOT / "configs/tiny.py"))
    assert command.endswith("configs/tiny.py --config.train.steps=7 --config.train.warmup_steps=2")


def test_a_wheel_has_every_file_of_the_copy(copy, tmp_path):
    package = tmp_path / "tml_jax/shipped"
    for file in copy[0].rglob("*"):
        if file.is_file():
            place = package / "replica" / file.relative_to(copy[0])
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())
    patterns = read_configuration(ROOT / "setup.cfg")["options"]["package_data"]
    build = build_py(Distribution({"packages": [], "package_data": patterns}))
    build.finalize_options()
    build.manifest_files = {}  # of version control; a copy that is not committed yet counts, too
    found = {pathlib.Path(name) for name in build.find_data_files("tml_jax.shipped", str(package))}
    assert {file for file in package.rglob("*") if file.is_file()} <= found
