"""The flags by which processes on many hosts find each other, and how one of them ends.

On Cloud TPU, --distributed is enough: JAX finds the other hosts there, as it does under Slurm and Open MPI. Elsewhere
each process is told, as in

  python -m launch.train --coordinator=10.0.0.1:8476 --num_processes=4 --process_id=2 …

A process of many that ends for want of the others, or because of a signal, ends with code 42: started again, all go on
from the last checkpoint. XPK restarts jobs for that code, and not for 1 and 2, which say that something must be mended.
"""

import os
import sys
import threading
import traceback
from typing import NoReturn

import jax
from absl import flags

from tml_jax.config import ConfigError
from tml_jax.train.checkpoint_arrays import brief

START_AGAIN = 42  # exit code

_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts of a pod, which JAX finds.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where JAX does not find it.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the run, with --coordinator.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)
_JOIN = flags.DEFINE_integer("join_timeout", 300, "Seconds to wait for the other processes at the start.", 1)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_timeout", 100, "Seconds of silence after which a process is taken for dead, and all others end.", 10
)


def join() -> None:
    """Joins the other processes of the run, where flags say that there are any. Call it before JAX is used.

    Where they do not all come within --join_timeout, the process ends with one line.

    Raises:
      ConfigError: flags do not fit together, or JAX finds no other hosts.
    """
    explicit = {"coordinator": _COORDINATOR.value, "num_processes": _PROCESSES.value, "process_id": _PROCESS.value}
    missing = [name for name, value in explicit.items() if value is None]
    if len(missing) == len(explicit):
        explicit = {}
        if not _DISTRIBUTED.value:
            return
    elif missing:
        given = ", ".join(f"--{name}={value}" for name, value in explicit.items() if value is not None)
        raise ConfigError(f"{given}: needs --{missing[0]} as well; on Cloud TPU give --distributed and none of them")
    elif _DISTRIBUTED.value:
        raise ConfigError("--distributed and --coordinator: give one of them; --distributed lets JAX find the others")
    else:
        _check(**explicit)
        explicit["coordinator_address"] = explicit.pop("coordinator")
    # JAX aborts the process when it has waited for too long, with a stack of C++ and no word of what to do.
    too_late = threading.Timer(_JOIN.value, _nobody_came)
    too_late.daemon = True
    too_late.start()
    try:
        jax.distributed.initialize(
            **explicit, initialization_timeout=_JOIN.value + 60, heartbeat_timeout_seconds=_HEARTBEAT.value
        )
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"--distributed: found no other hosts ({brief(error)}); outside of Cloud TPU give --coordinator=HOST:PORT, "
            "--num_processes and --process_id"
        ) from error
    finally:
        too_late.cancel()


def end(error: BaseException, code: int) -> NoReturn:
    """Ends the command with what is wrong, in one line.

    A process of many does not say goodbye to the others, who could be waiting for it: they notice that it is gone.
    """
    if jax.distributed.is_initialized() and _of_others(error.__cause__):  # such as a checkpoint that all write
        end_lost(error)
    _end(f"launch.train: {error}", code)


def end_lost(error: Exception) -> NoReturn:
    """Ends a process of many that cannot go on, most often because another one is gone. Alone, it raises the error."""
    if not jax.distributed.is_initialized():
        raise error
    others = _of_others(error) or _of_others(error.__cause__)
    if not others:
        traceback.print_exception(error)
    _end(
        f"launch.train: process {jax.process_index()} of {jax.process_count()} ended ({brief(error)}). If another one "
        "is gone, start all of them again: they go on from the last checkpoint",
        START_AGAIN if others else 1,
    )


def _of_others(error: BaseException | None) -> bool:
    """Whether an error can come from another process: XLA raised it, not for want of memory, or collectives of CPUs."""
    said = str(error)
    return (isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in said) or "Gloo" in said


def _end(line: str, code: int) -> NoReturn:
    print(line, file=sys.stderr, flush=True)
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)
    raise SystemExit(code)


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--coordinator={coordinator}: must be HOST:PORT, such as 10.0.0.1:8476")
    if process_id >= num_processes:
        raise ConfigError(f"--process_id={process_id}: must lie in 0 … {num_processes - 1}, by --num_processes")


def _nobody_came() -> None:
    where = f" at --coordinator={_COORDINATOR.value}" if _COORDINATOR.value else ""
    missing = "the other processes did not all come" if _PROCESS.value == 0 else "process 0 was not reached"
    print(
        f"launch.train: {missing}{where} within --join_timeout={_JOIN.value} s: start all processes, with the same "
        "--coordinator and --num_processes, and let that port through",
        file=sys.stderr,
        flush=True,
    )
    os._exit(START_AGAIN)
