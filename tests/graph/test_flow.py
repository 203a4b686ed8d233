"""Flows and batch flows: what they accept, walk, isolate and bound."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncflow import (
    AsyncBatchFlow,
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    BatchFlow,
    Flow,
    Node,
    Retry,
    run_sync,
)
from asyncflow.errors import FlowError, StepLimitError

FLOWS = [Flow, BatchFlow, AsyncFlow, AsyncBatchFlow, AsyncParallelBatchFlow]


@pytest.mark.parametrize("kind", FLOWS)
@pytest.mark.parametrize(
    "settings", [{"retry": Retry()}, {"timeout": 5}, {"total_timeout": 5}], ids=lambda s: next(iter(s))
)
def test_what_belongs_to_nodes_is_refused_on_flows(kind, settings):
    """retry and timeouts bound an exec: a flow refuses them, as arguments and as class attributes."""
    [name] = settings
    with pytest.raises(TypeError, match=f"{name} belongs to nodes"):
        kind(**settings)
    with pytest.raises(TypeError, match=f"{name} belongs to nodes"):
        type("Own", (kind,), settings)()


@pytest.mark.parametrize("kind", [Flow, AsyncFlow])
@pytest.mark.parametrize("settings", [{"concurrency": 2}, {"on_error": "continue"}], ids=str)
def test_flows_of_one_run_refuse_what_belongs_to_batches(kind, settings):
    """concurrency and on_error need several runs."""
    [name] = settings
    with pytest.raises(ValueError, match=f"{name} belongs to batch nodes and batch flows"):
        kind(**settings)


def test_a_synchronous_batch_flow_runs_in_turn():
    """concurrency above 1 is an error that names the class to use."""
    with pytest.raises(ValueError, match="AsyncParallelBatchFlow"):
        BatchFlow(concurrency=2)


@pytest.mark.parametrize("max_steps", [0, -1, True, 1.5, "9"])
def test_a_wrong_max_steps_is_refused(max_steps):
    """A whole number from 1, or None."""
    with pytest.raises(ValueError, match="max_steps"):
        Flow(max_steps=max_steps)


class Counts(Node):
    def post(self, shared, prep_res, exec_res):
        shared["n"] = shared.get("n", 0) + 1
        return "again" if shared["n"] % 3 else "done"


@pytest.mark.parametrize("kind", FLOWS)
def test_max_steps_is_for_one_run_over_the_nodes(kind):
    """As many steps as it says are taken; a batch flow counts anew for each set."""

    def prep(self, shared):
        return [{}, {}] if "Batch" in type(self).__mro__[1].__name__ else None

    count = Counts()
    count - "again" >> count
    count - "done" >> Node()
    flow = type("Own", (kind,), {"prep": prep})(start=count, max_steps=4)
    shared = {}
    run_sync(flow, shared)
    assert shared["n"] == (6 if issubclass(kind, BatchFlow) else 3)
    flow.max_steps = 3
    with pytest.raises(StepLimitError, match="Own took 3 steps .* about to run Node"):
        run_sync(flow, {})


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_runs_at_the_same_time(concurrency):
    """A parallel batch flow has as many runs at work as it says, 64 where it says nothing."""
    running = most = 0

    class Step(AsyncNode):
        async def exec_async(self, prep_res):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    class Sets(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"i": i} for i in range(100)]

    asyncio.run(Sets(start=Step(), concurrency=concurrency).run_async({}))
    assert most == concurrency
    most = 0
    asyncio.run(Sets(start=Step()).run_async({}))
    assert most == 64


def test_an_error_inside_nested_flows_names_every_level():
    """The user's own exception, with the node and each batch run around it in its notes."""

    class Breaks(Node):
        def exec(self, prep_res):
            raise KeyError("deep")

    class Inner(BatchFlow):
        def prep(self, shared):
            return [{"b": 1}]

    class Outer(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"a": 1}]

    with pytest.raises(KeyError, match="deep") as caught:
        asyncio.run(Outer(start=AsyncFlow(start=Inner(start=Breaks(max_retries=2)))).run_async({}))
    assert caught.value.__notes__ == [
        "asyncflow: Breaks, attempt 2",
        "asyncflow: Inner, item 0 ({'b': 1}), attempt 1",
        "asyncflow: Outer, item 0 ({'a': 1}), attempt 1",
    ]


def test_offload_reaches_everything_beneath():
    """offload on a flow moves plain execs of its nodes and of flows inside to threads; prep and post stay."""
    threads = {}

    class Step(Node):
        def prep(self, shared):
            threads.setdefault("prep", set()).add(threading.get_ident())

        def exec(self, prep_res):
            threads.setdefault("exec", set()).add(threading.get_ident())

        def post(self, shared, prep_res, exec_res):
            threads.setdefault("post", set()).add(threading.get_ident())

    first = Step()
    first >> Flow(start=Step())
    here = {threading.get_ident()}
    for flow in (AsyncFlow(start=first, offload=True), Flow(start=first, offload=True)):
        threads.clear()
        run_sync(flow)
        assert threads["prep"] == threads["post"] == here
        assert not threads["exec"] & here


@pytest.mark.parametrize("kind", [Flow, BatchFlow, AsyncFlow, AsyncBatchFlow])
@pytest.mark.parametrize("isolate", [True, False])
def test_isolate_belongs_to_parallel_batch_flows(kind, isolate):
    """Elsewhere it is refused by name, with the class that takes it."""
    with pytest.raises(
        TypeError, match=rf"^{kind.__name__}\(isolate={isolate}\): isolate belongs to AsyncParallelBatchFlow"
    ):
        kind(isolate=isolate)


class OnceFlow(BatchFlow):
    def prep(self, shared):
        return [{}]


class OnceAsyncFlow(AsyncBatchFlow):
    def prep(self, shared):
        return [{}]


@pytest.mark.parametrize("kind", [Flow, AsyncFlow, OnceFlow, OnceAsyncFlow])
@pytest.mark.parametrize("between", [0, 1, 3])
def test_a_flow_inside_itself_is_an_error_that_says_so(kind, between):
    """Instead of a RecursionError from somewhere in the engine."""
    flow = inner = kind(name="outer")
    for number in range(between):
        inner = inner.start(Node()).next(kind(name=f"inner {number}"))
    inner.start(flow)
    with pytest.raises(FlowError, match="contains itself"):
        run_sync(flow, {})
    if not issubclass(kind, AsyncFlow):
        with pytest.raises(FlowError, match="contains itself") as caught:
            flow.run({})
        assert caught.value.__suppress_context__


def test_a_flow_inside_itself_may_end():
    """Recursion that ends is a program like any other, and one that is too deep elsewhere is left alone."""

    class Down(Node):
        def post(self, shared, prep_res, exec_res):
            shared["n"] -= 1
            return "down" if shared["n"] else "up"

    class Deep(Node):
        def exec(self, prep_res):
            return self.exec(prep_res)

    down, up = Down(), Node()
    flow = Flow(start=down)
    down - "down" >> flow
    down - "up" >> up
    shared = {"n": 5}
    flow.run(shared)
    assert shared["n"] == 0
    with pytest.raises(RecursionError):
        Flow(start=Deep()).run({})
