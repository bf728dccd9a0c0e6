"""metrics.jsonl survives kills, and says what a person reads."""

import json

import pytest

from tml_jax.train import metrics


def write(path, steps):
    path.write_text("".join(json.dumps({"step": step, "split": "train", "loss": step / 3}) + "\n" for step in steps))


def test_lines_past_the_restored_step_are_dropped_on_resume(tmp_path):
    with metrics.MetricsWriter(tmp_path, step=0) as writer:
        for step in range(1, 6):
            writer.write(step, metrics.TRAIN, {"loss": step / 3})
        writer.write(4, metrics.HELD_OUT, {"text_loss": 0.1})
    with metrics.MetricsWriter(tmp_path, step=3) as writer:
        writer.write(4, metrics.TRAIN, {"loss": 9.0})
    lines = list(metrics.read(tmp_path / "metrics.jsonl"))
    assert [(line["step"], line["split"], line["loss"]) for line in lines] == [
        (1, "train", 1 / 3), (2, "train", 2 / 3), (3, "train", 1.0), (4, "train", 9.0)
    ]  # fmt: skip


def test_last_line_cut_short_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2])
    whole = path.read_text()
    for cut in ('{"step": 3, "split"', '{"step": 3}'):  # the second is JSON, but its end was never written
        path.write_text(whole + cut)
        metrics.truncate(path, 10)
        assert path.read_text() == whole
    path.write_text(whole[:-1])
    assert [line["step"] for line in metrics.read(path)] == [1]


def test_broken_line_in_the_middle_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(metrics.MetricsError, match=r"metrics.jsonl, line 2 is not JSON"):
        metrics.truncate(path, 10)
    assert path.read_text().startswith('{"step": 1}\nnonsense')


def test_truncation_keeps_numbers_bit_for_bit(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, range(1, 30))
    before = path.read_text()
    metrics.truncate(path, 29)
    assert path.read_text() == before


def test_a_killed_truncation_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    write(path, [1, 2, 3])
    before = path.read_text()

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        metrics.truncate(path, 1)
    assert path.read_text() == before


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path):
    with metrics.MetricsWriter(tmp_path, step=0) as writer:
        writer.write(1, metrics.TRAIN, {"loss": 0.5})
        (line,) = metrics.read(tmp_path / "metrics.jsonl")
    assert line["loss"] == 0.5 and line["split"] == "train" and line["time"] > 1.6e9


def test_numbers_that_json_cannot_say_are_refused(tmp_path):
    with metrics.MetricsWriter(tmp_path, step=0) as writer:
        with pytest.raises(metrics.MetricsError, match="loss.*nan"):
            writer.write(1, metrics.TRAIN, {"loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_tensorboard_gets_training_and_held_out_points(tmp_path):
    with metrics.MetricsWriter(tmp_path, step=0, tensorboard_every=2) as writer:
        for step in (1, 2):
            writer.write(step, metrics.TRAIN, {"loss": 0.5})
        writer.write(2, metrics.HELD_OUT, {"text_loss": 0.25})
    data = b"".join(path.read_bytes() for path in (tmp_path / "tensorboard").iterdir())
    assert data.count(b"train/loss") == 1
    assert data.count(b"held_out/text_loss") == 1


def test_meter_tells_speed_and_the_share_of_time_spent_waiting():
    meter = metrics.Meter()
    assert meter.add(seconds=2.0, waiting=0.5, micro_turns=100) == {
        "micro_turns_per_second": 50.0, "share_waiting": 0.25
    }  # fmt: skip
    meter.add(seconds=2.0, waiting=0.1, micro_turns=60)
    assert meter.rates() == {"micro_turns_per_second": 40.0, "share_waiting": 0.15}


def test_progress_line_shows_loss_parts_speed_waiting_and_time_left():
    meter = metrics.Meter()
    for _ in range(4):
        meter.add(seconds=3.0, waiting=0.3, micro_turns=900)
    values = {"loss": 3.25, "text_loss": 1.5, "gate_loss": 0.25, "flow_loss": 1.5}
    line = metrics.progress_line(40, 240, values, meter)
    for part in ("40/240", "loss 3.2500", "text 1.500", "gate 0.250", "300 micro-turns/s", "10%", "10 min left"):
        assert part in line
    first = metrics.progress_line(1, 240, values, meter, compiling=True)
    assert "12 s with compilation" in first and "left" not in first


@pytest.mark.parametrize("seconds, text", [(44.6, "45 s"), (720, "12 min"), (3 * 3600 + 290, "3 h 05 min")])
def test_durations_read_as_people_say_them(seconds, text):
    assert metrics.duration(seconds) == text
