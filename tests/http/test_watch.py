"""asyncflow/http/watch.py: one timer for all exchanges."""

from __future__ import annotations

import asyncio

import pytest

from asyncflow.http.watch import Watch


class Exchange:
    def __init__(self, due: float) -> None:
        self.due = due
        self.expired = asyncio.Event()

    def expire(self) -> None:
        assert not self.expired.is_set()
        assert asyncio.get_running_loop().time() >= self.due
        self.expired.set()


@pytest.mark.asyncio
async def test_each_in_its_time() -> None:
    """Whatever the order in which they come, each is ended when it is due, and once."""
    loop = asyncio.get_running_loop()
    watch, now = Watch(loop), loop.time()
    exchanges = [Exchange(now + wait) for wait in (0.03, 0.01, float("inf"), 0.0, 0.02, 0.01)]
    for exchange in exchanges:
        watch.add(exchange)
    await asyncio.gather(*(one.expired.wait() for one in exchanges if one.due < float("inf")))
    assert not exchanges[2].expired.is_set()
    watch.close()


@pytest.mark.asyncio
async def test_what_is_heard_of_and_what_has_ended() -> None:
    """One whose moment has moved is looked at again then; one that was discarded never."""
    loop = asyncio.get_running_loop()
    watch, now = Watch(loop), loop.time()
    heard_of, ended, last = (Exchange(now + 0.005) for _ in range(3))
    for exchange in (heard_of, ended, last):
        watch.add(exchange)
    heard_of.due = now + 0.03
    watch.discard(ended)
    await last.expired.wait()
    assert not heard_of.expired.is_set()
    await heard_of.expired.wait()
    assert not ended.expired.is_set()


@pytest.mark.asyncio
async def test_closed() -> None:
    """Nothing is ended after `close`."""
    loop = asyncio.get_running_loop()
    watch, later = Watch(loop), asyncio.Event()
    exchange = Exchange(loop.time())
    watch.add(exchange)
    watch.close()
    loop.call_later(0.01, later.set)
    await later.wait()
    assert not exchange.expired.is_set()
