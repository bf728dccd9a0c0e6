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
        ALLOW_MULTIPLE_LIBTPU_LOAD="1", JAX_ENABLE_COMPILATION_CACHE="false", JAX_DISABLE_MOST_OPTIMIZATIONS="0",
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


@pytest.mark.parametrize("window", [4096, 256, 2000])
def test_the_training_kernels_compile_for_rows_cut_into_stripes(window):
    """Everything gathered, the tail of a neighbour, and more than that: the same kernels, and no pairs in memory."""
    found = compile_for("v5e:2x2", "striped", time=4096, window=window, extent=256, heads=4, kv_heads=2)
    assert found["kernels"] == 3
    assert found["temporary_bytes"] < 4 * 1024 * 4096 * 2


def test_the_streaming_kernel_compiles_for_a_tpu_without_a_matrix_of_all_pairs():
    found = compile_for("v5e:2x2", "append", time=16, slots=4096, window=4000, extent=256, heads=8, kv_heads=2)
    assert found["kind"] == "TPU v5 lite" and found["kernels"] == 1
    assert found["temporary_bytes"] < 8 * 16 * 4096 * 2


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize(("window", "extent"), [(8192, 1024), (512, 512)])
def test_the_training_kernels_compile_at_full_size(topology, window, extent):
    found = compile_for(topology, "packed", time=8192, window=window, extent=extent)
    assert found["kernels"] == 3 and found["temporary_bytes"] < 32 * 8192**2
    # Tiles at the edge of what is seen are computed whole, and the bias comes on top.
    assert products(8192, window) < found["flops"] < products(8192, window) * (1.3 if window > 512 else 2.9)


@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
@pytest.mark.parametrize(("slots", "window", "extent"), [(32768 + 512, 32768, 1024), (512 + 64, 512, 512)])
def test_the_streaming_kernel_compiles_at_full_size(topology, slots, window, extent):
    found = compile_for(topology, "append", time=64, slots=slots, window=window, extent=extent)
    flops = 4 * 128 * 32 * 64 * slots  # two products of every pair; the bias comes on top
    assert flops < found["flops"] < 1.1 * flops
    # Smaller than scores, and the long cache is not copied: its keys alone are as large as the scores.
    assert found["kernels"] == 1 and found["temporary_bytes"] < 32 * 64 * slots * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        dict(dtype="float32"),
        dict(width=64, rank=8, heads=3, kv_heads=1),  # narrow heads in an odd group
        dict(heads=1, kv_heads=1, extent=100),
        dict(heads=24, kv_heads=2, block=256),  # many query heads on a key
    ],
)
@pytest.mark.parametrize("what", ["packed", "append"])
def test_other_shapes_compile(what, sizes):
    given = dict(time=1000, window=700, extent=512) if what == "packed" else dict(time=9, slots=720, window=600)
    assert compile_for("v5e:2x2", what, **given | sizes)["kernels"] == (3 if what == "packed" else 1)
