"""Memory of large messages goes back to the system once they are done with.

The C library of Linux (glibc) gives a large block a mapping of its own, which ends with it. But each one that ends
raises the size that counts as large, up to 32 MiB, and smaller ones then come from heaps, of which there is one for
each thread: a minute of sound here, a picture there, and every heap keeps holes of the size of the largest messages it
has seen. Ten minutes of hostile clients made a server grow by 160 MiB in this way, with nothing held.
"""

import ctypes
import sys

LARGE = 256 * 2**10  # bytes; a window's sound, in and out, and its events are far smaller
_MMAP_THRESHOLD = -3  # of mallopt(3)


def return_large_blocks(size: int = LARGE) -> bool:
    """Has the C library return blocks from a size on as soon as they are free, for the whole process, from now on.

    Args:
      size: bytes.

    Returns:
      Whether it does; not where it is another library than glibc, which has ways of its own.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and mallopt(_MMAP_THRESHOLD, size) == 1
