"""Memory of large messages is the system's again after them."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import mmap, pathlib, sys
from tml_jax.serve.large_blocks import return_large_blocks

def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

if sys.argv[1] == "returned":
    assert return_large_blocks()
message = b"x" * 21 * 2**20
del message  # the library takes less than this for small from now on, if nothing is done
before, messages, kept = resident(), [], []
for number in range(100):
    messages.append(b"x" * 2**20)
    kept.append(b"x" * 30_000)  # what a session keeps lies between them
messages.clear()
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have ways of their own")
def test_what_large_messages_took_is_given_back_though_something_between_them_is_kept():
    grown = {}
    for way in ("kept", "returned"):
        command = [sys.executable, "-c", PROGRAM, way]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        grown[way] = int(done.stdout) / 2**20
    assert grown["returned"] < 10 and grown["kept"] > 80, grown
