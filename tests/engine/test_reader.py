"""`stream`: reading, order, holding the source back, closing early."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from asyncflow import Ok, stream


@pytest.mark.parametrize("rounds", [0, 5])
def test_closing_from_another_task_ends_the_reading(run: Any, rounds: int) -> None:
    """A reader that waits while somebody closes the stream is at its end, neither stuck nor cancelled."""
    seen = []

    async def never(item: int) -> None:
        await anyio.sleep_forever()

    async def main() -> None:
        outcomes = stream(never, range(3))

        async def read() -> None:
            async for outcome in outcomes:
                seen.append(outcome)
            seen.append("end")

        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.lowlevel.checkpoint()
                for _ in range(rounds):
                    await anyio.lowlevel.checkpoint()
                await outcomes.aclose()

    run(main)
    assert seen == ["end"]


def test_a_second_reader_is_refused_even_as_the_first_wakes(run_asyncio: Any) -> None:
    """A stream has one reader: no second one takes the place of the first, which would wait for ever."""

    async def main() -> None:
        gate = asyncio.Event()

        async def work(item: int) -> int:
            await gate.wait()
            return item

        outcomes = stream(work, range(2), concurrency=1)
        first = asyncio.ensure_future(anext(outcomes))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(outcomes)
        # Just as the first has been woken, and has not run yet, the second comes.
        outcomes._inbox.put(Ok("stolen"))
        assert (await anext(outcomes)).value == "stolen"
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(outcomes)
        gate.set()
        assert await asyncio.wait_for(first, 5) == Ok(0, 0, None, 0, 1)
        await outcomes.aclose()

    run_asyncio(main)
