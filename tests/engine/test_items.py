"""The bounded pool."""

from __future__ import annotations

from typing import Any

from asyncflow import Retry, amap
from asyncflow.clock import FakeClock, sleep


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
