"""The published figures name what exists, and their tables show what was found."""

import importlib
import os
import pkgutil
import re

import pytest

import configs
from tml_jax.config import from_mapping
from tml_jax.scale.chips import chip_of
from tml_jax.scale.figures import FIGURES, Figure, how_many_fit, tables
from tml_jax.scale.serve import text_steps
from tml_jax.scale.serve_flops import step_flops

MESH = {"data": 1, "fsdp": 1, "expert": 4, "sequence": 1, "tensor": 8}


def commands_in_heads() -> list[tuple[str, str, str]]:
    """(configuration that it stands in, topology, step) of every compilation that a configuration's head names."""
    found = []
    for _, name, _ in pkgutil.iter_modules(configs.__path__):
        head = importlib.import_module(f"configs.{name}").__doc__
        for given, topology, step in re.findall(r"configs/(\w+)\.py --topology=(\S+) --step=(\w+)", head):
            assert given == name
            found.append((name, topology, step))
    return found


COMPILED = sorted({*commands_in_heads(), *((figure.config, figure.topology, figure.step) for figure in FIGURES)})


@pytest.mark.parametrize(("config", "topology", "step"), COMPILED)
def test_whatever_is_compiled_for_chips_has_a_mesh_that_fills_them(config, topology, step):
    config = from_mapping(importlib.import_module(f"configs.{config}").get_config())
    mesh = config.mesh if step == "train" else config.serve.mesh
    rows, columns, *layers = map(int, topology.partition(":")[2].split("x"))
    devices = rows * columns * (layers[0] if layers else 1) * chip_of(topology).devices
    assert mesh.data * mesh.fsdp * mesh.expert * mesh.sequence * mesh.tensor == devices


def test_every_configuration_for_chips_says_what_compiles_it():
    for_chips = {name for name in os.listdir(configs.__path__[0]) if re.search(r"_\d+(_long)?\.py$", name)}
    assert for_chips == {f"{config}.py" for config, _, _ in COMPILED}


def test_tables_show_reports_and_what_failed():
    common = {"topology": "v5p:2x2x1", "hbm_bytes_per_device": 2**31, "hbm_bytes_available": 2**32, "flops": 2e12,
              "analytic_flops": 1.9e12, "optimal_seconds": 0.25, "collective_seconds": 0.01, "sent_bytes": 3e9,
              "memory_seconds": 0.2}  # fmt: skip
    train = {**common, "step": "train", "rows": 8, "remat": "dots", "mfu": 0.42, "untimed_operations": 1151.0,
             "tokens_per_second_per_chip": 12345.6, "micro_turns_per_second_per_chip": 99.0}  # fmt: skip
    serve = {**common, "step": "serve", "config": "b", "sessions": 3, "frames": True, "weights": "int8",
             "share_of_200_ms": 1.25, "steps_of_a_micro_turn": {"input": 1, "text": 2},
             "optimal_seconds_by_part": {"input": 0.1, "text": 0.075}}  # fmt: skip
    said = tables({"a": train, "b": serve, "c": "launch.compile: does not fit"})
    assert (
        "| 8, dots | 2.0 of 4.0 GiB | 0.25 s | 2 / 2 T | 42.0% | 12,346 | 99 | 0.20 s | 3 GB, 0.01 s | 1,151 |" in said
    )
    unknown = {"mfu": None, "tokens_per_second_per_chip": None, "micro_turns_per_second_per_chip": None}
    assert "| 2 / 2 T | – | – | – | 0.20 s |" in tables({"a": train | unknown})
    assert "3 with video" in said and "1 × 100.00, 2 × 75.00" in said and "| 10.0 ms | 125% |" in said
    assert said.endswith("c: launch.compile: does not fit")


def test_sessions_that_fit_lie_on_the_line_through_the_two_largest_counts():
    def served(sessions: int, seconds: float, gib: float, frames: bool = False, config: str = "a") -> dict:
        return {"step": "serve", "config": config, "topology": "v6e:4x4", "sessions": sessions, "frames": frames,
                "optimal_seconds": seconds, "collective_seconds": sessions * 25e-6, "mesh": MESH,
                "hbm_bytes_per_device": gib * 2**30, "hbm_bytes_available": 32 * 2**30}  # fmt: skip

    sound = [served(1, 0.01, 9), served(256, 0.15, 20), served(128, 0.1, 15)]
    video = [served(128, 0.15, 16, frames=True), served(256, 0.27, 24, frames=True)]
    alone = [served(1, 0.01, 9, config="b"), served(64, 0.05, 12, config="b"), {"step": "train", "config": "a"}]
    assert how_many_fit([*sound, *video, *alone]) == [
        # 128 more sessions take 50 ms, and 5 GiB; with video 120 ms, and 8 GiB. As many on each of four devices.
        "a, v6e:4x4, sound: 384 sessions in 200 ms, 360 if no collective is hidden, 560 in memory (extrapolated "
        "from 128 and 256, not compiled)",
        "a, v6e:4x4, sound and video: 180 sessions in 200 ms, 176 if no collective is hidden, 384 in memory "
        "(interpolated from 128 and 256, not compiled)",
    ]
    assert "a, v6e:4x4, sound: 0 sessions in 200 ms" in how_many_fit([served(8, 0.3, 9), served(16, 0.31, 10)])[0]
    assert how_many_fit([served(8, 0.3, 9), served(16, 0.3, 10)]) == []


def test_names_of_figures_are_their_own():
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    assert Figure("x", "v6e:4x4", "serve", 2, True).arguments()[-2:] == ["--sessions=2", "--frames=true"]


@pytest.mark.parametrize(("sessions", "steps"), [(1, 2), (16, 4), (1024, 6)])
def test_text_goes_on_until_the_last_session_has_its_gate(sessions, steps):
    # P(more than 0, 1, 2, 3, 4, 5 tokens) = 0.551, 0.191, 0.047, 0.0091, 0.0014, 0.00018
    assert text_steps(sessions) == steps


def test_one_token_meets_the_chosen_experts_and_its_share_of_the_rest():
    config = from_mapping(importlib.import_module("configs.tml_serve_tpu7x_16").get_config())
    model = config.model
    parts = step_flops(config, MESH, "text", 1, frames=False)
    assert parts["unembedding"] == 2 * model.d_model * model.vocab_size / 8
    expert = 2 * 3 * model.d_model * model.expert_ffn / 8
    assert parts["routed experts"] == pytest.approx(42 * expert * model.top_k / 4)  # six experts over four devices
    many = step_flops(config, MESH, "text", 256, frames=False)
    assert many["routed experts"] == pytest.approx(42 * expert * model.top_k * 256)
    for part in ("attention", "unembedding", "projections"):
        assert many[part] == pytest.approx(parts[part] * 64)  # sessions are split over four devices
    assert "video" in step_flops(config, MESH, "input", 1, frames=True) and "flow" in step_flops(
        config, MESH, "audio", 1, False
    )
