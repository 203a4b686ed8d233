"""One item's attempts: retries, timeouts, fallbacks, the run-wide cap, `waiting`, threads."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio

from asyncflow import (
    AsyncFlow,
    BatchNode,
    Flow,
    Retry,
    amap,
    waiting,
)
from asyncflow import run as run_flow
from asyncflow.clock import FakeClock
from asyncflow.engine.attempt import attempt
from asyncflow.engine.context import Cap, Run
from asyncflow.engine.hosts import running_host
from asyncflow.engine.slot import Deadlines, Slot
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.tasks import Expired
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
