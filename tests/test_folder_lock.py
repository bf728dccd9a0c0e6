"""A folder that is gone on in has room for one process."""

import subprocess
import sys

import pytest

from tml_jax.folder_lock import FolderBusyError, alone

HOLD = "import sys; from tml_jax.folder_lock import alone\nwith alone(sys.argv[1]): print('in', flush=True); input()"


def test_a_second_process_is_told_who_is_there_and_comes_in_when_that_one_is_gone(tmp_path):
    run = tmp_path / "runs" / "mine"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(run)], stdin=-1, stdout=-1, text=True) as holder:
        assert holder.stdout.readline() == "in\n"
        with pytest.raises(FolderBusyError, match=f"mine is in use by process {holder.pid} on .*another --output"):
            with alone(run, "--output", patience=0.3):
                pass
        holder.kill()
    for _ in range(2):
        with alone(run, patience=5.0):
            pass
