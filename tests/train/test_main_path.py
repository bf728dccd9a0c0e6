"""The main path as a person walks it: train, evaluate, talk; on noise in place of voices, with nothing replaced."""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from noise_runs import conversation

from launch import talk, train
from tml_jax.config import ConfigError
from tml_jax.data.record import MODEL, Cue, Text
from tml_jax.data.shards import DataError, write_shards
from tml_jax.data.tokenizer import Tokenizer
from tml_jax.eval import replica
from tml_jax.eval.conversation import FILES
from tml_jax.signal.media import write_wav
from tml_jax.train import checkpoint, init_from

CUE_METRICS = ("keyword", "on time", "latency", "take over")
OF_THE_MODEL = ("model", "model, 10% of packets lost", "model, audio muted")  # its lines of the table


def with_cues(name, seed, family):
    plain = conversation(name, seed)
    reply = next(word for word in plain.words if word.speaker == MODEL)
    cues = (Cue("hold", 0.0, 0.4), Cue("respond", reply.start, reply.end, reply.text))
    return dataclasses.replace(plain, cues=cues, family=family)


def without_model_side(name, seed):
    plain = conversation(name, seed)
    words = tuple(word for word in plain.words if word.speaker != MODEL)
    return dataclasses.replace(plain, model_audio=None, words=words)


def over(config, directory, training, held_out, **changes):
    """Writes the data, and gives the configuration of a run of 2 steps over them."""
    write_shards(training, directory / "scenes")
    write_shards(held_out, directory / "held_out")
    brief = dataclasses.replace(config.train, steps=2, warmup_steps=1, checkpoint_every=2, eval_every=2, **changes)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, directory=str(directory)), train=brief)


def rows(table):
    """Markdown → name of the row → its cells by column, of every table in it."""
    found, header = {}, None
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = cells
        elif not cells[0].startswith("---"):
            found[cells[0]] = dict(zip(header[1:], cells[1:]))
    return found


def test_train_evaluate_talk(config, tmp_path, capsys):
    config = over(
        config,
        tmp_path / "data",
        [with_cues(f"scene-{i}", i, "answer") for i in range(8)],
        [with_cues(f"held-{i}", 100 + i, ("answer", "pause")[i % 2]) for i in range(4)],
    )
    run_dir = tmp_path / "run"
    train.run(config, run_dir)
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2] == f"model: {run_dir} (step 2)"

    table = (run_dir / "eval" / "table.md").read_text()
    assert table in printed
    found = rows(table)
    policies = ["always listening", "always speaking", "energy threshold", "majority"]
    assert list(found) == [*OF_THE_MODEL, *policies, "as recorded (ceiling)", "answer", "pause", "all"]
    assert found["model"]["conversations"] == "4" and found["pause"]["conversations"] == "2"
    assert set(CUE_METRICS) <= found["model"].keys()
    assert found["as recorded (ceiling)"]["gate"].startswith("100.0%")
    assert found["as recorded (ceiling)"]["words"].startswith("100.0%")
    results = json.loads((run_dir / "eval" / "results.json").read_text())
    assert results.pop("step") == 2
    assert ("recognised" in results) == ("Recognised by pocketsphinx" in table)
    results.pop("recognised", None)
    assert {kind: list(scores) for kind, scores in results.items()} == {
        "policies": list(found)[:8],
        "families": ["answer", "pause", "all"],
    }
    assert (run_dir / "curves.png").stat().st_size > 0
    for family in ("answer", "pause"):
        assert sorted(path.name for path in (run_dir / "eval" / family).iterdir()) == sorted(FILES)

    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, 16_000)).astype(np.float32)
    write_wav(tmp_path / "question.wav", noise, 16_000)
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(
        checkpoint=str(run_dir), audio=str(tmp_path / "question.wav"), output=str(tmp_path / "answer"), tail=1.0
    ):
        talk.main(["talk"])
    assert sorted(path.name for path in (tmp_path / "answer").iterdir()) == sorted(FILES)
    lines = (tmp_path / "answer" / FILES[1]).read_text().splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(10))


def test_recordings_without_cues_train_and_are_measured_by_gates_and_words(config, tmp_path, capsys):
    config = over(
        config,
        tmp_path / "data",
        [conversation(f"recording-{i}", i) for i in range(8)],
        [conversation(f"held-{i}", 100 + i) for i in range(4)],
    )
    train.run(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2] == f"model: {tmp_path / 'run'} (step 2)"
    assert "the table has no baselines: no training conversation has a `respond` cue" in printed
    assert "the held-out conversations have no cues" in printed
    found = rows((tmp_path / "run" / "eval" / "table.md").read_text())
    assert list(found) == [*OF_THE_MODEL, "as recorded (ceiling)", "recording", "all"]
    assert {"gate", "words"} <= found["model"].keys() and not {*CUE_METRICS} & found["model"].keys()
    assert (tmp_path / "run" / "eval" / "recording" / FILES[0]).exists()
    assert (tmp_path / "run" / "curves.png").exists()


def no_recogniser(*_):
    raise ImportError("recognition needs pocketsphinx, which is not installed")


