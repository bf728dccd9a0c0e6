"""Many processes train one run: each loads its rows, losses are those of one process, who can go on with it."""

import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from concurrent import futures

import numpy as np
import pytest
from noise_runs import ROOT, SHALLOW
from small import PACKING

from configs import tiny
from launch.distributed import START_AGAIN
from tml_jax.config import Config, MeshConfig, from_mapping
from tml_jax.data import pipeline
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.parallel.mesh import make_mesh
from tml_jax.train import checkpoint, goodput, metrics, prepare
from tml_jax.train.hosts import local_rows

WORKER = pathlib.Path(__file__).with_name("hosts_worker.py")


@pytest.fixture(scope="module")
def config(data) -> Config:
    """A smaller model over the data of these tests, its experts split over two devices."""
    config = from_mapping(tiny.get_config())
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **SHALLOW),
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


def start(devices: int, *arguments: str) -> subprocess.Popen:
    environment = dict(
        os.environ,
        PYTHONPATH=str(ROOT),
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
    )
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def swap(config: Config, folder: pathlib.Path, many: str, count: int, timeout: float, devices: int = 1) -> list[str]:
    """Runs `one` of one process and `many` of `count`, of so many devices each, which then go on with each other's.

    Returns:
      What each process said.
    """
    one, other = (str(new_run(folder / name, config)) for name in ("one", many))
    coordinator = f"localhost:{free_port()}"
    begin = lambda devices, **facts: start(  # noqa: E731
        devices, str(WORKER), json.dumps({"coordinator": coordinator, **facts})
    )
    processes = [begin(count * devices, processes=1, process=0, own=one, other=other)]
    processes += [begin(devices, processes=count, process=number, own=other, other=one) for number in range(count)]
    with futures.ThreadPoolExecutor(len(processes)) as readers:
        said = [readers.submit(process.communicate) for process in processes]
        deadline = time.monotonic() + timeout
        while not all(each.done() for each in said) and time.monotonic() < deadline:
            if any(process.returncode for process in processes):  # the others would wait for it for long
                break
            time.sleep(0.2)
        for process in processes:
            process.kill()
    assert not any(process.returncode for process in processes), "\n".join(each.result()[1] for each in said)
    return [each.result()[0] for each in said]


@pytest.fixture(scope="module")
def swapped(config, tmp_path_factory):
    """Runs of one process and of two, see `swap`."""
    folder = tmp_path_factory.mktemp("hosts")
    return folder, swap(config, folder, "two", 2, timeout=280)


class Device:
    """Stands for a device of a host; a mesh asks no more of it."""

    platform = "cpu"

    def __init__(self, number: int, host: int) -> None:
        self.id, self.process_index = number, host


