"""Cancelling a call from outside, at any await, and what it leaves behind: nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncflow import amap


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
