"""The training loop: whatever stops a run, going on gives the run that was never stopped."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from noise_runs import conversation

from tml_jax.config import ConfigError
from tml_jax.data.shards import write_shards
from tml_jax.data.tokenizer import train_tokenizer
from tml_jax.train import checkpoint, goodput, loop, metrics


def lines(run_dir):
    """metrics.jsonl without what depends on the machine's speed."""
    found = metrics.read(run_dir / metrics.METRICS)
    return [{name: value for name, value in line.items() if name not in metrics.TIMING} for line in found]


def silent(line):
    pass


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output


def wait_for(condition, process):
    deadline = time.monotonic() + 240
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the training process does not get on"
        time.sleep(0.002)


def kill(process):
    process.kill()
    process.communicate()


def with_train(config, **changes):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **changes))


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """Runs in this process share their compiled functions, which these two fields do not enter."""
    original = loop.make_train

    def cached(config, mesh):
        key = repr(with_train(config, init_from="", checkpoint_every=1))
        if key not in COMPILED:
            COMPILED[key] = original(config, mesh)
        return COMPILED[key]

    monkeypatch.setattr(loop, "make_train", cached)


COMPILED = {}


@pytest.fixture(scope="module")
def module_tmp(tmp_path_factory):
    return tmp_path_factory.mktemp("loop")


@pytest.fixture
def uninterrupted(module_tmp, config, new_run):
    """A run of 12 steps that nothing disturbed, of which two were profiled; made once."""
    run_dir = module_tmp / "uninterrupted"
    if not run_dir.exists():
        made = new_run("uninterrupted")
        loop.train(config, made, log=silent, profile=range(2, 4))
        shutil.move(made, run_dir)
    return run_dir


def test_run_leaves_metrics_of_every_step_and_the_last_checkpoints(uninterrupted):
    found = lines(uninterrupted)
    assert [line["step"] for line in found if line["split"] == "train"] == list(range(1, 13))
    assert [line["step"] for line in found if line["split"] == "held_out"] == [6, 12]
    assert {"loss", "text_loss", "gate_loss", "flow_loss", "grad_norm", "micro_turns"} <= found[0].keys()
    held_out = [line for line in found if line["split"] == "held_out"]
    assert {"loss", "text_loss", "gate_loss", "flow_loss", "gate_accuracy"} <= held_out[0].keys()
    timed = next(metrics.read(uninterrupted / metrics.METRICS))
    assert timed["micro_turns_per_second"] > 0 and 0 <= timed["share_waiting"] <= 1
    with checkpoint.Checkpoints(uninterrupted, keep=2) as checkpoints:
        assert checkpoints.steps == [8, 12]


def test_killed_at_a_random_moment_resumes_to_the_same_metrics_bit_for_bit(
    config, uninterrupted, new_run, start_process
):
    run_dir = new_run("killed")
    moments = random.Random(time.time_ns())
    wanted, pause = moments.randint(1, 11), moments.uniform(0, 0.3)
    process = start_process(run_dir)
    wait_for(lambda: (run_dir / metrics.METRICS).exists() and reached(run_dir) >= wanted, process)
    time.sleep(pause)
    kill(process)
    report = loop.train(config, run_dir, log=silent)
    assert report.resumed_from in (0, 4, 8, 12)
    assert lines(run_dir) == lines(uninterrupted), f"killed {pause:.3f} s after step {wanted}"


def reached(run_dir):
    return max((line["step"] for line in lines(run_dir)), default=0)


def test_killed_during_a_checkpoint_write_resumes_from_the_one_before(config, uninterrupted, new_run, start_process):
    half_written, attempt = False, 0
    while not half_written:  # the write takes some hundredths of a second, so the kill may come too late
        attempt += 1
        assert attempt <= 5, "no checkpoint write was caught in the act"
        run_dir = new_run(f"killed_while_writing_{attempt}")
        folder = run_dir / "checkpoints"
        process = start_process(run_dir)
        wait_for(lambda: list(folder.glob("8.*tmp*")), process)  # noqa: B023
        kill(process)
        half_written = bool(list(folder.glob("8.*tmp*"))) and not (folder / "8").exists()
    report = loop.train(config, run_dir, log=silent)
    assert report.resumed_from == 4
    assert lines(run_dir) == lines(uninterrupted)
    assert sorted(path.name for path in folder.iterdir()) == ["12", "8"]


