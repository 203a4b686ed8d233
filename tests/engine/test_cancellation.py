"""Cancelling a call from outside, at any await, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from asyncflow import AsyncFlow, AsyncParallelBatchNode, Retry, amap, stream, waiting
from asyncflow import run as run_flow
from asyncflow.clock import FakeClock, sleep
from asyncflow.engine import doors
from asyncflow.engine.cap import Cap


def test_a_failure_lets_the_siblings_clean_up_to_the_end(run_asyncio: Any) -> None:
    """Each sibling is cancelled once, so what it awaits in its `finally` completes, whoever ends first."""
    cleaned = []

    async def work(item: int) -> None:
        if item == 0:
            await asyncio.sleep(0)
            raise ValueError
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10 * item):  # they end one after the other
                await asyncio.sleep(0)
            cleaned.append(item)

    async def main() -> None:
        with pytest.raises(ValueError):
            await amap(work, range(5))

    run_asyncio(main)
    assert cleaned == [1, 2, 3, 4]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_cancelling_lets_every_item_clean_up_to_the_end(run_asyncio: Any, concurrency: int) -> None:
    """A cancelled `exec` may await in its `finally`; no second cancellation reaches it."""
    cleaned, started = [], []

    async def work(item: int) -> None:
        started.append(item)
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10 * item):
                await asyncio.sleep(0)
            cleaned.append(item)

    async def main() -> None:
        task = asyncio.ensure_future(amap(work, range(8), concurrency=concurrency))
        while len(started) < concurrency:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run_asyncio(main)
    assert cleaned == started == list(range(concurrency))


def test_an_exec_that_swallows_its_cancellation_does_not_keep_the_call_alive(run_asyncio: Any) -> None:
    """After a cancellation no further item begins, whatever those at work make of it."""
    started = []

    async def stubborn(item: int) -> None:
        started.append(item)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def main() -> None:
        task = asyncio.ensure_future(amap(stubborn, range(100), concurrency=4))
        while len(started) < 4:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(task), 5)

    run_asyncio(main)
    assert started == [0, 1, 2, 3]


def test_after_a_failure_no_parked_item_is_tried_again(run: Any) -> None:
    """The first failure ends the call, although an item is parked and the failed one changed its context."""
    variable: ContextVar[int] = ContextVar("variable")
    calls = []

    async def work(item: int) -> None:
        calls.append(item)
        if item == 0:
            raise OSError
        await sleep(1)
        variable.set(item)
        raise ValueError

    async def main() -> float:
        with FakeClock() as clock:
            with pytest.raises(ValueError):
                await amap(work, range(2), retry=Retry(attempts=2, wait=5, jitter=0))
            return clock.now()

    assert run(main) == 1
    assert calls == [0, 1]


def scenarios() -> dict[str, Any]:
    """Calls that pass through many kinds of await."""

    async def work(item: int) -> int:
        for _ in range(1 + item % 3):
            await asyncio.sleep(0)
        return item

    async def fails_once(item: int) -> int:
        await asyncio.sleep(0)
        if item not in failed:
            failed.add(item)
            raise OSError
        return item

    async def waits(item: int) -> int:
        async with waiting("a while"):
            await asyncio.sleep(0)
        return item

    async def nests(item: int) -> int:
        return sum(await amap(work, range(3), concurrency=2))

    async def source() -> AsyncIterator[int]:
        for number in range(6):
            await asyncio.sleep(0)
            yield number

    async def reads(item: int) -> int:
        async with stream(work, source(), concurrency=2, ordered=True) as outcomes:
            return sum([outcome.value async for outcome in outcomes])

    def plain(item: int) -> int:
        time.sleep(0.0002)
        return item

    failed: set[int] = set()

    class Batch(AsyncParallelBatchNode):
        function: Any = staticmethod(work)

        async def prep_async(self, shared: Any) -> Any:
            return range(5)

        async def exec_async(self, item: int) -> Any:
            return await type(self).function(item)

    class Waits(Batch):
        function = staticmethod(waits)

    class Nests(Batch):
        function = staticmethod(nests)

    class Reads(Batch):
        function = staticmethod(reads)

    class Threads(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(5)

        def exec(self, item: int) -> int:
            return plain(item)

    def capped(node: Any) -> Any:
        return run_flow(AsyncFlow(start=node), {}, concurrency=1)

    return {
        "amap": lambda: amap(work, source(), concurrency=3),
        "one at a time": lambda: amap(work, range(4), concurrency=1),
        "retries": lambda: amap(
            fails_once, range(5), concurrency=2, retry=Retry(3, wait=0.0002, jitter=0), timeout=5
        ),
        "timeouts": lambda: amap(work, range(6), concurrency=2, timeout=0.0002, on_error="continue"),
        "threads": lambda: amap(plain, iter(range(6)), concurrency=2),
        "timed threads": lambda: amap(plain, range(6), concurrency=2, timeout=0.0003, on_error="continue"),
        "stream": lambda: reads(0),
        "cap and waiting": lambda: capped(Waits(concurrency=3)),
        "cap and nesting": lambda: capped(Nests(concurrency=3)),
        "cap and stream": lambda: capped(Reads(concurrency=3)),
        "cap and threads": lambda: capped(Threads(concurrency=3, timeout=0.0003, on_error="continue")),
    }


@pytest.mark.parametrize("name", scenarios())
def test_cancelling_at_any_moment_leaves_nothing_behind(
    run_asyncio: Any, name: str, monkeypatch: Any
) -> None:
    """Cancelled at the k-th turn of the loop, for each k: it raises CancelledError, no slot is held."""
    caps: list[Cap] = []

    class Seen(Cap):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            caps.append(self)

    monkeypatch.setattr(doors, "Cap", Seen)

    async def main() -> None:
        for turn in range(60):
            task = asyncio.ensure_future(scenarios()[name]())
            for _ in range(turn):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done, f"stuck when cancelled at turn {turn}"
            assert ended or task.cancelled(), f"turn {turn}: {task}"
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"turn {turn}: {left}"
            for cap in caps:
                for _ in range(1000):  # a job that was given up keeps its slot until it ends
                    if not cap.running:
                        break
                    await asyncio.sleep(0.001)
                assert not cap.running and not cap._queue, f"turn {turn}: {cap}"
            caps.clear()
            if ended:
                return

    run_asyncio(main)
