"""Many processes train one run: each loads its rows, losses are those of one process, who can go on with it."""

import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from small import PACKING

from configs import tiny
from tml_jax.config import Config, MeshConfig, from_mapping
from tml_jax.data import pipeline, prepare
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.train import checkpoint, goodput, metrics

WORKER = pathlib.Path(__file__).with_name("hosts_worker.py")
# Compiled without optimisation: these programs run for a few steps.
QUICK = "--xla_backend_optimization_level=0"


@pytest.fixture(scope="module")
def config(data) -> Config:
    """A smaller model over the data of these tests, its experts split over two devices."""
    config = from_mapping(tiny.get_config())
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, num_layers=2, d_model=32, vision_stages=((2, 40, 40, 32),)),
        data=dataclasses.replace(config.data, directory=str(data), generate={}, packing=PACKING),
        train=dataclasses.replace(
            config.train, steps=4, warmup_steps=1, checkpoint_every=2, eval_every=4, eval_batches=1, log_every=1
        ),
        mesh=MeshConfig(expert=2),
    )


def new_run(folder: pathlib.Path, config: Config) -> pathlib.Path:
    checkpoint.write_config(folder, config)
    prepare.ensure_tokenizer(config, folder / checkpoint.TOKENIZER, log=lambda line: None)
    return folder


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return taken.getsockname()[1]


def start(compiled, devices: int, *arguments: str) -> subprocess.Popen:
    environment = dict(
        os.environ,
        JAX_COMPILATION_CACHE_DIR=str(compiled),
        PYTHONPATH=str(ROOT),
        XLA_FLAGS=f"{QUICK} --xla_force_host_platform_device_count={devices}",
    )
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def swapped(compiled, config, tmp_path_factory):
    """Runs `one` of one process and `two` of two, which then go on with each other's; and what each process said."""
    folder = tmp_path_factory.mktemp("hosts")
    one, two = (str(new_run(folder / name, config)) for name in ("one", "two"))
    coordinator = f"localhost:{free_port()}"
    begin = lambda devices, **facts: start(  # noqa: E731
        compiled, devices, str(WORKER), json.dumps({"coordinator": coordinator, **facts})
    )
    processes = [
        begin(2, processes=1, process=0, own=one, other=two),
        begin(1, processes=2, process=0, own=two, other=one),
        begin(1, processes=2, process=1, own=two, other=one),
    ]
    try:
        said = [process.communicate(timeout=280) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors for _, errors in said)
    return folder, [output for output, _ in said]


def figures(run_dir: pathlib.Path) -> tuple[list, np.ndarray]:
    lines = list(metrics.read(run_dir / metrics.METRICS))
    names = ("loss", "text_loss", "gate_loss", "flow_loss")
    return [(line["step"], line["split"]) for line in lines], np.array(
        [[line[name] for name in names] for line in lines]
    )


def test_each_process_loads_its_rows_and_together_they_are_the_batch(swapped, config):
    folder, _ = swapped
    parts = [json.loads((folder / f"two.loaded_{process}.json").read_text()) for process in range(2)]
    assert [part["rows"] for part in parts] == [[0], [1]]
    data = pipeline.open_training_data(config, Tokenizer.load(folder / "one" / checkpoint.TOKENIZER))
    for step in range(3):
        assert parts[0]["records"][step] + parts[1]["records"][step] == data.batch_at(step).record.tolist()


@pytest.mark.parametrize("run", ["two", "one.taken", "two.taken"])
def test_losses_are_those_of_one_process_whoever_began_and_whoever_went_on(swapped, run):
    folder, _ = swapped
    (steps, losses), (expected_steps, expected) = figures(folder / run), figures(folder / "one")
    assert steps == expected_steps and len(steps) == 5
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


def test_all_processes_write_the_checkpoint_and_the_first_alone_the_rest(swapped):
    folder, (one, first, second) = swapped
    parts = {path.name for path in (folder / "two" / "checkpoints" / "4" / "model").glob("ocdbt.process_*")}
    assert parts == {"ocdbt.process_0", "ocdbt.process_1"}
    assert all("went on from step 2" in output for output in (one, first, second))
    told = [line for line in second.splitlines() if not line.startswith(("[Gloo]", "went on"))]
    assert told == [] and "step 4/4" in first
    assert goodput.summarise(folder / "two.taken").attempts == 2
