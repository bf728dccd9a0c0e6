"""A command starts itself over once, as the same process with the same arguments."""

import os
import subprocess
import sys

import pytest

PROGRAM = "import os, sys; print(os.getpid()); from launch import huge_pages; huge_pages.restart(); print(sys.argv[1:])"


def run(tunables: str | None) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    if tunables is not None:
        environment["GLIBC_TUNABLES"] = tunables
    program = PROGRAM + "; print(os.environ.get('GLIBC_TUNABLES'))"
    ended = subprocess.run(
        [sys.executable, "-c", program, "--flag=a b", "c"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has the setting")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
    ],
)
def test_the_command_starts_over_once_with_the_setting(before, after):
    first, second, arguments, tunables = run(before)
    assert first == second  # signals sent to the command still reach it
    assert arguments == "['--flag=a b', 'c']" and tunables == after


def test_what_the_user_has_set_stays():
    _, arguments, tunables = run("glibc.malloc.hugetlb=0")
    assert arguments == "['--flag=a b', 'c']" and tunables == "glibc.malloc.hugetlb=0"
