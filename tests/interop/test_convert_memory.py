"""Conversion takes little memory whatever the size of the tensors, both ways.

  python -m pytest -m slow -s tests/interop/test_convert_memory.py

shows it on a release with one mixture-of-experts layer of full size (13 GB; takes 40 GB of disk) and prints figures.
"""

import dataclasses
import filecmp
import pathlib
import subprocess
import sys
import time

import pytest
from releases import make_release
from small import SMALL, small_config

from tml_jax.config import ModelConfig
from tml_jax.interop.convert import PIECE_BYTES
from tml_jax.interop.inkling_config import PLANNED_STAGES

# Prints the peak of resident memory in bytes before and after the conversion. A small one comes first, so that what is
# there whatever the size (libraries, the compiler) is there before.
PROGRAM = """
import pathlib, resource, sys
sys.path[:0] = {paths!r}
from tml_jax.interop import convert
from tml_jax.interop.convert import from_release
from tml_jax.interop.to_transformers import to_transformers
from releases import make_release
from test_convert_memory import CONFIG, one_layer
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
log = lambda line: print(line, file=sys.stderr)
way, source, target, convert.PIECE_BYTES = *sys.argv[1:4], int(sys.argv[4])
small = pathlib.Path(target + ".small")
make_release(small / "hf", one_layer(512, 2, 16))
from_release(small / "hf", small / "run", CONFIG, log=log)
to_transformers(small / "run", small / "back", log=log)
before = peak()
if way == "in":
    from_release(source, target, CONFIG, log=log)
else:
    to_transformers(source, target, log=log)
print(before, peak())
"""

CONFIG = small_config()


def one_layer(d_model: int, experts: int, width: int) -> ModelConfig:
    """A model of one mixture-of-experts layer; all else is small."""
    stages = (*PLANNED_STAGES[1], (2, 40, 40, d_model))
    return dataclasses.replace(
        SMALL,
        d_model=d_model,
        num_layers=1,
        num_dense_layers=0,
        num_experts=experts,
        expert_ffn=width,
        vision_stages=stages,
    )


def measure(way: str, source: pathlib.Path, target: pathlib.Path, piece: int) -> tuple[int, int, float]:
    """Bytes of memory before and at most, and seconds, of a conversion in a process of its own."""
    tests = pathlib.Path(__file__).parents[1]
    program = PROGRAM.format(paths=[str(tests), str(tests / "data"), str(tests / "interop")])
    began = time.perf_counter()
    command = [sys.executable, "-c", program, way, str(source), str(target), str(piece)]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    before, peak = map(int, ended.stdout.split())
    return before, peak, time.perf_counter() - began


def there_and_back(folder: pathlib.Path, model: ModelConfig, piece: int) -> list[tuple[str, int, int, float]]:
    """Converts a release both ways, checks that the same file comes back, and returns what `measure` found."""
    make_release(folder / "hf", model)
    figures = [("in", *measure("in", folder / "hf", folder / "run", piece))]
    figures.append(("out", *measure("out", folder / "run", folder / "back", piece)))
    name = "model.safetensors"
    assert filecmp.cmp(folder / "hf" / name, folder / "back" / name, shallow=False)
    return figures


def test_memory_does_not_grow_with_the_tensors(tmp_path):
    model = one_layer(512, 96, 2048)
    largest = 2 * model.num_experts * model.d_model * 2 * model.expert_ffn
    # Smaller slices than usual, so that the tensor is large beside the several of them that are under way.
    for _, before, peak, _ in there_and_back(tmp_path, model, piece=PIECE_BYTES // 16):
        assert peak - before < largest / 2


@pytest.mark.slow
def test_a_full_size_layer_takes_less_than_4_gb(tmp_path):
    model = one_layer(4096, 256, 2048)
    figures = there_and_back(tmp_path, model, PIECE_BYTES)
    size = (tmp_path / "hf" / "model.safetensors").stat().st_size
    print(f"\nrelease of {size / 1e9:.1f} GB, largest tensor {2 * 256 * 4096 * 4096 / 1e9:.1f} GB")
    for way, _, peak, seconds in figures:
        print(f"{way:<4} peak memory {peak / 1e9:.2f} GB  {seconds:.0f} s  {size / seconds / 1e6:.0f} MB/s")
        assert peak < 4e9
