"""Starts a command over with memory in huge pages, where the C library can be told to use them.

On CPU, XLA takes the working memory of every call anew from the C library, which gets it from the kernel in pages of
4 KiB, each at the cost of a fault: the replica's training spent a sixth of its time there. The library reads its
setting only when a process starts, so the process starts itself over, once.
"""

import os
import sys

_VARIABLE, _SETTING = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"


def restart() -> None:
    """Starts the running command over with huge pages; does nothing where they are on, or the user has set them."""
    given = os.environ.get(_VARIABLE, "")
    if not sys.platform.startswith("linux") or "glibc.malloc.hugetlb" in given:
        return
    os.environ[_VARIABLE] = f"{given}:{_SETTING}" if given else _SETTING
    sys.stdout.flush()
    os.execv(sys.executable, sys.orig_argv)
