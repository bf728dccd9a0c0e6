"""What processes that work for another one have in common."""

import functools
import os
import threading
import time

_WATCH_SECONDS = 2.0


@functools.cache  # once a process
def end_with(parent: int) -> None:
    """Ends this worker soon after its parent: one that was killed cannot tell its workers to stop.

    A thread, because the signal that Linux offers for this comes with the end of the parent's thread, not its process.

    Args:
      parent: process number of the parent.
    """

    def watch() -> None:
        while os.getppid() == parent:  # an orphan gets another parent
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()