@pytest.mark.parametrize(
    ("axes", "hosts", "rows"),
    [
        ({"data": 4}, [0, 0, 1, 1], [(0, 1, 2, 3), (4, 5, 6, 7)]),
        ({"data": 2, "expert": 2}, [0, 1, 0, 1], [(0, 1, 4, 5), (2, 3, 6, 7)]),  # a host has a column of a torus
        ({"data": 1, "tensor": 4}, [0, 0, 1, 1], [tuple(range(8))] * 2),  # both need all
        ({"data": 2, "tensor": 2}, [0, 1, 2, 3], [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2),
        ({"data": 2, "sequence": 2}, [0, 1, 2, 3], [(0, 1, 2, 3)] * 2 + [(4, 5, 6, 7)] * 2),  # whole rows, of which
        # each puts its part on its device
    ],
)
def test_a_host_builds_the_rows_that_its_devices_hold(axes, hosts, rows):
    mesh = make_mesh(MeshConfig(**axes), [Device(number, host) for number, host in enumerate(hosts)])
    assert [local_rows(mesh, 8, host) for host in range(len(rows))] == rows


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


def check_losses(run: pathlib.Path, expected_run: pathlib.Path) -> None:
    (steps, losses), (expected_steps, expected) = figures(run), figures(expected_run)
    assert steps == expected_steps and len(steps) == 5
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


@pytest.mark.parametrize("run", ["two", "one.taken", "two.taken"])
def test_losses_are_those_of_one_process_whoever_began_and_whoever_went_on(swapped, run):
    folder, _ = swapped
    check_losses(folder / run, folder / "one")


def test_all_processes_write_the_checkpoint_and_the_first_alone_the_rest(swapped):
    folder, (one, first, second) = swapped
    parts = {path.name for path in (folder / "two" / "checkpoints" / "4" / "model").glob("ocdbt.process_*")}
    assert parts == {"ocdbt.process_0", "ocdbt.process_1"}
    assert all("went on from step 2" in output for output in (one, first, second))
    told = [line for line in second.splitlines() if not line.startswith(("[Gloo]", "went on"))]
    assert told == [] and "step 4/4" in first
    assert goodput.summarise(folder / "two.taken").attempts == 2


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "sequence"), [(2, 2), (2, 4), (4, 4)])
def test_rows_cut_over_processes_give_the_losses_of_one(config, tmp_path, processes, sequence):
    """Four devices. Cut by four, every process has a part of every row; by two, rows of its own on its two devices."""
    config = dataclasses.replace(config, mesh=MeshConfig(data=4 // sequence, sequence=sequence))
    said = swap(config, tmp_path, "many", processes, timeout=1200, devices=4 // processes)
    assert all("went on from step 2" in output for output in said)
    for run in ("many", "one.taken", "many.taken"):
        check_losses(tmp_path / run, tmp_path / "one")


def launched(config: Config, run_dir: pathlib.Path, steps: int) -> list[subprocess.Popen]:
    """Two processes of launch.train on a model of one size, which see the data of these tests."""
    coordinator = f"--coordinator=localhost:{free_port()}"
    flags = ["-m", "launch.train", "--config=configs/tiny.py", f"--run_dir={run_dir}", "--config.mesh.expert=2",
             f"--config.data.directory={config.data.directory}", f"--config.train.steps={steps}",
             "--config.train.checkpoint_every=5", "--config.train.eval_every=1000", "--config.train.log_every=1",
             "--heartbeat_timeout=10", "--num_processes=2", coordinator]  # fmt: skip
    return [start(1, *flags, f"--process_id={process}") for process in range(2)]


def steps_done(run_dir: pathlib.Path) -> list[int]:
    path = run_dir / metrics.METRICS
    return [line["step"] for line in metrics.read(path) if line["split"] == "train"] if path.exists() else []


def wait_for_step(run_dir: pathlib.Path, step: int, processes: list[subprocess.Popen]) -> None:
    deadline = time.monotonic() + 240
    while step not in steps_done(run_dir):
        assert time.monotonic() < deadline and all(process.poll() is None for process in processes)
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "how"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (1, signal.SIGSTOP)])
def test_a_lost_process_ends_the_other_and_both_go_on_from_the_last_checkpoint(config, tmp_path, killed, how):
    """Killed, or only silent, as a host is whose network is gone."""
    run_dir = tmp_path / "run"
    processes = launched(config, run_dir, steps=10_000)
    try:
        wait_for_step(run_dir, 7, processes)
        processes[killed].send_signal(how)
        began = time.monotonic()
        _, said = processes[1 - killed].communicate(timeout=60)
        assert time.monotonic() - began < 40
        print(f"the other, after {time.monotonic() - began:.1f} s: {said}")
        assert processes[1 - killed].returncode in (START_AGAIN, -signal.SIGABRT)
        # Where the coordinator notices first, JAX ends the process; else the launcher does.
        assert "start all of them again" in said or "another task died" in said
        processes[killed].kill()
        reached = steps_done(run_dir)[-1]
        saved = max(step for step in checkpoint.saved_steps(run_dir))
        assert saved >= 5

        # Started again they go on, and a SIGTERM to one of them stops both after the same step.
        processes = launched(config, run_dir, steps=10_000)
        wait_for_step(run_dir, max(reached, saved) + 3, processes)
        processes[killed].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [START_AGAIN, START_AGAIN], said
        assert f"resuming {run_dir} from step {saved}" in said[0][0]
        stopped = checkpoint.saved_steps(run_dir)[-1]
        assert f"stopped by a signal after step {stopped}; checkpoint saved" in said[0][0]
        assert steps_done(run_dir) == list(range(1, stopped + 1))
        account = goodput.summarise(run_dir)
        assert account.attempts == 2 and account.seconds[goodput.STOPPED] > 0
    finally:
        for process in processes:
            process.kill()