def test_sigterm_saves_a_checkpoint_and_leaves_with_success(config, uninterrupted, new_run, start_process):
    run_dir = new_run("terminated")
    process = start_process(run_dir)
    wait_for(lambda: (run_dir / metrics.METRICS).exists() and reached(run_dir) >= 1, process)
    process.terminate()
    output = finish(process)
    saved = max(int(path.name) for path in (run_dir / "checkpoints").iterdir())
    assert f"stopped by a signal after step {saved}" in output
    assert 1 <= saved < 12 and reached(run_dir) == saved
    report = loop.train(config, run_dir, log=silent)
    assert report.resumed_from == saved
    assert lines(run_dir) == lines(uninterrupted)


def test_signals_act_as_before_once_training_is_over(uninterrupted, config, tmp_path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    loop.train(config, shutil.copytree(uninterrupted, tmp_path / "copy"), log=silent)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_non_finite_loss_stops_with_records_step_and_the_intact_checkpoint(config, uninterrupted, new_run, monkeypatch):
    """The batch of step 4, after which a checkpoint is due, holds a NaN."""
    make_train, poisoned = loop.make_train, []

    def with_nan(config, mesh):
        setup = make_train(config, mesh)
        batches = iter(range(1, 100))

        def put_batch(batch):
            if batch.audio_out.shape[0] and next(batches) == 4:
                poisoned.append(batch.record)
                batch = batch.replace(audio_out=np.full_like(batch.audio_out, np.nan))
            return setup.put_batch(batch)

        return dataclasses.replace(setup, put_batch=put_batch)

    monkeypatch.setattr(loop, "make_train", with_nan)
    run_dir = new_run("bad_step")
    match = r"step 4 is not finite .*loss = nan.* was not saved, the checkpoint of step 2 is intact"
    with pytest.raises(loop.NonFiniteError, match=match) as error:
        loop.train(with_train(config, checkpoint_every=2), run_dir, log=silent)
    (records,) = poisoned
    for number in records[records >= 0]:
        assert f"scenes/{number} (scene-{number})" in str(error.value)
    assert [path.name for path in (run_dir / "checkpoints").iterdir()] == ["2"]
    assert lines(run_dir) == lines(uninterrupted)[:3]

    monkeypatch.setattr(loop, "make_train", make_train)  # with good data, the run goes on as if nothing had been
    loop.train(with_train(config, checkpoint_every=2), run_dir, log=silent)
    assert lines(run_dir) == lines(uninterrupted)


def test_non_finite_held_out_loss_is_not_saved_either(config, new_run, monkeypatch):
    monkeypatch.setattr(loop, "mean_metrics", lambda sums, config: {"loss": float("inf")})
    run_dir = new_run("bad_evaluation")
    with pytest.raises(loop.NonFiniteError, match="step 6: on the held-out.*checkpoint of step 3 is intact"):
        loop.train(with_train(config, checkpoint_every=3), run_dir, log=silent)


def test_profile_holds_the_steps_by_number_and_the_parts_of_the_model_by_name(uninterrupted):
    (trace,) = (uninterrupted / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    held = trace.read_bytes()
    # Which names there are, test_step.py tests: these come from the compiler's cache, which may be older than they.
    assert b"step_num" in held and b"text_loss" in held and b"InteractionModel" in held


def test_finished_run_is_left_as_it_is(config, uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    before = lines(run_dir)
    report = loop.train(config, run_dir, log=silent)
    assert (report.step, report.resumed_from, report.interrupted) == (12, 12, False)
    assert lines(run_dir) == before


def test_other_model_or_data_is_refused_by_name(config, uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, dense_ffn=256))
    with pytest.raises(ConfigError, match=r"config.model.dense_ffn = 256.*started with 128"):
        loop.train(wider, run_dir, log=silent)
    reseeded = dataclasses.replace(config, data=dataclasses.replace(config.data, seed=7))
    with pytest.raises(ConfigError, match="config.data.seed = 7"):
        loop.train(reseeded, run_dir, log=silent)
    assert checkpoint.read_config(run_dir) == config


def test_other_seed_or_layout_is_refused_by_name(config, uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    with pytest.raises(ConfigError, match=r"config.train.seed = 5: .* was started with 0; give that"):
        loop.train(with_train(config, seed=5), run_dir, log=silent)
    wordier = dataclasses.replace(config, serve=dataclasses.replace(config.serve, max_text_in=9))
    with pytest.raises(ConfigError, match=r"config.serve.max_text_in = 9: .* was started with 8"):
        loop.train(wordier, run_dir, log=silent)
    # Training on with another rate, for longer talks, is what a person may want.
    longer = dataclasses.replace(config, serve=dataclasses.replace(config.serve, context=600))
    assert loop.train(with_train(longer, learning_rate=1e-3), run_dir, log=silent).resumed_from == 12


def test_changed_records_are_noticed_on_resume(config, uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    shutil.copytree(f"{config.data.directory}/held_out", tmp_path / "other" / "held_out")
    write_shards((conversation(f"else-{i}", i) for i in range(24)), tmp_path / "other" / "scenes")
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, directory=str(tmp_path / "other")))
    with pytest.raises(checkpoint.CheckpointError, match="the data of .* changed"):
        loop.train(moved, run_dir, log=silent)


def test_changed_tokenizer_is_noticed_on_resume(config, uninterrupted, tmp_path):
    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    train_tokenizer(["quite other words"] * 3, 300).save(run_dir / checkpoint.TOKENIZER)
    with pytest.raises(checkpoint.CheckpointError, match="the tokenizer of .* changed"):
        loop.train(config, run_dir, log=silent)


def test_init_from_starts_a_new_run_with_the_weights_and_says_what_it_loaded(config, uninterrupted, new_run):
    said = []
    run_dir = new_run("continued")
    report = loop.train(with_train(config, init_from=str(uninterrupted)), run_dir, log=said.append)
    assert report.resumed_from == 0 and report.step == 12
    arrays = len(jax.tree.leaves((report.state.params, report.state.balance)))
    assert f"starting from {uninterrupted}: loaded {arrays} arrays, 0 stay fresh, 0 unused" in said
    assert lines(run_dir)[0]["loss"] < lines(uninterrupted)[0]["loss"]


def test_init_from_refuses_a_run_with_another_tokenizer(config, uninterrupted, new_run):
    run_dir = new_run("other_words")
    train_tokenizer(["quite other words"] * 3, 300).save(run_dir / checkpoint.TOKENIZER)
    with pytest.raises(checkpoint.CheckpointError, match="another tokenizer than .*another run directory"):
        loop.train(with_train(config, init_from=str(uninterrupted)), run_dir, log=silent)


def children(process):
    lists = pathlib.Path(f"/proc/{process.pid}/task").glob("*/children")  # of every thread: grain's own starts workers
    return [int(pid) for path in lists for pid in path.read_text().split()]


def runs(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path("/proc/self/task").exists(), reason="lists processes as Linux does")
def test_workers_of_a_killed_run_end(config, new_run, start_process):
    run_dir = new_run("killed_with_worker")
    checkpoint.write_config(run_dir, dataclasses.replace(config, data=dataclasses.replace(config.data, workers=1)))
    process = start_process(run_dir, '{"steps": 100000, "checkpoint_every": 100000, "eval_every": 100000}')
    wait_for(lambda: (run_dir / metrics.METRICS).exists() and reached(run_dir) >= 1, process)
    workers = children(process)
    assert workers
    process.kill()
    process.wait()  # `communicate` would wait for the workers too, who hold the other end of its pipes
    try:
        deadline = time.monotonic() + 20
        while any(map(runs, workers)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(runs, workers)), "workers outlive the training process"
    finally:
        for pid in filter(runs, workers):
            os.kill(pid, signal.SIGKILL)
        process.communicate()


def test_account_of_time_holds_a_whole_run_and_what_a_restart_does_again(config, uninterrupted, tmp_path):
    whole = goodput.summarise(uninterrupted)
    assert whole.attempts == 1 and 0 < whole.goodput < 1
    spent = (goodput.STEP, goodput.STARTUP, goodput.COMPILATION, goodput.EVALUATION, goodput.CHECKPOINT)
    assert all(whole.seconds[cause] > 0 for cause in spent)
    shown = [line["goodput"] for line in metrics.read(uninterrupted / metrics.METRICS) if line["split"] == "train"]
    assert len(shown) == 12 and all(0 <= share < 1 for share in shown)

    run_dir = shutil.copytree(uninterrupted, tmp_path / "copy")
    shutil.rmtree(run_dir / "checkpoints" / "12")
    said = []
    loop.train(config, run_dir, log=said.append)
    both = goodput.summarise(run_dir)
    assert both.attempts == 2 and str(both) in said
    assert both.seconds[goodput.REPEATED] > 0 and both.seconds[goodput.RESTORE] > 0
    assert both.seconds[goodput.STOPPED] == 0  # the first attempt had finished


def test_config_of_the_run_is_beside_its_checkpoints(config, uninterrupted):
    assert checkpoint.read_config(uninterrupted) == config
    assert json.loads((uninterrupted / "config.json").read_text())["name"] == "tiny"
