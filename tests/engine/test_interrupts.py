"""Ctrl-C and cancellation where nothing suspends, and cleanup that a timeout has begun."""

from __future__ import annotations

import asyncio
import contextvars
import os
import signal
import sys
import threading
from typing import Any

import pytest
import trio

from asyncflow import AsyncFlow, BatchNode, Flow, Node, amap, run_sync, stream
from asyncflow.engine import own_loop

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no POSIX signals")


class Again(Node):
    """Loops for ever, and presses Ctrl-C at its fifth step."""

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> str:
        shared["steps"] = shared.get("steps", 0) + 1
        if shared["steps"] == 5:
            signal.raise_signal(signal.SIGINT)
        return "again"


def endless(kind: Any) -> Any:
    node = Again()
    node - "again" >> node
    return kind(start=node)


@pytest.mark.parametrize("kind", [Flow, AsyncFlow])
def test_the_first_ctrl_c_ends_a_flow_that_never_suspends(kind: Any) -> None:
    """On an event loop too, where Ctrl-C only cancels the task: the flow looks between two steps."""
    shared: dict[str, Any] = {}
    with pytest.raises(KeyboardInterrupt):
        run_sync(endless(kind), shared)
    assert shared["steps"] == 5


def test_a_timeout_around_a_flow_that_never_suspends_fires() -> None:
    """A cancellation from outside is heard between two steps."""

    class Cancels(Node):
        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> str:
            shared["steps"] = shared.get("steps", 0) + 1
            if shared["steps"] == 3:
                shared["task"].cancel()
            return "again"

    async def main() -> dict[str, Any]:
        node = Cancels()
        node - "again" >> node
        shared: dict[str, Any] = {"task": asyncio.current_task()}
        with pytest.raises(asyncio.CancelledError):
            await AsyncFlow(start=node).run_async(shared)
        return shared

    assert asyncio.run(main())["steps"] == 3


class Waits(BatchNode):
    """Its first item presses Ctrl-C; the others wait until somebody opens the gate."""

    gate = threading.Event()
    begun: list[int] = []

    def prep(self, shared: Any) -> Any:
        return range(100)

    def exec(self, item: int) -> int:
        self.begun.append(item)
        if item == 0:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Timer(1.5, self.gate.set).start()  # long after it was heard
        self.gate.wait(10)
        return item


@pytest.mark.parametrize("inside", ["flow", "run_sync"])
def test_ctrl_c_reaches_a_synchronous_run_inside_an_event_loop(inside: str) -> None:
    """A plain flow with threads, and run_sync, held inside a coroutine: items that wait never begin."""
    Waits.gate.clear()
    Waits.begun.clear()

    async def main() -> None:
        flow = Flow(start=Waits(concurrency=2))
        if inside == "flow":
            flow.run({})
        else:
            run_sync(flow, {})

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert len(Waits.begun) < 10


@pytest.mark.parametrize("when", ["before its loop begins", "after its loop has ended"])
def test_ctrl_c_at_the_edge_of_a_run_inside_an_event_loop(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is neither lost nor another error: what has not begun never does, what has ended stays so."""
    begin, called = threading.Event(), []
    asked = iter([0, 1])

    class Around:
        def cancelling(self) -> int:
            return next(asked)

    async def work() -> None:
        called.append(1)

    run = asyncio.run

    def run_later(main: Any) -> Any:
        assert begin.wait(20)
        return run(main)

    own = own_loop._Thread(work, contextvars.copy_context())
    join = own._thread.join

    def joined(timeout: float | None = None) -> None:
        if timeout is None or when.startswith("after"):
            begin.set()
            join()

    monkeypatch.setattr(own_loop, "_task_around", Around)
    monkeypatch.setattr(asyncio, "run", run_later)
    monkeypatch.setattr(own._thread, "join", joined)
    with pytest.raises(asyncio.CancelledError):
        own.finish()
    assert called == ([1] if when.startswith("after") else [])


def test_on_trio_ctrl_c_comes_as_itself() -> None:
    """Not inside an ExceptionGroup."""

    async def work(item: int) -> None:
        if item == 3:
            signal.raise_signal(signal.SIGINT)
        await trio.sleep(10)

    with pytest.raises(KeyboardInterrupt):
        trio.run(lambda: amap(work, range(10), concurrency=5))


@pytest.mark.parametrize("limit", ["timeout", "total_timeout"])
def test_cleanup_after_a_timeout_may_await_to_its_end(limit: str) -> None:
    """The first timeout fails the call; others that time out with it still finish their cleanup."""
    cleaned = []

    async def work(item: int) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            for _ in range(item + 2):
                await asyncio.sleep(0.01)
            cleaned.append(item)

    with pytest.raises(TimeoutError):
        asyncio.run(amap(work, range(4), **{limit: 0.05}))
    assert sorted(cleaned) == [0, 1, 2, 3]


def test_a_stream_whose_read_was_cancelled_says_so() -> None:
    """Reading on is an error, not a quiet end."""

    async def work(item: int) -> int:
        await asyncio.sleep(10)
        return item

    async def main() -> None:
        outcomes = stream(work, range(3))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(outcomes), 0.01)
        with pytest.raises(RuntimeError, match="a read of it was cancelled"):
            await anext(outcomes)

    asyncio.run(main())
