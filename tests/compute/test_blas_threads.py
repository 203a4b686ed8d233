"""one_blas_thread: the limit is there while anyone is inside, and gone afterwards, whichever thread asks."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import threadpoolctl

from asyncflow import compute
from asyncflow.compute import tiles
from asyncflow.threads import cpu_count, one_blas_thread


def limits():
    np.ones((2, 2)) @ np.ones((2, 2))
    blas = [lib for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    # Other packages may load a BLAS of their own at any time; the promise is about NumPy's.
    return [lib["num_threads"] for lib in blas if "numpy" in lib["filepath"] or len(blas) == 1]


def on_a_thread(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def inside():
    with one_blas_thread():
        return limits()


def test_limit_inside_and_restored_after():
    """One thread inside, nested blocks too; what was there before afterwards."""
    before = limits()
    with one_blas_thread():
        with one_blas_thread():
            assert set(limits()) <= {1}
        assert set(limits()) <= {1}
    assert limits() == before


@pytest.mark.parametrize("n", [1, 2])
def test_operations_keep_it(n):
    """Inside an operation, on the caller's thread and on helpers, with one worker and with two."""
    seen, both = [], threading.Barrier(n, timeout=20)

    def task(_):
        both.wait()
        seen.extend(limits())

    with compute.workers(n):
        tiles.run_tiles(task, 2)
    assert set(seen) == {1}


def test_any_thread_may_ask():
    """Also a thread that is not the first to set a limit (threadpoolctl ignores that one by itself)."""
    before = limits()
    for _ in range(3):
        assert set(on_a_thread(inside)) <= {1}
        assert set(inside()) <= {1}
    assert limits() == before


def test_the_last_one_out_restores():
    """Overlapping blocks on two threads: whoever leaves last puts the limit back."""
    before = limits()
    entered, leave = threading.Event(), threading.Event()

    def other():
        with one_blas_thread():
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        assert entered.wait(20)
    assert set(limits()) <= {1}
    leave.set()
    thread.join()
    assert limits() == before


def test_a_limit_of_the_users_own_survives():
    """Inside threadpool_limits of the user's, our block restores the user's number."""
    if not limits() or max(limits()) < 2:
        pytest.skip("BLAS has one thread here anyway")
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        inside()
        assert set(limits()) == {2}


def test_cpu_count():
    """At least one processor."""
    assert cpu_count() >= 1
