"""The bounded pool."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow import Failed, Ok, Retry, amap, stream
from asyncflow.clock import FakeClock, sleep
from asyncflow.errors import ItemCancelledError, ItemTimeoutError, TooManyFailuresError


class Later(Exception):
    """Asks to be tried again after so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.retry_after = seconds


def test_all_workers_go_on_once_fewer_items_are_parked(run: Any) -> None:
    """When a parked item comes due, there is room again, and not only the worker that takes it goes on."""
    clock = FakeClock()
    finished: list[float] = []
    failed: set[int] = set()

    async def work(item: int) -> None:
        if item < 2 and item not in failed:
            failed.add(item)
            raise Later((1, 60)[item])
        await sleep(5)
        finished.append(clock.now())

    async def main() -> None:
        with clock:
            await amap(work, range(6), concurrency=2, retry=Retry(2, wait=0, jitter=0, on=Later))

    run(main)
    assert finished[:2] == [6.0, 6.0], "the second worker stood still until its own item came due"


def test_calls_that_never_suspend_let_others_run_on_virtual_time_too(run: Any) -> None:
    """How long a worker goes on without a pause is real time, whatever the clock says."""

    async def at_once(item: int) -> None:
        return

    async def main() -> bool:
        with FakeClock():
            with anyio.move_on_after(0.05) as scope:
                await amap(at_once, iter(lambda: 0 if time.monotonic() < end else 1, 1), concurrency=2)
            return scope.cancelled_caught

    end = time.monotonic() + 5
    assert run(main)


def test_many_workers_that_never_suspend_share_their_patience(run: Any) -> None:
    """The loop turns every few milliseconds, not every few milliseconds times the concurrency."""
    turns = 0

    async def at_once(item: int) -> None:
        return

    async def count() -> None:
        nonlocal turns
        while True:
            await anyio.lowlevel.checkpoint()
            turns += 1

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(count)
            end = time.monotonic() + 0.5
            await amap(at_once, iter(lambda: 0 if time.monotonic() < end else 1, 1), concurrency=256)
            group.cancel_scope.cancel()

    run(main)
    assert turns > 10


def test_a_source_whose_length_is_unknown_to_itself_is_of_unknown_length(run: Any) -> None:
    """A progress bar around a generator has a `__len__` that raises TypeError; its items run all the same."""

    class Bar:
        def __iter__(self) -> Any:
            return iter([1, 2, 3])

        def __contains__(self, item: object) -> bool:
            return False

        def __len__(self) -> int:
            return None  # type: ignore[return-value]

    async def double(item: int) -> int:
        return 2 * item

    async def main() -> Any:
        return await amap(double, Bar())

    assert run(main) == [2, 4, 6]
