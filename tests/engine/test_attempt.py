"""One item's attempts: retries, timeouts, fallbacks, the run-wide cap, `waiting`, threads."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from typing import Any

import anyio
import numpy as np
import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchNode,
    BatchNode,
    Flow,
    Retry,
    amap,
    run_sync,
    waiting,
)
from asyncflow import run as run_flow
from asyncflow.clock import FakeClock, sleep
from asyncflow.engine.attempt import attempt
from asyncflow.engine.cap import Cap
from asyncflow.engine.context import Run
from asyncflow.engine.hosts import running_host
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.tasks import Expired
from asyncflow.errors import ItemTimeoutError
from asyncflow.threads import ThreadPool


def test_a_job_that_ends_as_its_time_runs_out_gives_its_slot_back(run_asyncio: Any) -> None:
    """A thread's end and its timeout in the same turn of the loop leave no slot of the run's cap behind."""

    async def main() -> None:
        for job_first in (True, False):
            with FakeClock(autojump=False) as clock:
                host = running_host()
                cap = Cap(host, 1)
                gate = threading.Event()

                def work(item: int) -> None:
                    gate.wait(5)

                step = Step(call=work, name="work", mode=Mode.THREAD, timeout=1)
                slots: set[Slot] = set()
                pool = ThreadPool(1)
                slot = Slot(Run(host, cap=cap), step, Deadlines(host, slots), pool)
                slots.add(slot)
                task = asyncio.ensure_future(attempt(slot, 0))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                assert cap.running == 1
                if not job_first:
                    clock.jump(2)
                gate.set()
                while pool.statistics().running:  # the job has ended; the loop has not turned since
                    time.sleep(0.001)
                time.sleep(0.01)
                if job_first:
                    asyncio.get_running_loop().call_soon(clock.jump, 2)
                await asyncio.wait([task])
                assert isinstance(task.exception(), (Expired, type(None)))
                await asyncio.sleep(0)
                assert cap.running == 0

    run_asyncio(main)


def test_the_total_timeout_does_not_run_while_a_job_queues_for_a_thread(run: Any) -> None:
    """A second attempt that waits for the abandoned first to free its thread still has its time."""
    gate, first = threading.Event(), threading.Event()
    calls = []

    def work(item: int) -> str:
        calls.append(item)
        if len(calls) == 1:
            first.set()
            gate.wait(5)
        return "done"

    async def main() -> Any:
        with FakeClock(autojump=False) as clock:
            result = []

            async def call() -> None:
                retry = Retry(2, wait=0, jitter=0)
                result.append(await amap(work, [1], concurrency=1, timeout=1, total_timeout=10, retry=retry))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                while not first.is_set():
                    await clock.advance(0)
                await clock.advance(2)  # the first attempt is given up, the second queues
                await clock.advance(100)
                gate.set()
            return result

    assert run(main) == [["done"]]


def test_a_fallback_does_not_wait_for_the_job_that_was_given_up(run: Any) -> None:
    """When a call on a thread is abandoned, its plain fallback runs at once, not behind it."""
    gate = threading.Event()
    ended = []

    class Slow(BatchNode):
        concurrency = 2

        def prep(self, shared: Any) -> Any:
            return [1, 2]

        def exec(self, item: int) -> None:
            gate.wait(5)
            ended.append(item)

        def exec_fallback(self, item: int, exc: Exception) -> str:
            return f"instead of {item}"

        def post(self, shared: Any, prep_res: Any, results: Any) -> None:
            shared["results"] = results
            shared["early"] = not ended

    async def main() -> Any:
        try:
            return (await run_flow(AsyncFlow(start=Slow(timeout=0.01)))).shared
        finally:
            gate.set()

    assert run(main) == {"results": ["instead of 1", "instead of 2"], "early": True}


def test_two_tasks_of_one_exec_that_wait_in_turn_do_not_keep_the_slot(run: Any) -> None:
    """While one part of an exec waits for its slot back, another part begins to wait: no slot is taken."""

    async def main() -> None:
        host = running_host()
        cap = Cap(host, 1)
        place = Run(host, cap=cap)
        slot = Slot(place, Step(call=len, name="len"), None, None)
        assert cap.acquire_nowait()
        slot.holding = True
        slot.pause("first")
        assert cap.acquire_nowait()  # somebody else works meanwhile
        async with anyio.create_task_group() as group:
            group.start_soon(slot.resume)
            await anyio.wait_all_tasks_blocked()
            slot.pause("second")
            cap.release()
        assert cap.running == 0 and not slot.holding
        await slot.resume()
        assert cap.running == 1 and slot.holding and not slot.paused
        slot.end()
        assert cap.running == 0

    run(main)


def test_a_part_of_an_exec_that_outlives_it_takes_no_slot(run: Any) -> None:
    """A stray task that waits for the slot of an exec which has ended does not get it."""

    async def main() -> None:
        host = running_host()
        cap = Cap(host, 1)
        slot = Slot(Run(host, cap=cap), Step(call=len, name="len"), None, None)
        assert cap.acquire_nowait()
        slot.holding = True
        slot.pause("first")
        assert cap.acquire_nowait()
        async with anyio.create_task_group() as group:
            group.start_soon(slot.resume)
            await anyio.wait_all_tasks_blocked()
            slot.end()
            cap.release()
        assert cap.running == 0 and not slot.holding

    run(main)


def test_waiting_in_a_job_that_was_given_up_means_nothing() -> None:
    """An abandoned thread that leaves a `waiting` block after the run is not stuck there."""
    gate, left = threading.Event(), threading.Event()

    class Slow(BatchNode):
        concurrency = 2

        def prep(self, shared: Any) -> Any:
            return [1, 2]

        def exec(self, item: int) -> None:
            gate.wait(5)
            with waiting("too late"):
                pass
            left.set()

        def exec_fallback(self, item: int, exc: Exception) -> str:
            return "instead"

    Flow(start=Slow(timeout=0.01)).run({})
    gate.set()
    assert left.wait(5)


# Budgets.


def counting(kind: str, calls: dict[int, int], seen: list[tuple[int, int]]) -> Any:
    """A batch node whose items fail for good, in one of the engine's modes."""

    def plain(self: Any, item: int) -> Any:
        calls[item] = calls.get(item, 0) + 1
        seen.append((calls[item], self.cur_retry + 1))
        raise ValueError(item)

    async def awaited(self: Any, item: int) -> Any:
        await anyio.lowlevel.checkpoint()
        return plain(self, item)

    async def prep_async(self: Any, shared: Any) -> Any:
        return range(6)

    def prep(self: Any, shared: Any) -> Any:
        return range(6)

    if kind in ("inline", "threads"):
        body = {"prep": prep, "exec": plain, "concurrency": 1 if kind == "inline" else 3}
        return type("Work", (BatchNode,), body)
    body = {"prep_async": prep_async, "concurrency": 1 if kind == "async" else 3}
    body |= {"exec": plain} if kind == "async class, plain exec" else {"exec_async": awaited}
    return type("Work", (AsyncParallelBatchNode,), body)


