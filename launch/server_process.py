"""A server as a process of its own, for commands that measure one."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

_SAYS = "listening at "
_PATIENCE = 30.0  # seconds that it has to end


@contextlib.contextmanager
def serving(checkpoint: str, sessions: int, log: Callable[[str], None], *flags: str) -> Iterator[str]:
    """Runs `launch.serve` on a free port, until the end of the `with`.

    Args:
      checkpoint: folder of a trained model, or `shipped`.
      sessions: most at once.
      log: takes its lines, until it listens.
      flags: more of its flags, such as `--background=local`.

    Yields:
      The URL of its WebSocket.

    Raises:
      OSError: it ends before it listens; the error says its last words.
    """
    command = [sys.executable, "-m", "launch.serve", f"--checkpoint={checkpoint}", f"--sessions={sessions}"]
    command += ["--port=0", "--drain_seconds=0", *flags]
    with (
        tempfile.TemporaryFile("w+") as words,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True) as process,
    ):
        try:
            for line in process.stdout:
                log(f"server: {line.strip()}")
                if line.startswith(_SAYS):
                    yield line.split()[2]
                    return
            words.seek(0)
            said = words.read().strip().splitlines() or ["nothing"]
            raise OSError(f"the server ended with {process.wait()} before it listened: {said[-1]}")
        finally:
            process.terminate()
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
