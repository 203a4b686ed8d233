"""The seam between the engine and asyncio or trio: crews, wakers, interrupts."""

from __future__ import annotations

import asyncio
from typing import Any

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
