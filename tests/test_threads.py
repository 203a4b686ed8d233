"""The thread pool: a limit, in turn, with messengers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from asyncflow.threads import ThreadPool


def test_no_more_than_the_limit_and_first_come_first_served() -> None:
    """Jobs beyond the limit queue; each starts when one before it has ended, in order."""
    pool, gates, order = ThreadPool(2), [threading.Event() for _ in range(4)], []
    begun = [threading.Event() for _ in range(4)]

    def work(number: int) -> None:
        order.append(number)
        begun[number].set()
        gates[number].wait(5)

    jobs = [pool.submit(work, number) for number in range(4)]
    assert [job.queued for job in jobs] == [False, False, True, True]
    assert repr(pool) == "<ThreadPool limit=2 running=2 queued=2>"
    assert begun[0].wait(5) and begun[1].wait(5)
    for ends, follows in ((0, 2), (1, 3)):
        gates[ends].set()
        assert begun[follows].wait(5)
    assert order[2:] == [2, 3] and sorted(order[:2]) == [0, 1]
    gates[2].set()
    gates[3].set()


def test_only_what_has_not_started_can_be_taken_back() -> None:
    """A withdrawn job never runs; a running one says no; growing the pool starts the next."""
    pool, gate, ran = ThreadPool(1), threading.Event(), []
    ended = threading.Event()
    first = pool.submit(gate.wait, 5)
    second = pool.submit(ran.append, 2)
    pool.submit(ran.append, 3, done=lambda job: ended.set())
    assert not first.withdraw()
    assert second.withdraw() and second.withdraw()
    pool.grow(2)
    assert ended.wait(5) and ran == [3]
    gate.set()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_a_job_raises_is_kept_and_its_thread_goes_on(kind: Any) -> None:
    """Anything it raises becomes its `error`; the thread serves the next job."""
    pool, ended = ThreadPool(1), threading.Event()

    def bad() -> None:
        raise kind

    job = pool.submit(bad)
    pool.submit(int, done=lambda job: ended.set())
    assert ended.wait(5)
    assert isinstance(job.error, kind) and job.finished
