"""asyncflow/http/turns.py: those who wait are woken in turn."""

from __future__ import annotations

import asyncio

import pytest

from asyncflow.http.turns import AT_ONCE, Turns


@pytest.mark.asyncio
async def test_a_crowd() -> None:
    """All are woken, in order, so many at a turn of the loop at most; cancelled ones are passed over."""
    loop = asyncio.get_running_loop()
    turns = Turns(loop)
    waiters: list[asyncio.Future[None]] = [loop.create_future() for _ in range(3 * AT_ONCE + 10)]
    woken: list[int] = []
    waiters[5].cancel()
    for number, waiter in enumerate(waiters):
        waiter.add_done_callback(lambda _, number=number: woken.append(number))
        turns.wake(waiter)
        turns.wake(waiter)
    seen = [len(woken)]
    while len(woken) < len(waiters):
        await asyncio.sleep(0)
        seen.append(len(woken))
    assert max(after - before for before, after in zip(seen, seen[1:], strict=False)) <= AT_ONCE
    assert [number for number in woken if number != 5] == [n for n in range(len(waiters)) if n != 5]
    turns.wake(late := loop.create_future())
    await late
