"""Memory of large messages goes back to the system once they are done with.

The C library of Linux (glibc) gives a large block a mapping of its own, which ends with it. But each one that ends
raises the size that counts as large, up to 32 MiB, and smaller ones come from heaps, of which there may be eight for
each core: a minute of sound in one thread, a picture in another, and every heap keeps holes of the size of the largest
messages that it has seen. Ten minutes of hostile clients made a server grow by 150 MiB in this way, with nothing held.
"""

import ctypes
import sys

LARGE = 256 * 2**10  # bytes; a window's sound, in and out, and its events are far smaller
HEAPS = 2  # most threads of a server wait for the interpreter, not for memory
SPARE = 64 * 2**20  # bytes; above what a tick takes for a moment: giving that back each time costs two thirds of a tick
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # of mallopt(3)


def bound_heaps(large: int = LARGE, heaps: int = HEAPS, spare: int = SPARE) -> bool:
    """Bounds what the C library keeps of freed memory, for the whole process from now on: early, before it has threads.

    Args:
      large: bytes from which on a block goes back to the system as soon as it is free.
      heaps: most there are for smaller ones; those that there are stay.
      spare: bytes free at the end of a heap that it keeps, for what is taken and given back again and again.

    Returns:
      Whether it does; not where it is another library than glibc, which has ways of its own.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    wanted = ((_MMAP_THRESHOLD, large), (_ARENA_MAX, heaps), (_TRIM_THRESHOLD, spare))
    return mallopt is not None and all([mallopt(*option) == 1 for option in wanted])
