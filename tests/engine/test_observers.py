"""Observers: what they are told, in what order, and that they can neither slow nor break a run."""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio.lowlevel
import pytest

from asyncflow import AsyncFlow, AsyncNode, AsyncParallelBatchFlow, AsyncParallelBatchNode, Retry, amap
from asyncflow import run as run_flow
from asyncflow.clock import FakeClock
from asyncflow.engine import observers as observers_module
from asyncflow.events import (
    ItemFinished,
    ItemRetrying,
    ItemStarted,
    NodeFinished,
    NodeStarted,
    RunFinished,
    RunStarted,
)


async def double(item: int) -> int:
    return 2 * item


def test_events_come_in_order(run: Any) -> None:
    """Run, node, each attempt, each outcome, the ends: in the order in which they happened."""
    events: list[Any] = []
    failed = set()

    async def once(item: int) -> int:
        if item == 1 and item not in failed:
            failed.add(item)
            raise OSError("again")
        return item

    async def main() -> None:
        await amap(once, range(2), concurrency=1, retry=Retry(2, wait=0), observers=[events.append])

    run(main)
    assert [type(event) for event in events] == [
        RunStarted,
        NodeStarted,
        ItemStarted,
        ItemFinished,
        ItemStarted,
        ItemRetrying,
        ItemStarted,
        ItemFinished,
        NodeFinished,
        RunFinished,
    ]
    assert events[6].attempt == 2 and events[7].outcome.attempts == 2
    assert events[-1].error is None and events[-1].statistics.succeeded == 2
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_a_run_on_virtual_time_waits_for_its_observers_in_real_time(run: Any) -> None:
    """The grace in which observers catch up is not a timer of the run's: all is told, no time passes."""
    events: list[Any] = []

    def slow(event: Any) -> None:
        time.sleep(0.01)
        events.append(event)

    async def main() -> Any:
        with FakeClock() as clock:
            await amap(double, range(3), observers=[slow])
            return clock.now(), clock.waits, len(events)

    assert run(main) == (0.0, [], 10)


def test_an_observer_that_raises_is_told_nothing_more(run: Any, caplog: Any) -> None:
    """The run goes on, the others are told everything, and a warning is logged once."""
    events: list[Any] = []

    def bad(event: Any) -> None:
        raise ValueError

    async def main() -> Any:
        return await amap(double, range(3), observers=[bad, events.append])

    with caplog.at_level(logging.WARNING, "asyncflow"):
        assert run(main) == [0, 2, 4]
    assert len(events) == 10
    assert len(caplog.records) == 1


def test_an_observer_that_blocks_does_not_hold_the_run(run: Any, monkeypatch: Any) -> None:
    """Items go on while an observer stands still; the end waits no longer than the grace."""
    monkeypatch.setattr(observers_module, "GRACE", 0.01)
    gate = threading.Event()

    async def main() -> Any:
        return await amap(double, range(100), observers=[lambda event: gate.wait(10)])

    try:
        assert run(main) == [2 * item for item in range(100)]
        assert not gate.is_set()
    finally:
        gate.set()


def test_async_observers_are_refused(run: Any) -> None:
    """An observer is a plain function: coroutine functions, in whatever wrapping, are a TypeError."""

    async def function(event: Any) -> None:
        raise AssertionError

    class Callable:
        async def __call__(self, event: Any) -> None:
            raise AssertionError

    async def main() -> None:
        for observer in (function, partial(function), Callable()):
            with pytest.raises(TypeError, match="coroutine function"):
                await amap(double, [1], observers=[observer])
        with pytest.raises(TypeError, match="list of observers"):
            await amap(double, [1], observers=print)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes one event"):
            await amap(double, [1], observers=["print"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="take one event"):
            await amap(double, [1], observers=3)  # type: ignore[arg-type]

    run(main)


def test_a_flow_s_events_name_their_place(run: Any) -> None:
    """`path` holds the names from the outermost flow to the node."""
    events: list[Any] = []

    class Work(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return [1, 2]

    async def main() -> None:
        await run_flow(AsyncFlow(start=Work(name="work"), name="whole"), observers=[events.append])

    run(main)
    assert {event.path for event in events if isinstance(event, ItemFinished)} == {("whole", "work")}


@pytest.mark.parametrize("stored", [False, True])
def test_a_batch_flow_s_events_name_the_run_of_it(run: Any, stored: bool, tmp_path: Path) -> None:
    """`branches` holds the index of each batch flow's run, as the flow's own events count them; what is begun
    inside an exec has those of the exec."""
    events: list[Any] = []

    class Work(AsyncNode):
        async def exec_async(self, prep_res: Any) -> None:
            for _ in range(3 - self.params["n"] - self.params["m"]):  # the last to begin ends first
                await anyio.lowlevel.checkpoint()
            await amap(double, [7])

    class Inner(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"m": m} for m in range(2)]

    class Outer(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(2)]

    async def main() -> None:
        flow = Outer(start=Inner(start=Work(name="work"), name="inner"), name="outer")
        store: dict[str, Any] = {"store": tmp_path / "runs.db"} if stored else {}
        await run_flow(flow, observers=[events.append], **store)

    run(main)
    found: dict[Any, set[tuple[Any, ...]]] = {}
    for event in events:
        if isinstance(event, (NodeStarted, NodeFinished)):
            found.setdefault((type(event), event.path[-1]), set()).add(event.branches)
        elif isinstance(event, ItemStarted):
            found.setdefault((type(event), event.path[-1]), set()).add((*event.branches, event.index))
        elif isinstance(event, ItemFinished):
            found.setdefault((type(event), event.path[-1]), set()).add((*event.branches, event.outcome.index))
    each = {(n, m) for n in range(2) for m in range(2)}
    for kind in (NodeStarted, NodeFinished):
        assert found[kind, "outer"] == {()} and found[kind, "inner"] == {(0,), (1,)}
        assert found[kind, "double"] == each
    for kind in (ItemStarted, ItemFinished):
        assert found[kind, "outer"] == {(0,), (1,)} and found[kind, "inner"] == each
        assert found[kind, "work"] == found[kind, "double"] == {(*branch, 0) for branch in each}