def test_recordings_of_users_alone_and_no_recogniser_are_no_obstacle(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(replica, "heard_words", no_recogniser)
    config = over(
        config,
        tmp_path / "data",
        [without_model_side(f"recording-{i}", i) for i in range(8)],
        [without_model_side(f"held-{i}", 100 + i) for i in range(4)],
    )
    train.run(config, tmp_path / "run")
    printed = capsys.readouterr().out
    assert "the words of the model's sound are not measured: recognition needs pocketsphinx" in printed
    assert printed.splitlines()[-2] == f"model: {tmp_path / 'run'} (step 2)"
    table = (tmp_path / "run" / "eval" / "table.md").read_text()
    assert "false start" in table and "words" not in rows(table)["model"]


def test_without_held_out_conversations_nothing_is_trained(config, tmp_path):
    config = over(config, tmp_path / "data", [conversation("scene", 0)], [conversation("held", 1)])
    index = tmp_path / "data" / "held_out" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "records": 0, "shards": []}))
    with pytest.raises(DataError, match="held_out: index.json lists 0 ids"):
        train.run(config, tmp_path / "run")


def test_a_run_that_is_refused_for_its_clips_leaves_no_folder(tmp_path):
    changes = {"config.data.clips": tmp_path / "none", "config.data.directory": tmp_path / "data"}
    flags = [f"--{name}={value}" for name, value in {**changes, "run_dir": tmp_path / "run"}.items()]
    command = [sys.executable, "-m", "launch.train", "--config=configs/replica.py", *flags]
    done = subprocess.run(command, cwd=pathlib.Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "none: no such folder" in done.stderr and not list(tmp_path.iterdir())


def test_ctrl_c_while_data_are_made_ends_with_one_line(tmp_path):
    flags_given = f"--config.data.directory={tmp_path / 'data'}", f"--run_dir={tmp_path / 'run'}"
    command = [sys.executable, "-m", "launch.train", "--config=configs/replica.py", *flags_given]
    root = pathlib.Path(__file__).parents[2]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs in the background ignores it
    with subprocess.Popen(
        command, cwd=root, stdout=-1, stderr=-1, text=True, start_new_session=True, preexec_fn=heard
    ) as process:
        try:
            assert process.stdout.readline().startswith("generating ")
            os.killpg(process.pid, signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("launch.train: stopped by Ctrl-C; what was made and saved is kept")
    assert "Traceback" not in said


@pytest.fixture
def source(config, new_run, monkeypatch):
    """A run whose texts are not those of a later one."""
    monkeypatch.setattr(replica, "evaluate", lambda *_: "")  # a test above runs it
    run_dir = new_run("source")
    words = tuple(Text("user", word, 0.1 * i) for i, word in enumerate("zebra quartz zebra quartz".split()))
    data = run_dir.parent / "source_data"
    plain = [conversation(f"scene-{i}", i) for i in range(4)]
    changed = over(config, data, [dataclasses.replace(item, texts=words) for item in plain], plain)
    (run_dir / checkpoint.TOKENIZER).unlink()
    train.run(changed, run_dir)
    return run_dir


def test_a_run_from_another_model_takes_its_tokenizer(config, source, tmp_path, capsys):
    texts = [conversation(f"scene-{i}", i) for i in range(4)]
    started = over(config, tmp_path / "data", texts, texts[:2], init_from=str(source))
    theirs = Tokenizer.load(source / checkpoint.TOKENIZER)
    train.run(started, tmp_path / "run")
    assert Tokenizer.load(tmp_path / "run" / checkpoint.TOKENIZER).fingerprint == theirs.fingerprint
    assert f"taking the tokenizer of {source}, {theirs.size} tokens" in capsys.readouterr().out
    assert len(theirs.encode_words("zebra")) == 1  # so it is not what these texts alone would give

    # Once it has a checkpoint of its own, the run does not look at the other one any more.
    (source / checkpoint.TOKENIZER).rename(source / "gone.json")
    train.run(started, tmp_path / "run")
    assert "resuming" in capsys.readouterr().out


def test_a_tokenizer_that_is_not_that_of_the_weights_is_refused(config, source, tmp_path):
    texts = [conversation(f"scene-{i}", i) for i in range(4)]
    started = over(config, tmp_path / "data", texts, texts[:2])
    train.prepare.ensure_tokenizer(started, tmp_path / "run" / checkpoint.TOKENIZER, log=lambda line: None)
    started = dataclasses.replace(started, train=dataclasses.replace(started.train, init_from=str(source)))
    with pytest.raises(checkpoint.CheckpointError, match="is another tokenizer than .*another run directory"):
        train.run(started, tmp_path / "run")

    fewer = dataclasses.replace(started, model=dataclasses.replace(started.model, text_vocab_size=470))
    with pytest.raises(checkpoint.CheckpointError, match=r"text_vocab_size = 470: .* has 480.*give that"):
        train.run(fewer, tmp_path / "new")
    assert not (tmp_path / "new" / checkpoint.TOKENIZER).exists()

    # Tables of another size are not loaded, so they tie the new run to no tokenizer.
    larger = dataclasses.replace(started.model, vocab_size=600, text_vocab_size=560)
    assert "nor is its tokenizer" in init_from.adopt_files(source, tmp_path / "new", larger)

    (source / checkpoint.TOKENIZER).unlink()
    with pytest.raises(checkpoint.CheckpointError, match="train.init_from: .*tokenizer.json: no tokenizer file there"):
        train.run(started, tmp_path / "new")


def test_another_model_in_a_run_is_refused_before_data_are_made(config, tmp_path, monkeypatch):
    checkpoint.write_config(tmp_path / "run", config)
    monkeypatch.setattr(checkpoint, "saved_steps", lambda folder: [1])
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, norm_eps=1e-3))
    other = dataclasses.replace(other, data=dataclasses.replace(config.data, directory=str(tmp_path / "data")))
    with pytest.raises(ConfigError, match="config.model.norm_eps = 0.001: .* was started with"):
        train.run(other, tmp_path / "run")
    assert not (tmp_path / "data").exists()
