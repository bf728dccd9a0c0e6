"""Workers end with what they work for."""

import concurrent.futures
import os
import signal
import time

import pytest

from tml_jax.data.workers import pool


def test_workers_end_at_once_where_what_they_make_is_not_wanted_any_more():
    with pytest.raises(KeyboardInterrupt):
        with pool(1) as workers:
            assert workers.submit(abs, -1).result() == 1
            at_work = workers.submit(time.sleep, 3600)
            raise KeyboardInterrupt
    assert isinstance(at_work.exception(), concurrent.futures.BrokenExecutor)


def test_a_worker_that_is_killed_ends_the_work_with_an_error():
    with pytest.raises(concurrent.futures.BrokenExecutor):
        with pool(2) as workers:
            at_work = [workers.submit(time.sleep, 3600), workers.submit(os.getpid)]
            os.kill(at_work[1].result(), signal.SIGKILL)
            at_work[0].result()


def test_workers_leave_ctrl_c_to_their_parent():
    with pool(1) as workers:
        assert workers.submit(signal.getsignal, signal.SIGINT).result() == signal.SIG_IGN
