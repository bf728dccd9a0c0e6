"""Memory of messages is the system's again after them, though a little that came between them is kept."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import mmap, pathlib, sys, threading
from tml_jax.serve.heaps import bound_heaps

bounded, size, threads = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
assert not bounded or bound_heaps()
message = b"x" * 21 * 2**20
del message  # the library takes less than this for small from now on, if nothing is done
kept, lock, together = [], threading.Lock(), threading.Barrier(threads)

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

def take():
    together.wait()
    with lock:  # one after the other, so that all could have the same memory
        messages = []
        for _ in range(40 * 2**20 // size):
            messages.append(b"x" * size)
            kept.append(b"x" * 3000)
        messages.clear()
    together.wait()

before = resident()
every = [threading.Thread(target=take) for _ in range(threads)]
[thread.start() for thread in every]
[thread.join() for thread in every]
print((resident() - before) / 2**20)
"""


def grown(*given: int) -> float:
    """MiB that a process keeps."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, *map(str, given)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
@pytest.mark.parametrize("size, threads, most", [(2**20, 1, 10), (2**16, 7, 100)], ids=["large", "many threads"])
def test_what_messages_took_is_given_back_though_something_between_them_is_kept(size, threads, most):
    assert grown(1, size, threads) < most
    assert grown(0, size, threads) > 2 * most  # or this test would show nothing


AGAIN = """
import resource, sys
from tml_jax.serve.heaps import bound_heaps

assert bound_heaps(spare=int(sys.argv[1]) * 2**20)
for _ in range(20):
    pieces = [b"x" * 2**17 for _ in range(200)]
    pieces.clear()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_what_a_tick_takes_for_a_moment_is_not_given_back_each_time():
    """Pages given back have to be asked for again, one by one: a tick of 16 sessions took two thirds more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    spare, none = (
        int(subprocess.check_output([sys.executable, "-c", AGAIN, size], env=environment)) for size in ("64", "0")
    )
    assert none > 2 * spare
