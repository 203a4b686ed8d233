"""`stream`: reading, order, holding the source back, closing early."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
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


async def double(item: int) -> int:
    for _ in range(item % 3):
        await anyio.lowlevel.checkpoint()
    return 2 * item


@pytest.mark.parametrize("ordered", [False, True])
def test_every_item_is_yielded_once(run: Any, ordered: bool) -> None:
    """Unordered in the order of completion, ordered in that of the input; each knows its item."""

    async def main() -> Any:
        return [outcome async for outcome in stream(double, range(50), concurrency=4, ordered=ordered)]

    outcomes = run(main)
    if ordered:
        assert [outcome.index for outcome in outcomes] == list(range(50))
    expected = [Ok(2 * item, item, None, item, 1) for item in range(50)]
    assert sorted(outcomes, key=lambda outcome: outcome.index) == expected


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_slow_reader_holds_the_source_back(run: Any, ordered: bool, concurrency: int) -> None:
    """At most 2 × concurrency items are started and not yet read, at every read."""
    started = 0

    def source() -> Iterator[int]:
        nonlocal started
        while True:
            started += 1
            yield started

    async def main() -> None:
        read = 0
        async with stream(double, source(), concurrency=concurrency, ordered=ordered) as outcomes:
            async for _ in outcomes:
                read += 1
                for _ in range(20):
                    await anyio.lowlevel.checkpoint()
                assert started - read <= 2 * concurrency
                if read == 30:
                    break
        assert started <= 30 + 2 * concurrency

    run(main)


@pytest.mark.parametrize("how", ["break", "aclose", "raise", "cancel", "drop"])
@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_ending_early_cancels_what_is_in_flight_and_closes_the_source(run: Any, how: str, kind: str) -> None:
    """Leaving the block, closing, an error in the reader, a cancelled read, dropping it: all end it."""
    cancelled: list[int] = []
    closed: list[str] = []

    def generator() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(kind)

    async def async_generator() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append(kind)

    async def work(item: int) -> int:
        if item == 0:
            return item
        try:
            await anyio.sleep_forever()
        except BaseException:
            cancelled.append(item)
            raise
        return item

    async def main() -> None:
        source = generator() if kind == "generator" else async_generator()
        outcomes = stream(work, source, concurrency=3)
        if how == "break":
            async with outcomes:
                async for _ in outcomes:
                    break
        elif how == "aclose":
            await anext(outcomes)
            await outcomes.aclose()
            await outcomes.aclose()
        elif how == "raise":
            with pytest.raises(KeyError):
                async with outcomes:
                    async for _ in outcomes:
                        raise KeyError
        elif how == "cancel":
            await anext(outcomes)
            with anyio.move_on_after(0.01) as scope:
                await anext(outcomes)
            assert scope.cancelled_caught
        else:
            await anext(outcomes)
            del outcomes
            gc.collect()
            with anyio.fail_after(5):
                while not closed:
                    await anyio.lowlevel.checkpoint()
            return
        # A cancelled read has dropped what was unread: reading on must not look like a normal end.
        with pytest.raises(RuntimeError if how == "cancel" else StopAsyncIteration):
            await anext(outcomes)
        assert repr(outcomes).startswith("<Stream 'work' closed [")

    run(main)
    assert closed == [kind]
    assert cancelled and 0 not in cancelled


def test_outcomes_come_before_the_error(run: Any) -> None:
    """What finished is yielded first, then the first failure is raised once, then it is over."""

    async def work(item: int) -> int:
        if item == 2:
            await anyio.lowlevel.checkpoint()
            raise ValueError
        return item

    async def main() -> None:
        outcomes = stream(work, range(3), concurrency=3, ordered=True)
        seen = []
        with pytest.raises(ValueError) as raised:
            async for outcome in outcomes:
                seen.append(outcome.value)
        assert seen == [0, 1]
        assert raised.value.__notes__ == ["asyncflow: work, item 2 (2), attempt 1"]
        with pytest.raises(StopAsyncIteration):
            await anext(outcomes)

    run(main)


def test_statistics_and_repr_are_live(run: Any) -> None:
    """Both say what is so now, before, during and after."""

    async def main() -> None:
        gate = anyio.Event()

        async def work(item: int) -> int:
            if item:
                await gate.wait()
            return item

        outcomes = stream(work, range(3), concurrency=2)
        assert (
            repr(outcomes) == "<Stream 'work' not started [0 in flight, 0 parked, 0 unread; 0 ok, 0 failed]>"
        )
        await anext(outcomes)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        now = outcomes.statistics()
        assert (now.started, now.succeeded, now.in_flight) == (3, 1, 2)
        assert repr(outcomes) == "<Stream 'work' open [2 in flight, 0 parked, 0 unread; 1 ok, 0 failed]>"
        gate.set()
        assert len([outcome async for outcome in outcomes]) == 2
        assert outcomes.statistics().succeeded == 3
        assert repr(outcomes) == "<Stream 'work' closed [0 in flight, 0 parked, 0 unread; 3 ok, 0 failed]>"

    run(main)


def test_a_stream_that_is_never_read_starts_nothing(run: Any) -> None:
    """Nothing is pulled before the first outcome is asked for, and closing it costs nothing."""

    def source() -> Iterator[int]:
        raise AssertionError
        yield 1

    async def main() -> None:
        outcomes = stream(double, source())
        await anyio.lowlevel.checkpoint()
        await outcomes.aclose()

    run(main)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_closing_twice_does_not_cut_the_cleanup(run_asyncio: Any, concurrency: int) -> None:
    """Two that close a stream at once both wait until what was in flight has cleaned up."""
    cleaned: list[int] = []

    async def work(item: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            cleaned.append(item)

    async def main() -> None:
        outcomes = stream(work, range(5), concurrency=concurrency)
        reader = asyncio.ensure_future(anext(outcomes, None))
        for _ in range(5):
            await asyncio.sleep(0)
        first = asyncio.ensure_future(outcomes.aclose())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await outcomes.aclose()
        assert sorted(cleaned) == list(range(concurrency))
        await first
        assert await reader is None

    run_asyncio(main)
