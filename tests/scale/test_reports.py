"""Figures follow from what the compiler says; the search takes the fastest; an abort of the compiler is one failure."""

import dataclasses
import json
import signal
import stat
import sys

import jax
import pytest
from small import small_config

from launch.child import compile_apart, read, why
from tml_jax.config import REMAT, Config
from tml_jax.scale import train
from tml_jax.scale.chips import Chip
from tml_jax.scale.flops import train_flops
from tml_jax.scale.programs import Cost, Figures, Memory
from tml_jax.scale.report import ROWS_PER_DEVICE, lines, search

TWO_A_CHIP = Chip("two", flops=1e12, hbm_bytes=2**30, hbm_rate=1e9, ici_rate=1e8, sides=2, most=4, devices=2)


def report_of(monkeypatch: pytest.MonkeyPatch, config: Config, of_counted: float, accessed: float = 4e8) -> dict:
    """`train_report`, of a compiler that finds so many of the operations counted by hand in a microbatch, in 0.5 s."""
    counted = sum(train_flops(config, 1).program.values())
    cost = Cost(of_counted * counted, 0.5, accessed, 3.0, {"all-gather": 7e6}, 4e7)
    monkeypatch.setattr(train, "measure", lambda *_: Figures(Memory(1, 2, 3, 4), {"rest": (1, cost)}, 5.0))
    return train.train_report(config, jax.devices()[:1], TWO_A_CHIP, print)


@pytest.mark.parametrize(
    ("of_counted", "agrees"), [(1.0, True), (1.09, True), (0.91, True), (1.11, False), (0.89, False)]
)
def test_utilisation_is_given_where_both_counts_agree(monkeypatch, of_counted, agrees):
    config = small_config()
    report = report_of(monkeypatch, config, of_counted)
    useful = sum(train_flops(config, 1).useful.values())
    assert report["mfu"] == (pytest.approx(useful / 0.5 / 1e12) if agrees else None)
    assert agrees != ("no_mfu" in report) and report["tokens_per_second_per_chip"] > 0
    assert agrees or f"{of_counted - 1:+.0%} off those counted by hand" in report["no_mfu"]


def test_no_utilisation_is_given_where_the_time_lacks_what_has_bytes(monkeypatch):
    report = report_of(monkeypatch, small_config(), 1.0, accessed=0.6e9)
    rates = [report[f"{what}_per_second_per_chip"] for what in ("tokens", "micro_turns")]
    assert [report["mfu"], *rates] == [None] * 3 and "3 operations have no time" in report["no_mfu"]
    assert "mfu = none" in lines(report)


def test_rates_are_those_of_a_chip_and_times_those_of_its_parts(monkeypatch):
    config = small_config()
    report = report_of(monkeypatch, config, 1.0)
    elements = config.data.batch_size * config.data.packing.elements
    assert report["tokens_per_second_per_chip"] == pytest.approx(elements / 0.5 * 2)
    micro_turns = config.data.batch_size * config.data.packing.audio_in / 4
    assert report["micro_turns_per_second_per_chip"] == pytest.approx(micro_turns / 0.5 * 2)
    assert (report["collective_seconds"], report["memory_seconds"]) == (0.4, 0.4)
    assert report["hbm_bytes_per_device"] == 10 and report["untimed_operations"] == 3


def test_microbatches_cost_so_many_times_one(monkeypatch):
    config = small_config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=4),
        train=dataclasses.replace(config.train, accumulate=2),
    )
    report = report_of(monkeypatch, config, 0.5)
    assert report["optimal_seconds"] == 1.0 and report["mfu"] is not None
    assert report["optimal_seconds_of_each"] == {"rest": 1.0} and not report["layers"]
    assert report["collective_seconds"] == 0.8
    assert report["tokens_per_second_per_chip"] == pytest.approx(4 * config.data.packing.elements / 1.0 * 2)


def test_the_search_takes_the_fastest_and_tells_of_those_that_failed():
    def attempt(config: Config) -> dict | str:
        if config.train.remat == "kept":
            return "the compiler was ended by SIGABRT"
        rows = config.data.batch_size
        seconds = {"none": 0.1, "dots": 1.0, "block": 2.0}[config.train.remat] * rows * (0.9 if rows == 8 else 1.0)
        found = {"useful_flops": 1e12 * rows, "optimal_seconds": seconds, "mfu": 0.1, "hbm_bytes_per_device": 1,
                 "memory_seconds": 0.5, "rows": rows, "remat": config.train.remat}  # fmt: skip
        if config.train.remat == "none":  # would be the fastest, but that its time lacks what has most of the bytes
            found |= {"optimal_seconds": 0.1, "memory_seconds": 9.0 * rows, "mfu": None, "no_mfu": "no time for it"}
        return found

    told = []
    config = small_config()
    config = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, tensor=2))
    best = search(config, 8, attempt, told.append)
    assert (best["rows"], best["remat"]) == (8, "dots")  # two for each of the four groups of devices
    assert len(best["searched"]) == len(told) == len(ROWS_PER_DEVICE) * len(REMAT)
    assert sum("no utilisation: no time for it" in line for line in told) == len(ROWS_PER_DEVICE)
    assert {"rows_per_device": 1, "remat": "kept", "failed": "the compiler was ended by SIGABRT"} in best["searched"]
    with pytest.raises(ValueError, match="none of 12 settings .* the last: too large"):
        search(config, 8, lambda _: "too large", told.append)


def test_an_abort_is_told_by_its_signal_and_the_failed_check():
    told = (
        "F1127 00:45:22 18885 fusion_util.cc:5409] Check failed: a == 0 split\n*** Aborted\n\nExtension modules: numpy"
    )
    assert why(-signal.SIGABRT, told) == "the compiler was ended by SIGABRT: Check failed: a == 0 split"
    assert why(-signal.SIGKILL, "") == "the compiler was ended by SIGKILL: nothing is known but that"
    assert why(1, "a\nlaunch.compile: does not fit\n") == "launch.compile: does not fit"


def test_what_a_compiler_leaves_is_removed_when_it_aborts(monkeypatch, tmp_path):
    script = tmp_path / "python"
    seen = tmp_path / "seen"
    script.write_text(
        f'#!/bin/sh\necho "$TMPDIR" > {seen}\ntouch "$TMPDIR/dump"\necho "Check failed: x" >&2\nkill -ABRT $$\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))
    assert compile_apart([], tmp_path / "report.json") == "the compiler was ended by SIGABRT: Check failed: x"
    folder = seen.read_text().strip()
    assert folder and not (tmp_path / folder).exists()


def test_figures_that_cannot_be_read_are_named(tmp_path):
    path = tmp_path / "figure.json"
    assert "cannot be read" in read(path) and "cannot be read" in read(tmp_path)
    path.write_text("{")
    assert "delete it and start again" in read(path)
    path.write_text('{"step": "serve"}')
    assert "of an earlier version" in read(path)
    path.write_text(json.dumps(whole := {"collective_seconds": 1.0, "memory_seconds": 1.0}))
    assert read(path) == whole
