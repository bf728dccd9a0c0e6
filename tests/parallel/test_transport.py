"""Transports and the look-up in a split table give the plain numbers, on simulated devices, forward and backward."""

import functools
import pathlib
import subprocess
import sys

import pytest

WORKER = pathlib.Path(__file__).with_name("transport_worker.py")


@functools.cache
def worker_output() -> str:
    """What the worker prints on eight simulated devices; it runs once for all tests."""
    done = subprocess.run([sys.executable, str(WORKER)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


CASES = [
    *(f"{transport} {axes} exact" for transport in ("ring", "ragged", "capacity") for axes in ("e8", "d2e2t2", "f2e4")),
    "capacity f2e4 kept exact",
    "whole e4t2 exact",
    *(f"{transport} counts what it drops" for transport in ("ring", "ragged", "capacity")),
    "padding takes no room",
    *(f"capacity keeps what fits, {pairs}" for pairs in ("3 of float32", "1 of float32", "3 of bfloat16")),
    *(f"{transport} keeps what fits, 3 of float32" for transport in ("ring", "ragged")),
    *(f"{axes} looks up" for axes in ("d2e2t2", "f2e4")),
]


@pytest.mark.parametrize("case", CASES)
def test_transport(case):
    assert f"ok: {case}" in worker_output().splitlines()