@pytest.mark.parametrize("kind", ["inline", "threads", "async", "parallel", "async class, plain exec"])
@pytest.mark.parametrize("wait", [0, 1])
@pytest.mark.filterwarnings("ignore:Work is a plain node:RuntimeWarning")  # virtual seconds
def test_each_item_has_its_exact_budget(run: Any, kind: str, wait: float) -> None:
    """`max_retries=3` is three attempts for each item, whatever the mode, and `cur_retry` counts its own."""
    calls: dict[int, int] = {}
    seen: list[tuple[int, int]] = []

    async def main() -> None:
        with FakeClock():
            node = counting(kind, calls, seen)(3, wait, on_error="continue")
            await run_flow(AsyncFlow(start=node))

    run(main)
    assert calls == dict.fromkeys(range(6), 3)
    assert all(count == told for count, told in seen)


def test_parked_items_hold_no_worker_and_are_bounded(run: Any) -> None:
    """While items wait for their next attempt others run; past `concurrency` of them nothing is pulled."""
    pulled = 0

    def source() -> Any:
        nonlocal pulled
        for number in range(100):
            pulled += 1
            yield number

    async def work(item: int) -> int:
        if item % 2 == 0 and waiting_attempt() == 1:
            raise OSError
        return item

    def waiting_attempt() -> int:
        from asyncflow.waiting import current

        waiter: Any = current.get()
        return waiter.attempt

    async def main() -> Any:
        with FakeClock(autojump=False) as clock:
            results = []

            async def call() -> None:
                retry = Retry(2, wait=10, jitter=0)
                results.extend(await amap(work, source(), concurrency=4, retry=retry))

            async with anyio.create_task_group() as group:
                group.start_soon(call)
                await clock.advance(1)
                assert 7 <= pulled < 16  # four parked and the odd ones between them done, no more
                await clock.advance(1000)
            return results

    assert run(main) == list(range(100))


