"""The bounded pool."""

from __future__ import annotations

import asyncio
import gc
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

from asyncflow import Failed, Ok, Retry, Stop, amap, stream
from asyncflow.clock import FakeClock, sleep
from asyncflow.errors import CoroutineReturnedError, ItemCancelledError, TooManyFailuresError


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


@pytest.mark.parametrize("concurrency", [1, 2, 64, 10_000])
def test_never_more_than_concurrency_items_are_at_work(run: Any, concurrency: int) -> None:
    """The bound holds at every moment, every item runs exactly once, results keep the input's order."""
    at_work = most = 0
    seen = []
    count = 3 * min(concurrency, 1000) + 1

    async def work(item: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        seen.append(item)
        for _ in range(1 + item % 3):
            await anyio.lowlevel.checkpoint()
        at_work -= 1
        return -item

    async def main() -> Any:
        return [
            await amap(work, range(count), concurrency=concurrency),
            await amap(work, iter(range(count)), concurrency=concurrency),
        ]

    expected = [-item for item in range(count)]
    assert run(main) == [expected, expected]
    assert sorted(seen) == sorted([*range(count), *range(count)])
    assert most == min(concurrency, count)


@pytest.mark.parametrize("kind", ["generator", "async generator"])
def test_the_source_is_pulled_one_item_for_each_free_place(run: Any, kind: str) -> None:
    """At each moment as many items are pulled as have a place, and not one more."""
    pulled: list[int] = []
    gates: dict[int, anyio.Event] = {}

    def numbers() -> Iterator[int]:
        for number in range(6):
            pulled.append(number)
            yield number

    async def numbers_async() -> AsyncIterator[int]:
        for number in range(6):
            pulled.append(number)
            yield number

    async def work(item: int) -> None:
        await gates[item].wait()

    async def main() -> None:
        gates.update({item: anyio.Event() for item in range(6)})
        async with anyio.create_task_group() as group:
            group.start_soon(call)
            for done in range(6):
                for _ in range(30):
                    await anyio.lowlevel.checkpoint()
                assert pulled == list(range(min(6, 2 + done)))
                gates[done].set()

    async def call() -> None:
        await amap(work, numbers() if kind == "generator" else numbers_async(), concurrency=2)

    run(main)


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.integers(0, 5), max_size=30),
    concurrency=st.integers(1, 8),
    lengthless=st.booleans(),
    ordered=st.booleans(),
)
def test_amap_equals_the_plain_loop(
    items: list[int], concurrency: int, lengthless: bool, ordered: bool
) -> None:
    """Whatever the items, the concurrency and the failures: the same values and the same errors."""

    async def work(item: int) -> int:
        for _ in range(item % 3):
            await asyncio.sleep(0)
        if item == 5:
            raise ValueError(item)
        return 2 * item

    async def main() -> None:
        results = await amap(
            work, iter(items) if lengthless else items, concurrency=concurrency, on_error="continue"
        )
        assert len(results) == len(items)
        for index, (item, result) in enumerate(zip(items, results, strict=True)):
            if item == 5:
                assert isinstance(result, Failed) and isinstance(result.error, ValueError)
                assert (result.index, result.item, result.attempts) == (index, 5, 1)
            else:
                assert result == 2 * item
        source = iter(items) if lengthless else items
        async with stream(
            work, source, concurrency=concurrency, on_error="continue", ordered=ordered
        ) as outcomes:
            read = [outcome async for outcome in outcomes]
        indices = [outcome.index for outcome in read]
        assert (indices if ordered else sorted(indices)) == list(range(len(items)))

    asyncio.run(main())


def test_tasks_grow_with_concurrency_and_not_with_items(run_asyncio: Any) -> None:
    """Ten thousand items at a concurrency of eight never have more than eight tasks."""
    most = 0

    async def work(item: int) -> None:
        nonlocal most
        if item % 100 == 0:
            most = max(most, len(asyncio.all_tasks()))
        await asyncio.sleep(0)

    async def main() -> None:
        await amap(work, iter(range(10_000)), concurrency=8)

    run_asyncio(main)
    assert most <= 8 + 1


def test_blocking_iterators_are_pulled_off_the_loop(run: Any) -> None:
    """In front of plain calls a plain iterator is asked on a thread, one question at a time."""
    loop_thread = threading.get_ident()
    asked: list[int] = []

    def blocking() -> Iterator[int]:
        for number in range(5):
            asked.append(threading.get_ident())
            yield number

    async def main() -> Any:
        return await amap(lambda item: item + 1, blocking(), concurrency=3)

    assert run(main) == [1, 2, 3, 4, 5]
    assert loop_thread not in asked


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_generator_that_was_read_before_is_named(run: Any, kind: str) -> None:
    """It gives no items, and nobody would notice: a warning says so."""

    def once() -> Iterator[int]:
        yield 1

    async def once_async() -> AsyncIterator[int]:
        yield 1

    async def same(number: int) -> int:
        return number

    async def main() -> None:
        items: Any = once() if kind == "plain" else once_async()
        assert await amap(same, items) == [1]
        with pytest.warns(RuntimeWarning, match="the generator once.* has been read to its end before"):
            assert await amap(same, items) == []

    run(main)


