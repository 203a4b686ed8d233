"""`limits=` on amap and nodes: attempts share a lane."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import trio

from asyncflow import AsyncFlow, AsyncParallelBatchNode, BatchNode, Flow, Retry, amap, run
from asyncflow.clock import FakeClock, now, sleep
from asyncflow.errors import NotSupportedError, TransientError
from asyncflow.policy import Limits


def both(main: Any) -> None:
    asyncio.run(main())
    trio.run(main)


def test_calls_that_share_limits_share_the_concurrency() -> None:
    """Two amaps with one Limits have no more attempts at once than it says."""

    async def main() -> None:
        running = most = 0
        limits = Limits(concurrency=3)

        async def work(item: int) -> int:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await sleep(1)
            running -= 1
            return item

        with FakeClock():
            assert await amap(work, range(20), limits=limits) == list(range(20))
        assert most == 3

    both(main)


def test_requests_per_minute_and_timeouts() -> None:
    """Attempts start no faster than asked; waiting for the lane is no part of a timeout."""

    async def main() -> None:
        starts: list[float] = []

        async def work(item: int) -> int:
            starts.append(now())
            return item

        with FakeClock():
            await amap(work, range(120), limits=Limits(requests_per_minute=60), timeout=2)
        assert all(later - earlier > 55 for earlier, later in zip(starts, starts[61:], strict=False))
        assert starts[-1] > 55

    asyncio.run(main())


def test_a_refusal_pauses_all_who_share_the_lane() -> None:
    """One item's refusal holds the others back as long as asked."""

    class Refused(TransientError):
        pass

    async def main() -> None:
        attempts: list[float] = []

        async def work(item: int) -> int:
            attempts.append(now())
            if len(attempts) == 1:
                raise Refused("slow down", retry_after=30)
            return item

        with FakeClock():
            retry = Retry(attempts=3, wait=0.1)
            assert await amap(work, range(3), concurrency=1, limits=Limits(), retry=retry) == [0, 1, 2]
        assert attempts[1] >= 30 or attempts[-1] >= 30

    asyncio.run(main())


def test_nodes_of_either_colour_take_limits_on_a_loop() -> None:
    """A plain batch node waits on the loop and works on threads; without a loop limits are refused."""

    class Squares(BatchNode):
        def prep(self, shared: Any) -> Any:
            return range(5)

        def exec(self, item: int) -> int:
            return item * item

        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"] = exec_res

    class Doubles(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(5)

        async def exec_async(self, item: int) -> int:
            return 2 * item

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"] = exec_res

    async def main() -> None:
        limits = Limits(concurrency=2)
        for node, out in (
            (Squares(limits=limits), [0, 1, 4, 9, 16]),
            (Doubles(limits=limits), [0, 2, 4, 6, 8]),
        ):
            result = await run(AsyncFlow(start=node))
            assert result.shared["out"] == out

    asyncio.run(main())
    with pytest.raises(NotSupportedError, match="needs an event loop"):
        Flow(start=Squares(limits=Limits())).run({})
    with pytest.raises(ValueError, match="give limits to its nodes"):
        Flow(start=Squares(), limits=Limits())
