"""The attention kernels compile for TPUs, none of which is here, and hold nothing of the size of all pairs."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install libtpu (in the test extra)"
)


def compile_for(topology: str, what: str, **sizes) -> dict:
    environment = dict(
        os.environ, JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_WORKER_HOSTNAMES="localhost",
        ALLOW_MULTIPLE_LIBTPU_LOAD="1",
    )  # fmt: skip
    command = [sys.executable, str(HERE / "compile_attention.py"), what, topology, json.dumps(sizes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def products(time: int, window: int) -> int:
    """Pairs that see each other × flops of a pair: two products forward and seven backward, 32 heads of 128."""
    pairs = sum(min(at + 1, window) for at in range(time))
    return pairs * 9 * 2 * 128 * 32


def test_the_training_kernels_compile_for_a_tpu_without_a_matrix_of_all_pairs():
    found = compile_for("v5e:2x2", "packed", time=2048, window=2048, extent=512, heads=4, kv_heads=2)
    assert found["kind"] == "TPU v5 lite" and found["kernels"] == 3
    assert found["temporary_bytes"] < 4 * 2048**2


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize(("window", "extent"), [(8192, 1024), (512, 512)])
def test_the_training_kernels_compile_at_full_size(topology, window, extent):
    found = compile_for(topology, "packed", time=8192, window=window, extent=extent)
    assert found["kernels"] == 3 and found["temporary_bytes"] < 32 * 8192**2
    # Tiles at the edge of what is seen are computed whole, and the bias comes on top.
    assert products(8192, window) < found["flops"] < products(8192, window) * (1.3 if window > 512 else 2.9)