def test_a_source_that_raises_names_the_node_and_the_item(run: Any) -> None:
    """The source's own exception is raised, with a note that says where in the input it was."""

    def source() -> Iterator[int]:
        yield from range(3)
        raise KeyError("row 4")

    async def double(item: int) -> int:
        return 2 * item

    async def main() -> None:
        for on_error in ("raise", "continue", 3):
            with pytest.raises(KeyError) as raised:
                await amap(double, source(), on_error=on_error)
            assert raised.value.__notes__ == ["asyncflow: double: raised by the source of items, at item 3"]
        seen = []
        with pytest.raises(KeyError):
            async for outcome in stream(double, source()):
                seen.append(outcome.value)
        assert seen == [0, 2, 4]  # what finished is not lost

    run(main)


@pytest.mark.parametrize("ends", ["early", "at the end"])
@pytest.mark.parametrize("plain", [False, True])
def test_the_source_is_closed(run: Any, ends: str, plain: bool) -> None:
    """A generator, an async generator and an iterator with `close` are closed, however the call ends."""
    closed = []

    def generator() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append("generator")

    async def async_generator() -> AsyncIterator[int]:
        try:
            for number in range(100):
                yield number
        finally:
            closed.append("async generator")

    class Reader:
        def __init__(self) -> None:
            self.rows = iter(range(100))

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> int:
            return next(self.rows)

        def close(self) -> None:
            closed.append("reader")

    def work(item: int) -> None:
        if item == 50 and ends == "early":
            raise ValueError

    async def work_async(item: int) -> None:
        work(item)

    async def main() -> None:
        for source in (generator(), async_generator(), Reader()):
            try:
                await amap(work if plain else work_async, source, concurrency=2)
            except ValueError:
                assert ends == "early"

    run(main)
    assert closed == ["generator", "async generator", "reader"]


# Errors.


def test_the_first_failure_is_the_item_s_own_exception_with_a_note(run: Any) -> None:
    """The very object that the item raised, noted with node, item and attempts; no group."""
    error = ValueError("bad")

    async def work(item: str) -> None:
        if item == "b":
            raise error
        await anyio.sleep_forever()

    async def main() -> None:
        with pytest.raises(ValueError) as raised:
            await amap(work, "a b c".split(), retry=Retry(2, wait=0, on=ValueError))
        assert raised.value is error
        assert error.__notes__ == ["asyncflow: work, item 1 ('b'), attempt 2"]

    run(main)


def test_a_count_or_a_share_of_failures_stops_the_call(run: Any) -> None:
    """TooManyFailuresError comes once so many have failed, and carries every outcome there is."""

    async def odd_fails(item: int) -> int:
        if item % 2:
            raise ValueError(item)
        return item

    async def stopped(items: Any, on_error: Any) -> Any:
        with pytest.raises(TooManyFailuresError) as raised:
            await amap(odd_fails, items, concurrency=1, on_error=on_error)
        return raised.value.outcomes

    async def main() -> None:
        outcomes = await stopped(range(100), 3)
        assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4, 5]
        assert [type(outcome) for outcome in outcomes] == [Ok, Failed] * 3
        assert len(await stopped(range(100), 0.05)) == 10  # five of a hundred have failed
        assert len(await stopped(iter(range(1000)), 0.05)) == 100  # counts from the hundredth on
        results = await amap(odd_fails, range(10), on_error=6)
        assert sum(isinstance(result, Failed) for result in results) == 5

    run(main)


def test_a_failure_that_is_kept_keeps_no_frame_alive(run: Any) -> None:
    """A local of the failed call is gone, although the error, its cause and its context are there."""
    dead: list[Any] = []

    class Big:
        pass

    async def work(item: int) -> None:
        big = Big()
        dead.append(weakref.ref(big))
        try:
            raise KeyError(item)
        except KeyError as exc:
            raise ValueError(item) from exc

    def plain(item: int) -> None:
        big = Big()
        dead.append(weakref.ref(big))
        raise ValueError(item)

    async def main() -> None:
        for function in (work, plain):
            results = await amap(function, range(3), on_error="continue")
            assert all(reference() is None for reference in dead)
            assert "in " + function.__name__ in results[0].traceback

    run(main)
    assert len(dead) == 6


