"""offload: the loop goes on, the context is the caller's, and a cancelled wait ends after the work."""

from __future__ import annotations

import asyncio
import threading
import time

import numpy as np
import pytest

from asyncflow.compute import offload, softmax, statistics, workers
from asyncflow.compute.settings import threads


def test_result_error_and_context():
    """The result comes back, errors are raised, and context variables (errstate too) hold inside."""

    async def main():
        assert await offload(divmod, 7, 2) == (3, 1)
        assert await offload(lambda *, k: k, k=3) == 3
        with pytest.raises(KeyError):
            await offload({}.__getitem__, "x")
        with workers(3):
            assert await offload(threads) == 3
        with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
            await offload(lambda: np.float64(1) / np.float64(0))

    asyncio.run(main())


def test_on_trio():
    """The same on trio, cancelled too."""
    trio = pytest.importorskip("trio")
    ended = []

    async def main():
        assert await offload(divmod, 7, 2) == (3, 1)
        with trio.move_on_after(0.05):
            await offload(lambda: (time.sleep(0.2), ended.append(1)))
        assert ended == [1]

    trio.run(main)


def test_a_cancelled_wait_ends_after_the_work():
    """Whatever cancels it and however often, the array is no longer written to when the await is over."""
    started, ended = threading.Event(), []

    def work():
        started.set()
        time.sleep(0.2)
        ended.append(1)

    async def main():
        task = asyncio.ensure_future(offload(work))
        await asyncio.to_thread(started.wait)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [1]

    asyncio.run(main())


def test_a_cancelled_wait_takes_back_what_has_not_begun():
    """Work that still waits for a thread never runs."""
    hold, ran = threading.Event(), []

    async def main():
        limit = statistics().limit
        busy = [asyncio.ensure_future(offload(hold.wait)) for _ in range(limit)]
        await asyncio.sleep(0)
        task = asyncio.ensure_future(offload(ran.append, 1))
        await asyncio.sleep(0)
        assert statistics().queued == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.set()
        await asyncio.gather(*busy)

    asyncio.run(main())
    assert ran == [] and statistics().queued == 0


def test_offload_inside_offload_does_not_wait_for_itself():
    """As many nested calls as there are places end all the same."""

    def inner():
        return asyncio.run(offload(lambda: asyncio.run(offload(divmod, 7, 2))))

    async def main():
        return await asyncio.gather(*(offload(inner) for _ in range(6)))

    assert asyncio.run(main()) == [(3, 1)] * 6


def test_the_delay_of_the_loop_is_measured():
    """With all workers busy the loop goes on, and how late it was can be read. (How little: benchmarks.)"""
    x = np.random.default_rng(0).standard_normal((2000, 1000)).astype(np.float32)

    async def main():
        with workers(2):
            await asyncio.gather(*(offload(lambda: [softmax(x) for _ in range(5)]) for _ in range(4)))

    statistics(reset=True)
    asyncio.run(main())
    now = statistics()
    assert now.loop_lag_samples > 0
    assert now.loop_lag_max >= now.loop_lag_p99 >= 0
