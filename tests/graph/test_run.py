"""`run`, `run_sync`, statistics and events of flows; trio."""

from __future__ import annotations

import asyncio
import threading

import pytest
import trio

from asyncflow import (
    AsyncBatchNode,
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchNode,
    Flow,
    Node,
    RunResult,
    run,
    run_sync,
)
from asyncflow.events import ItemFinished, ItemStarted, NodeFinished, NodeStarted, RunFinished, RunStarted


class Doubles(AsyncParallelBatchNode):
    async def prep_async(self, shared):
        return shared["items"]

    async def exec_async(self, item):
        if item == 3 and self.cur_retry == 0:
            raise ValueError(item)
        return 2 * item

    async def post_async(self, shared, prep_res, exec_res):
        shared["results"] = exec_res
        return "doubled"


class Sums(Node):
    def prep(self, shared):
        return shared["results"]

    def exec(self, results):
        return sum(results)

    def post(self, shared, prep_res, exec_res):
        shared["sum"] = exec_res
        return "summed"


def flow():
    doubles = Doubles(max_retries=2)
    doubles - "doubled" >> Sums(name="add")
    return AsyncFlow(start=doubles, name="whole")


def test_run_returns_action_shared_and_statistics():
    """All execs are counted, retries apart; steps are the flow's."""
    shared = {"items": range(5)}
    result = asyncio.run(run(flow(), shared))
    assert isinstance(result, RunResult)
    assert (result.action, result.run_id) == ("summed", None)
    assert result.shared is shared and shared["sum"] == 20
    now = result.statistics
    assert (now.started, now.succeeded, now.failed, now.retries, now.steps) == (6, 6, 0, 1, 2)
    assert (now.in_flight, now.parked, now.waiting) == (0, 0, 0)


def test_run_of_a_plain_flow_is_driven_on_the_loop():
    """A plain flow, its threads too, runs inside the loop, which goes on meanwhile."""
    release, ticks = threading.Event(), []

    class Waits(BatchNode):
        def prep(self, shared):
            return range(2)

        def exec(self, item):
            assert release.wait(10)
            return item

        def post(self, shared, prep_res, exec_res):
            shared["results"] = exec_res

    async def main():
        task = asyncio.create_task(run(Flow(start=Waits(concurrency=2))))
        for _ in range(3):
            await asyncio.sleep(0)
            ticks.append(1)
        release.set()
        return await task

    assert asyncio.run(main()).shared == {"results": [0, 1]}
    assert len(ticks) == 3


def test_run_takes_single_nodes():
    """A node is a flow of one step; its successors are not run."""
    assert run_sync(Sums(), {"results": [1, 2]}).shared["sum"] == 3


def test_shared_is_a_new_dict_by_default():
    """Two runs do not share it."""
    node = Node()
    node.post = lambda shared, prep_res, exec_res: shared.setdefault("n", len(shared))
    assert run_sync(Flow(start=node)).shared == {"n": 0}
    assert run_sync(Flow(start=node)).shared == {"n": 0}


@pytest.mark.parametrize("thing", [Node, Flow, None, print, "flow"])
def test_only_flows_and_nodes_can_be_run(thing):
    """The error says what it is, and that a class has to become an instance."""
    hint = "make an instance" if isinstance(thing, type) else "is not a flow or node"
    with pytest.raises(TypeError, match=hint):
        run_sync(thing)
    with pytest.raises(TypeError, match=hint):
        asyncio.run(run(thing))


@pytest.mark.parametrize("concurrency, error", [(0, ValueError), ("8", TypeError), (True, TypeError)])
def test_a_wrong_cap_is_refused(concurrency, error):
    """Before anything runs."""
    with pytest.raises(error, match="concurrency"):
        run_sync(flow(), {"items": []}, concurrency=concurrency)


@pytest.mark.parametrize("cap", [1, 2, 5])
def test_the_cap_bounds_nested_parallel_flows(cap):
    """Flows hold nothing: three levels under a cap finish, and no more execs run than it allows."""
    running = most = 0

    class Leaf(AsyncParallelBatchNode):
        async def prep_async(self, shared):
            return range(4)

        async def exec_async(self, item):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    class Sets(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"i": i} for i in range(3)]

    outer = Sets(start=Sets(start=Leaf()))
    result = run_sync(outer, concurrency=cap)
    assert most == cap
    assert result.statistics.succeeded == 36


def test_run_sync_inside_a_running_loop():
    """The flow gets a loop and a thread of its own; errors come back as they are."""

    async def main():
        shared = {"items": range(5)}
        assert run_sync(flow(), shared).shared["sum"] == 20
        with pytest.raises(KeyError, match="items"):
            run_sync(flow(), {})
        return threading.active_count()

    asyncio.run(main())