def test_exceptions_that_misbehave_are_passed_on_all_the_same(run: Any) -> None:
    """`__str__` and `__repr__` that raise, and attributes that are forbidden, do not hide the error."""

    class Bad(Exception):
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

        def add_note(self, note: str) -> None:
            raise RuntimeError

    class BadItem:
        def __repr__(self) -> str:
            raise RuntimeError

    async def work(item: Any) -> None:
        raise Bad

    async def main() -> None:
        with pytest.raises(Bad):
            await amap(work, [BadItem()])
        [failed] = await amap(work, [BadItem()], on_error="continue")
        assert type(failed.error) is Bad
        with pytest.raises(TooManyFailuresError, match="<Bad "):
            await amap(work, [1], on_error=1)

    run(main)


def test_an_exec_that_cancels_itself_has_failed(run_asyncio: Any) -> None:
    """CancelledError that nobody asked for is the item's failure, never a silent None."""

    async def raises(item: int) -> None:
        raise asyncio.CancelledError

    async def awaits(item: int) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async def main() -> None:
        for function in (raises, awaits):
            for concurrency in (1, 4):
                with pytest.raises(ItemCancelledError, match="item 0"):
                    await amap(function, [1, 2], concurrency=concurrency)
                results = await amap(function, [1, 2], concurrency=concurrency, on_error="continue")
                assert [type(result.error) for result in results] == [ItemCancelledError] * 2

    run_asyncio(main)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["exec", "thread", "source"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_ctrl_c_and_exit_reach_the_caller(kind: Any, where: str, concurrency: int) -> None:
    """Raised inside an exec, on a thread or in the source they are no item's failure."""

    async def work(item: int) -> None:
        if where == "exec":
            raise kind
        await asyncio.sleep(0)

    def plain(item: int) -> None:
        raise kind

    def source() -> Iterator[int]:
        yield 1
        if where == "source":
            raise kind
        yield 2

    async def main() -> None:
        function = plain if where == "thread" else work
        await amap(function, source(), concurrency=concurrency, on_error="continue", retry=Retry(5))

    with pytest.raises(kind):
        asyncio.run(main())


# Context.


@pytest.mark.parametrize("concurrency", [1, 2])
def test_context_variables_belong_to_the_item(run: Any, concurrency: int) -> None:
    """What an item sets is not seen by the next, arrays that cannot be compared included."""
    variable: ContextVar[Any] = ContextVar("variable", default=None)
    array: ContextVar[Any] = ContextVar("array", default=None)
    seen = []

    async def work(item: int) -> None:
        seen.append((variable.get(), array.get()))
        variable.set(item)
        array.set(np.arange(item + 2))
        await anyio.lowlevel.checkpoint()
        assert variable.get() == item

    async def main() -> None:
        variable.set("caller's")
        array.set(given := np.arange(3))
        await amap(work, range(20), concurrency=concurrency)
        assert all(value == "caller's" and item is given for value, item in seen)
        assert variable.get() == "caller's" and array.get() is given

    run(main)
    assert len(seen) == 20


def test_threads_see_the_caller_s_context(run: Any) -> None:
    """Context variables and NumPy's errstate read the same on worker threads."""
    variable: ContextVar[int] = ContextVar("variable", default=0)

    def work(item: int) -> Any:
        mine = variable.get(), np.geterr()["divide"]
        variable.set(item)
        return mine

    async def main() -> Any:
        variable.set(7)
        with np.errstate(divide="raise"):
            return await amap(work, range(10), concurrency=2)

    assert run(main) == [(7, "raise")] * 10


@pytest.mark.parametrize("arguments", [{}, {"retry": Retry(2, wait=0), "timeout": 60.0}, {"stop": Stop()}])
def test_a_call_leaves_nothing_to_the_garbage_collector(arguments: dict[str, Any]) -> None:
    """A pool that has ended, its slots and its workers' tasks are freed by counting references."""

    async def work(item: int) -> int:
        await asyncio.sleep(0)
        return item

    async def main() -> list[object]:
        await amap(work, range(100), **arguments)  # what is made once and kept
        gc.collect()
        gc.disable()
        try:
            await amap(work, range(100), **arguments)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            return list(gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    assert asyncio.run(main()) == []


@pytest.mark.parametrize("options", [{}, {"timeout": 5.0}, {"retry": Retry(attempts=2)}])
def test_a_forgotten_await_is_told(options: dict[str, Any]) -> None:
    """A coroutine is nobody's result: the item fails, and the error says what is missing."""

    async def call(item: int) -> int:
        return item

    async def ask(item: int) -> Any:
        return call(item) if item == 1 else await call(item)

    done = asyncio.run(amap(ask, range(3), on_error="continue", **options))
    assert done[0] == 0 and done[2] == 2
    assert isinstance(done[1], Failed) and isinstance(done[1].error, CoroutineReturnedError)
    assert "`await` is missing" in str(done[1].error)
