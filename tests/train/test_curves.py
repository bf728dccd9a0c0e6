"""A run's picture is drawn from its metrics, whatever of them there is."""

import json

import numpy as np
import pytest
from PIL import Image

from tml_jax.train.curves import draw_curves
from tml_jax.train.metrics import MetricsError


def run(folder, lines):
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def steps(count: int, load: float) -> list[dict]:
    return [{"step": n, "split": "train", "text_loss": 1 / n, "expert_load_max": load} for n in range(1, count + 1)]


def test_what_the_picture_shows_follows_the_metrics(tmp_path):
    pictures = []
    for name, load in (("even", 1.1), ("uneven", 4.0)):
        (tmp_path / name).mkdir()
        held_out = [{"step": 60, "split": "held_out", "text_loss": 0.5}]
        path = draw_curves(run(tmp_path / name, steps(120, load) + held_out))
        pictures.append(np.asarray(Image.open(path).convert("L")))
    assert path == tmp_path / "uneven" / "curves.png" and pictures[0].shape == pictures[1].shape
    assert np.mean(pictures[0] != pictures[1]) > 0.0005  # another load, another picture


def test_what_is_no_metrics_is_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("not json\n{}\n")
    with pytest.raises(MetricsError):
        draw_curves(tmp_path)


def test_a_run_without_steps_has_no_picture(tmp_path):
    assert draw_curves(run(tmp_path, [])) is None
