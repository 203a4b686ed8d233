"""Cancelling a call from outside, at any await, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from asyncflow import Retry, amap
from asyncflow.clock import FakeClock, sleep


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
