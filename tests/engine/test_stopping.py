"""A run that is asked to stop: nothing more begins, what is in flight ends and is kept."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import anyio
import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchFlow,
    BatchNode,
    Flow,
    Node,
    Retry,
    Stop,
    amap,
    stream,
)
from asyncflow import run as run_flow
from asyncflow.clock import FakeClock
from asyncflow.durability import MemoryStore
from asyncflow.errors import RunStoppedError, StoreError, TooManyFailuresError
from asyncflow.policy.limits import Limits

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


class Gate:
    """Items begin, and end when it is opened."""

    def __init__(self) -> None:
        self.begun: list[Any] = []
        self.ended: list[Any] = []
        self.cut: list[Any] = []
        self.open = anyio.Event()
        self.full = anyio.Event()
        self.size = 4

    async def pass_(self, item: Any) -> Any:
        self.begun.append(item)
        if len(self.begun) == self.size:
            self.full.set()
        try:
            await self.open.wait()
        except BaseException:
            self.cut.append(item)
            raise
        self.ended.append(item)
        return item


SOURCES: dict[str, Callable[[], Any]] = {
    "list": lambda: list(range(100)),
    "generator": lambda: iter(range(100)),
    "endless": itertools.count,
    "async": lambda: counted(100),
}


async def counted(length: int) -> AsyncIterator[int]:
    for number in range(length):
        yield number


@pytest.mark.parametrize("kind", SOURCES)
def test_what_is_in_flight_ends_and_nothing_else_begins(run: Run, kind: str) -> None:
    """Whatever the source; the results of those in flight are recorded, and the run can be resumed."""
    store = MemoryStore()

    async def main() -> None:
        gate, stop = Gate(), Stop()

        async def asks() -> None:
            await gate.full.wait()
            stop.request("enough")
            await anyio.sleep(0)
            gate.open.set()

        async with anyio.create_task_group() as group:
            group.start_soon(asks)
            with pytest.raises(RunStoppedError, match="run_id='r' goes on") as caught:
                await amap(gate.pass_, SOURCES[kind](), concurrency=4, store=store, run_id="r", stop=stop)
        assert (caught.value.reason, caught.value.run_id) == ("enough", "r")
        assert sorted(gate.ended) == [0, 1, 2, 3] == gate.begun and gate.cut == []

        again = Gate()
        again.open.set()
        await amap(again.pass_, range(10), store=store, run_id="r", changed="keep")
        assert sorted(again.begun) == [4, 5, 6, 7, 8, 9]

    run(main)


def test_after_the_grace_they_are_cut_off(run_asyncio: Run) -> None:
    """On virtual time: not before, and not later."""

    async def main() -> None:
        gate, stop = Gate(), Stop(grace=7)

        async def asks() -> None:
            await gate.full.wait()
            stop.request("enough")

        with FakeClock() as clock:
            async with anyio.create_task_group() as group:
                group.start_soon(asks)
                with pytest.raises(RunStoppedError):
                    await amap(gate.pass_, range(100), concurrency=4, stop=stop)
        assert sorted(gate.cut) == [0, 1, 2, 3] and clock.waits == [7]

    run_asyncio(main)


def test_told_to_cancel_they_are_cut_off_at_once(run: Run) -> None:
    """With or without a request before it; cleanup runs to its end, and the task is not left cancelled."""

    async def main() -> None:
        for first in (True, False):
            gate, stop = Gate(), Stop(grace=1000)

            async def asks() -> None:
                await gate.full.wait()
                if first:
                    stop.request("enough")
                stop.cancel("now")

            async with anyio.create_task_group() as group:
                group.start_soon(asks)
                with pytest.raises(RunStoppedError) as caught:
                    await amap(gate.pass_, range(100), concurrency=4, stop=stop)
                await anyio.sleep(0)
            assert caught.value.reason == ("enough" if first else "now")
            assert sorted(gate.cut) == [0, 1, 2, 3] == gate.begun

    run(main)


@pytest.mark.parametrize("concurrency", [4, 1])
@pytest.mark.parametrize(
    "source", [lambda: range(4), lambda: (n for n in range(4)), lambda: iter([0, 1, 2, 3])]
)
def test_a_run_that_is_done_by_then_is_no_error(
    run: Run, source: Callable[[], Any], concurrency: int
) -> None:
    """Where nothing was left to do the result is the result, also where only the source knows that."""

    async def main() -> list[int]:
        gate, stop = Gate(), Stop()

        async def asks() -> None:
            await gate.full.wait()
            stop.request("late")
            gate.open.set()

        async def pass_(item: int) -> int:
            if concurrency == 1 and item < 3:
                gate.begun.append(item)
                return item
            result: int = await gate.pass_(item)
            return result

        async with anyio.create_task_group() as group:
            group.start_soon(asks)
            return await amap(pass_, source(), concurrency=concurrency, stop=stop)

    assert run(main) == [0, 1, 2, 3]


def test_a_source_that_breaks_when_it_is_asked_once_more_does_not_hide_the_stop(run: Run) -> None:
    """What it raises comes too late to matter."""

    def breaks() -> Iterator[int]:
        yield from range(4)
        raise OSError("gone")

    async def main() -> None:
        gate, stop = Gate(), Stop()

        async def asks() -> None:
            await gate.full.wait()
            stop.request("late")
            gate.open.set()

        async with anyio.create_task_group() as group:
            group.start_soon(asks)
            with pytest.raises(RunStoppedError):
                await amap(gate.pass_, breaks(), concurrency=4, stop=stop)
        assert gate.cut == []

    run(main)


def test_a_stopped_stop_lets_nothing_begin(run: Run) -> None:
    """Not even the first item of a run that begins later."""

    async def main() -> None:
        gate, stop = Gate(), Stop()
        stop.request("before")
        with pytest.raises(RunStoppedError):
            await amap(gate.pass_, range(4), stop=stop)
        assert gate.begun == []

    run(main)


def test_parked_items_are_not_tried_again(run: Run) -> None:
    """Nor is an attempt that fails while the run stops; none of them is recorded as a failure."""
    store = MemoryStore()

    async def main() -> None:
        stop, calls = Stop(), []

        async def fails(item: int) -> None:
            calls.append(item)
            if len(calls) == 3:
                stop.request("enough")
                await anyio.sleep(0)
            raise OSError(item)

        retry = Retry(attempts=5, wait=1000)
        with pytest.raises(RunStoppedError, match="0 items done, 3 given up"):
            await amap(
                fails, range(3), concurrency=3, retry=retry, stop=stop, store=store, run_id="r", on_error=0.9
            )
        assert sorted(calls) == [0, 1, 2]
        assert store._log == []

    run(main)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_source_that_waits_does_not_keep_the_run(run: Run, concurrency: int) -> None:
    """Where only the wait for an item is left, that is ended."""

    async def main() -> None:
        stop, closed = Stop(grace=1000), []

        async def source() -> AsyncIterator[int]:
            try:
                yield 0
                yield 1
                stop.request("enough")
                await anyio.Event().wait()
            finally:
                closed.append(True)

        async def work(item: int) -> int:
            return item

        with pytest.raises(RunStoppedError):
            await amap(work, source(), concurrency=concurrency, stop=stop)
        assert closed == [True]

    run(main)


@pytest.mark.parametrize("on_error", ["raise", 1])
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_source_that_waits_does_not_keep_a_failure(
    run: Run, concurrency: int, durable: bool, on_error: Any
) -> None:
    """Nothing is left at work but the wait for an item that will not be begun: the call raises at once."""

    async def main() -> None:
        closed = []

        async def source() -> AsyncIterator[int]:
            try:
                yield 0
                await anyio.Event().wait()
            finally:
                closed.append(True)

        async def work(item: int) -> int:
            raise ValueError(item)

        kept: dict[str, Any] = {"store": MemoryStore(), "run_id": "r"} if durable else {}
        with anyio.fail_after(10), pytest.raises((ValueError, TooManyFailuresError)):
            await amap(work, source(), concurrency=concurrency, on_error=on_error, **kept)
        assert closed == [True]

    run(main)


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_lost_store_cuts_off_what_is_at_work(run: Run, concurrency: int) -> None:
    """With one worker as with more, and the calling task is not left cancelled."""

    async def main() -> None:
        store = MemoryStore()
        store.failures = [ValueError("gone")]

        async def work(item: int) -> int:
            if item:
                await anyio.Event().wait()
            return item

        with anyio.fail_after(10):
            with pytest.raises(StoreError):
                await amap(work, range(3), concurrency=concurrency, store=store, run_id="r")
            await anyio.sleep(0)
        assert await amap(_same, [1], concurrency=1) == [1]

    run(main)


async def _same(item: int) -> int:
    await anyio.sleep(0)
    return item


def test_a_stream_yields_what_is_done_first(run: Run) -> None:
    """In order or not: all that ended, then the error."""

    async def main() -> None:
        for ordered in (True, False):
            gate, stop, seen = Gate(), Stop(), []

            async def asks() -> None:
                await gate.full.wait()
                stop.request("enough")
                gate.open.set()

            async with anyio.create_task_group() as group:
                group.start_soon(asks)
                with pytest.raises(RunStoppedError):
                    async for outcome in stream(
                        gate.pass_, itertools.count(), concurrency=4, ordered=ordered, stop=stop
                    ):
                        seen.append(outcome.value)
            assert sorted(seen) == [0, 1, 2, 3]

    run(main)


class Steps(AsyncNode):
    """Counts itself, goes on to the next; the second asks to stop while it works."""

    async def exec_async(self, prep_res: Any) -> Any:
        self.params["log"].append((self.params["n"], self.name))
        if self.name == "two" and self.params["n"] == self.params["asks"]:
            self.params["stop"].request("enough")
        await anyio.sleep(0)


def test_the_branches_of_a_batch_flow_end_the_step_they_are_at(run: Run) -> None:
    """No branch takes another step, none is cut off in the middle of one, and none is a failure."""

    async def main() -> None:
        log: list[Any] = []
        stop = Stop()

        class All(AsyncParallelBatchFlow):
            async def prep_async(self, shared: Any) -> Any:
                return [{"n": n, "log": log, "stop": stop, "asks": 1} for n in range(20)]

        one, two, three = (Steps(name=name) for name in ("one", "two", "three"))
        one >> two >> three
        with pytest.raises(RunStoppedError):
            await run_flow(All(start=one, concurrency=3, on_error="continue"), {}, stop=stop)
        assert not any(name == "three" for _, name in log)
        assert {n for n, _ in log} <= set(range(6))

    run(main)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("kind", [Flow, AsyncFlow, BatchFlow])
def test_plain_items_that_never_suspend_stop_too(kind: Any, offload: bool) -> None:
    """A plain batch node in place holds the loop, and still begins nothing more once it is asked."""
    stop, begun = Stop(), []

    class Items(BatchNode):
        def prep(self, shared: Any) -> Any:
            return range(100)

        def exec(self, item: int) -> int:
            begun.append(item)
            if item == 4:
                stop.request("enough")
            return item

    class All(BatchFlow):
        def prep(self, shared: Any) -> Any:
            return [{"n": 1}, {"n": 2}]

    flow = All(start=Items()) if kind is BatchFlow else kind(start=Items())
    flow.offload = offload
    store = MemoryStore()
    with pytest.raises(RunStoppedError):
        asyncio.run(run_flow(flow, {}, stop=stop, store=store, run_id="r"))
    assert begun == [0, 1, 2, 3, 4]
    assert len([record for record in store._log if record.kind == 0]) == 5


def test_a_single_node_between_two_attempts_is_not_tried_again(run: Run) -> None:
    """Its wait ends at once."""

    async def main() -> None:
        stop, calls = Stop(), []

        class Fails(AsyncNode):
            async def exec_async(self, prep_res: Any) -> Any:
                calls.append(1)
                raise OSError("no")

        async def asks() -> None:
            while not calls:
                await anyio.sleep(0)
            stop.request("enough")

        async with anyio.create_task_group() as group:
            group.start_soon(asks)
            with pytest.raises(RunStoppedError):
                await run_flow(AsyncFlow(start=Fails(max_retries=3, wait=1000)), {}, stop=stop)
        assert calls == [1]

    run(main)


def test_items_that_queue_for_the_cap_do_not_begin(run: Run) -> None:
    """A run-wide cap of 1: of four that were taken, one runs."""

    async def main() -> None:
        gate, stop = Gate(), Stop()
        gate.size = 1

        class Items(AsyncParallelBatchNode):
            async def prep_async(self, shared: Any) -> Any:
                return range(100)

            async def exec_async(self, item: int) -> Any:
                return await gate.pass_(item)

        async def asks() -> None:
            await gate.full.wait()
            stop.request("enough")
            gate.open.set()

        async with anyio.create_task_group() as group:
            group.start_soon(asks)
            with pytest.raises(RunStoppedError):
                await run_flow(AsyncFlow(start=Items(concurrency=4)), {}, concurrency=1, stop=stop)
        assert gate.begun == gate.ended == [0]

    run(main)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("source", ["list", "quiet"])
@pytest.mark.parametrize("lane", [True, False])
def test_items_that_queue_do_not_begin_after_a_failure_or_a_request(
    run: Run, lane: bool, source: str, fails: bool
) -> None:
    """In a lane of `limits=` as at the run-wide cap, with a store, whose failures wait for their commit."""

    async def main() -> None:
        gate, stop = Gate(), Stop()
        gate.size = 1

        async def quiet() -> AsyncIterator[int]:
            for number in range(4):
                yield number
            await anyio.Event().wait()

        class Items(AsyncParallelBatchNode):
            limits = Limits(concurrency=1) if lane else None

            async def prep_async(self, shared: Any) -> Any:
                return range(100) if source == "list" else quiet()

            async def exec_async(self, item: int) -> Any:
                await gate.pass_(item)
                if fails:
                    raise ValueError(item)

        async def asks() -> None:
            await gate.full.wait()
            for _ in range(20):  # until the others queue
                await anyio.sleep(0)
            if not fails:
                stop.request("enough")
            gate.open.set()

        store = MemoryStore()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(asks)
                with pytest.raises(ValueError if fails else RunStoppedError):
                    cap = None if lane else 1
                    flow = AsyncFlow(start=Items(concurrency=5))
                    await run_flow(flow, {}, concurrency=cap, stop=stop, store=store, run_id="r")
        assert gate.begun == [0]

    run(main)


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("single", [True, False])
@pytest.mark.parametrize("timeout", [None, 1000])
def test_what_queues_in_a_slow_lane_holds_up_nobody(
    run: Run, fails: bool, single: bool, timeout: float | None
) -> None:
    """After a failure, or a request to stop, no turn is waited for, and none is used up."""
    limits = Limits(requests_per_minute=1)

    class Items(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(100)

        async def exec_async(self, item: int) -> Any:
            await gate.pass_(item)
            if fails:
                raise ValueError(item)

    class One(AsyncNode):
        exec_async = Items.exec_async

    class All(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(100)]

    gate, stop = Gate(), Stop(grace=1000)
    gate.size = 1

    async def asks() -> None:
        await gate.full.wait()
        while limits.lane().statistics().waiting < 4:
            await anyio.sleep(0)
        if not fails:
            stop.request("enough")
        gate.open.set()

    async def main() -> None:
        one = All(start=One(limits=limits, timeout=timeout), concurrency=5)
        flow = one if single else Items(limits=limits, timeout=timeout, concurrency=5)
        with anyio.fail_after(20):  # a turn comes once a minute
            async with anyio.create_task_group() as group:
                group.start_soon(asks)
                with pytest.raises(ValueError if fails else RunStoppedError):
                    await run_flow(AsyncFlow(start=flow), {}, stop=stop, store=MemoryStore(), run_id="r")
        assert len(gate.begun) == limits.lane().statistics().started == 1

    run(main)


def test_what_an_exec_has_begun_itself_may_end(run: Run) -> None:
    """An amap inside an exec is part of that exec."""

    async def main() -> None:
        stop, inner = Stop(), []

        async def step(item: int) -> None:
            inner.append(item)
            stop.request("enough")
            await anyio.sleep(0)

        async def work(item: int) -> None:
            await amap(step, range(5), concurrency=1)

        with pytest.raises(RunStoppedError):
            await amap(work, range(3), concurrency=1, stop=stop)
        assert inner == [0, 1, 2, 3, 4]

    run(main)


@pytest.mark.parametrize("batch", [True, False])
def test_an_exec_whose_own_amap_is_stopped_with_it_has_not_failed(run: Run, batch: bool) -> None:
    """Given the same Stop inside and outside, nothing of it is recorded as a failure."""
    store = MemoryStore()

    async def main() -> None:
        stop = Stop()

        async def step(item: int) -> int:
            stop.request("enough")
            await anyio.sleep(0)
            return item

        class One(AsyncNode):
            async def exec_async(self, prep_res: Any) -> Any:
                return await amap(step, range(5), concurrency=1, stop=stop)

        class Many(AsyncParallelBatchNode):
            async def prep_async(self, shared: Any) -> Any:
                return range(3)

            async def exec_async(self, item: int) -> Any:
                return await amap(step, range(5), concurrency=1, stop=stop)

        node = Many(on_error="continue") if batch else One(on_error="continue")
        with pytest.raises(RunStoppedError) as caught:
            await run_flow(AsyncFlow(start=node), {}, stop=stop, store=store, run_id="r")
        assert caught.value.run_id == "r" and store._log == []

    run(main)


def test_a_failure_while_it_stops_is_what_the_call_raises(run: Run) -> None:
    """Under on_error="raise": the item's own error is worth more."""

    async def main() -> None:
        stop = Stop()

        async def work(item: int) -> None:
            stop.request("enough")
            await anyio.sleep(0)
            raise ValueError(item)

        with pytest.raises(ValueError):
            await amap(work, range(3), concurrency=1, stop=stop)

    run(main)


def test_it_may_be_asked_from_another_thread(run: Run) -> None:
    """And what the program has as its reason is the error's cause."""

    async def main() -> None:
        stop, error = Stop(), LookupError("no credit")

        async def work(item: int) -> int:
            await anyio.to_thread.run_sync(lambda: stop.request("denied", error))
            return item

        with pytest.raises(RunStoppedError) as caught:
            await amap(work, itertools.count(), concurrency=2, stop=stop)
        assert caught.value.__cause__ is error and "denied" in repr(stop)

    run(main)


@pytest.mark.parametrize("grace", [-1, "soon", float("nan"), True])
def test_a_wrong_grace_is_refused(grace: Any) -> None:
    """With what is wanted."""
    with pytest.raises(ValueError, match="seconds from 0"):
        Stop(grace=grace)


def test_a_node_alone_is_not_begun_after_a_request(run: Run) -> None:
    """`run` of a node that is no flow."""

    async def main() -> None:
        stop, begun = Stop(), []

        class One(Node):
            def prep(self, shared: Any) -> Any:
                begun.append(1)

        stop.request("before")
        with pytest.raises(RunStoppedError):
            await run_flow(One(), {}, stop=stop)
        assert begun == []

    run(main)