def test_fallbacks(run: Any) -> None:
    """A fallback's value is the result; what it raises in its turn is the item's failure, cause kept."""

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(3)

        async def exec_async(self, item: int) -> int:
            if item:
                raise KeyError(item)
            return item

        async def exec_fallback_async(self, item: int, exc: Exception) -> str:
            assert isinstance(exc, KeyError)
            if item == 2:
                raise ValueError("no way")
            return "instead"

        async def post_async(self, shared: Any, prep_res: Any, results: Any) -> None:
            shared["results"] = results

    async def main() -> Any:
        return (await run_flow(AsyncFlow(start=Work(on_error="continue")))).shared["results"]

    first, second, third = run(main)
    assert (first, second) == (0, "instead")
    assert isinstance(third.error, ValueError) and isinstance(third.error.__context__, KeyError)


# Timeouts.


def test_timeouts_bound_an_attempt_and_all_of_them(run: Any) -> None:
    """`timeout` ends an attempt, `total_timeout` the item, waits between attempts included."""
    attempts = []

    async def slow(item: int) -> None:
        attempts.append(item)
        await sleep(100)

    async def main() -> None:
        with FakeClock() as clock:
            with pytest.raises(ItemTimeoutError, match="attempt 3") as raised:
                await amap(slow, [1], timeout=2, retry=Retry(3, wait=1, factor=1, jitter=0))
            assert clock.now() == 2 + 1 + 2 + 1 + 2
            assert (raised.value.scope, raised.value.seconds, len(attempts)) == ("attempt", 2, 3)
        with FakeClock() as clock:
            with pytest.raises(ItemTimeoutError) as raised:
                await amap(slow, [1], timeout=2, total_timeout=4, retry=Retry(3, wait=1, factor=1, jitter=0))
            assert clock.now() == 4
            assert (raised.value.scope, raised.value.seconds) == ("total", 4)

    run(main)


def test_one_timer_serves_a_whole_pool(run: Any) -> None:
    """A hundred items under a timeout set one timer, not a hundred."""

    async def quick(item: int) -> int:
        await anyio.lowlevel.checkpoint()
        return item

    async def main() -> Any:
        with FakeClock(autojump=False) as clock:
            await amap(quick, range(100), concurrency=10, timeout=5)
            return clock.waits

    assert run(main) == [5]


def test_no_timeout_runs_while_an_item_queues_or_waits(run: Any) -> None:
    """Neither in the queue for the run's cap, nor inside `waiting`."""

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(5)

        async def exec_async(self, item: int) -> int:
            await sleep(2)
            async with waiting("rate limit"):
                await sleep(50)
            await sleep(0.5)
            return item

        async def post_async(self, shared: Any, prep_res: Any, results: Any) -> None:
            shared["results"] = results

    async def main() -> Any:
        with FakeClock():
            flow = AsyncFlow(start=Work(timeout=3, total_timeout=3))
            return (await run_flow(flow, concurrency=1)).shared["results"]

    assert run(main) == [0, 1, 2, 3, 4]


# The cap.