def test_a_plain_flow_runs_inside_a_running_loop():
    """Flow.run needs no loop and minds none, with threads and retry waits too."""

    class Squares(BatchNode):
        def prep(self, shared):
            return range(8)

        def exec(self, item):
            if self.cur_retry == 0:
                raise ValueError
            return item * item

        def post(self, shared, prep_res, exec_res):
            shared["squares"] = exec_res

    async def main():
        shared = {}
        Flow(start=Squares(max_retries=2, wait=0.001, concurrency=8)).run(shared)
        return shared["squares"]

    assert asyncio.run(main()) == [i * i for i in range(8)]


def test_run_sync_inside_an_offloaded_exec():
    """An exec on a thread may run an async flow of its own."""

    class Outer(AsyncNode):
        def exec(self, prep_res):
            return run_sync(flow(), {"items": range(5)}).shared["sum"]

        def post(self, shared, prep_res, exec_res):
            shared["sum"] = exec_res

    assert run_sync(AsyncFlow(start=Outer())).shared["sum"] == 20


def test_events_tell_a_run_from_its_beginning_to_its_end():
    """Starts and ends match, paths name the nodes, attempts are counted."""
    events = []
    asyncio.run(run(flow(), {"items": [1, 3]}, observers=[events.append]))
    assert isinstance(events[0], RunStarted) and events[0].name == "whole"
    assert isinstance(events[-1], RunFinished) and events[-1].error is None
    assert events[-1].statistics.succeeded == 3
    started = [
        (event.path[-1], event.index, event.attempt) for event in events if isinstance(event, ItemStarted)
    ]
    assert sorted(started) == [("Doubles", 0, 1), ("Doubles", 1, 1), ("Doubles", 1, 2), ("add", 0, 1)]
    ended = [event.path[-1] for event in events if isinstance(event, ItemFinished)]
    assert ended == ["Doubles", "Doubles", "add"]
    nodes = [event for event in events if isinstance(event, (NodeStarted, NodeFinished))]
    assert nodes[0].total == 2 and nodes[0].concurrency == 64
    assert sum(isinstance(event, NodeStarted) for event in nodes) * 2 == len(nodes)


def test_a_failed_run_says_so():
    """RunFinished carries the error, which is raised as it is."""
    events = []
    with pytest.raises(KeyError) as caught:
        asyncio.run(run(flow(), {}, observers=[events.append]))
    assert events[-1].error is caught.value


def test_an_observer_that_raises_does_not_break_a_run(caplog):
    """It is told nothing more, and the log says so."""

    def observer(event):
        raise RuntimeError("observer")

    assert asyncio.run(run(flow(), {"items": [1]}, observers=[observer])).action == "summed"
    assert "told nothing more" in caplog.text


@pytest.mark.parametrize("settings", [{}, {"timeout": 30}, {"offload": True}], ids=str)
def test_flows_run_on_trio(settings):
    """Async flows, parallel batch flows, plain nodes and threads: the same on trio."""

    class Sleeps(AsyncParallelBatchNode):
        async def prep_async(self, shared):
            return range(5)

        async def exec_async(self, item):
            await trio.sleep(0)
            if item == 2 and self.cur_retry == 0:
                raise ValueError
            return item

        async def post_async(self, shared, prep_res, exec_res):
            shared.setdefault("results", []).append(exec_res)

    class Plain(Node):
        def post(self, shared, prep_res, exec_res):
            shared["n"] = shared.get("n", 0) + 1

    class Threads(AsyncBatchNode):
        def prep(self, shared):
            return range(3)

        def exec(self, item):
            return threading.get_ident()

        def post(self, shared, prep_res, exec_res):
            assert threading.get_ident() not in exec_res

    class Sets(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"i": i} for i in range(3)]

    first = Sleeps(max_retries=2)
    first >> Plain(**settings) >> Threads()
    shared = {}
    trio.run(Sets(start=first).run_async, shared)
    assert shared == {"results": [list(range(5))] * 3, "n": 3}
    result = trio.run(run, Sets(start=first), {})
    assert result.statistics.retries == 3


def test_a_failure_on_trio_is_the_items_own():
    """No exception group around it."""

    class Fails(AsyncParallelBatchNode):
        async def prep_async(self, shared):
            return range(5)

        async def exec_async(self, item):
            await trio.sleep(0)
            raise ValueError(item)

    with pytest.raises(ValueError):
        trio.run(AsyncFlow(start=Fails()).run_async, {})
