"""The seam between the engine and asyncio or trio: crews, wakers, interrupts."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncflow import amap, stream
from asyncflow.engine.hosts import running_host


def test_a_call_that_comes_between_a_cancellation_and_the_next_wait_is_not_lost(run_asyncio: Any) -> None:
    """A waker that is set after its wait was cancelled, and before its task runs again, counts as set."""

    async def main() -> str:
        host = running_host()
        waker = host.waker()

        async def outlasts() -> str:
            try:
                await waker.wait()
            except asyncio.CancelledError:
                await host.outlast(waker)
            return "ended"

        task = asyncio.ensure_future(outlasts())
        await asyncio.sleep(0)
        task.cancel()
        waker.set()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done, "the call was lost"
        return await task

    assert run_asyncio(main) == "ended"


def test_children_that_others_cancel_before_they_begin_are_not_waited_for() -> None:
    """The end of the loop cancels every task, begun or not: the call ends all the same."""

    async def work(item: int) -> None:
        await asyncio.sleep(60)

    async def main() -> None:
        call = asyncio.ensure_future(amap(work, range(100), concurrency=50))
        for _ in range(2):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        done, _ = await asyncio.wait([call], timeout=10)
        assert done == {call} and call.cancelled()

    asyncio.run(main())


def test_the_end_of_the_loop_ends_a_stream_that_has_just_begun() -> None:
    """Nothing hangs where the program ends before the stream's workers have begun."""

    async def work(item: int) -> int:
        return item

    async def main() -> None:
        reader = asyncio.ensure_future(anext(stream(work, range(10))))
        await asyncio.sleep(0)
        reader.cancel()

    asyncio.run(main())