def test_a_cap_of_one_is_kept_and_nested_work_finishes(run: Any) -> None:
    """Parallel nodes, amap inside exec and `waiting` under a cap of one: all finish, never two at work."""
    at_work = most = 0

    async def inner(item: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await anyio.lowlevel.checkpoint()
        at_work -= 1
        return item

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(4)

        async def exec_async(self, item: int) -> int:
            await inner(0)
            async with waiting("nothing"):
                await anyio.lowlevel.checkpoint()
            return sum(await amap(inner, range(4), concurrency=3)) + await inner(item)

        async def post_async(self, shared: Any, prep_res: Any, results: Any) -> None:
            shared["results"] = results

    async def main() -> Any:
        return (await run_flow(AsyncFlow(start=Work()), concurrency=1)).shared["results"]

    assert run(main) == [6, 7, 8, 9]
    assert most == 1


def test_waiting_on_a_worker_thread_gives_the_slot_back(run: Any) -> None:
    """Under a cap of one a plain exec that waits lets another one work, and observers see it."""
    events: list[Any] = []
    other = threading.Event()

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(2)

        def exec(self, item: int) -> bool:
            if item == 0:
                with waiting("the other"):
                    return other.wait(5)
            other.set()
            return True

        async def post_async(self, shared: Any, prep_res: Any, results: Any) -> None:
            shared["results"] = results

    async def main() -> Any:
        flow = AsyncFlow(start=Work())
        return (await run_flow(flow, concurrency=1, observers=[events.append])).shared["results"]

    assert run(main) == [True, True]
    assert [type(event).__name__ for event in events].count("ItemWaiting") == 1
    assert [type(event).__name__ for event in events].count("ItemResumed") == 1


# Threads.


def test_nested_offloading_never_waits_for_itself(run: Any) -> None:
    """run_sync inside an offloaded exec, and a plain amap inside one, finish at a concurrency of one."""

    class Inner(AsyncNode):
        async def exec_async(self, prep_res: Any) -> int:
            return sum(await amap(abs, [-1, -2], concurrency=1))

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["sum"] = exec_res

    def nests(item: int) -> int:
        return item + run_sync(AsyncFlow(start=Inner())).shared["sum"]

    async def main() -> Any:
        return await amap(nests, range(4), concurrency=1)

    assert run(main) == [3, 4, 5, 6]


def test_the_loop_s_default_executor_is_never_used() -> None:
    """Filling it would delay name lookups for the whole program."""

    async def main() -> Any:
        results = await amap(abs, iter([-1, -2]), concurrency=2)
        assert asyncio.get_running_loop()._default_executor is None  # type: ignore[attr-defined]
        return results

    assert asyncio.run(main()) == [1, 2]


def test_the_loop_goes_on_while_threads_compute() -> None:
    """Eight NumPy calls at once leave the loop to others."""
    turns = 0

    def compute(item: int) -> float:
        matrix = np.full((100, 100), 1.0 + item)
        for _ in range(10):
            matrix = matrix @ matrix / matrix.sum()
        return float(matrix[0, 0])

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    async def main() -> None:
        ticker = asyncio.ensure_future(count())
        await amap(compute, range(16), concurrency=8)
        await asyncio.sleep(0.01)
        ticker.cancel()

    asyncio.run(main())
    assert turns


def test_ctrl_c_ends_a_synchronous_run_after_its_threads(monkeypatch: Any) -> None:
    """KeyboardInterrupt while a plain flow waits for threads: jobs at work end, the others never start."""
    started, ended = [], []

    class Work(BatchNode):
        concurrency = 2

        def prep(self, shared: Any) -> Any:
            return range(50)

        def exec(self, item: int) -> None:
            started.append(item)
            if item == 1:
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.02)
            ended.append(item)

    with pytest.raises(KeyboardInterrupt):
        Flow(start=Work()).run({})
    assert sorted(started) == sorted(ended) and len(started) < 10


def test_a_timeout_shows_nothing_of_the_engine() -> None:
    """The error of a timeout has no context of the engine's own; a class that is no exception is refused."""

    async def main() -> None:
        with FakeClock():
            with pytest.raises(TimeoutError) as caught:
                await amap(asyncio.sleep, [3600], timeout=1)
        assert caught.value.__context__ is None

    asyncio.run(main())
    with pytest.raises(TypeError, match="class of exceptions"):
        Retry(on=int)
