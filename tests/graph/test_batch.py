"""Batch nodes: sources, concurrency, order, `post_item`, error policies."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from asyncflow import (
    AsyncBatchFlow,
    AsyncBatchNode,
    AsyncFlow,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchFlow,
    BatchNode,
    Failed,
    Flow,
    Node,
    run_sync,
)
from asyncflow.errors import CoroutineReturnedError, TooManyFailuresError

BATCHES = [BatchNode, AsyncBatchNode, AsyncParallelBatchNode]


def run_in(flow, node, shared):
    """In a flow of the given colour; returns shared."""
    run_sync(flow(start=node), shared) if issubclass(flow, AsyncFlow) else flow(start=node).run(shared)
    return shared


class Items:
    """prep gives shared["items"], post keeps what it gets."""

    def prep(self, shared):
        items = shared["items"]
        return items() if callable(items) else items

    def post(self, shared, prep_res, exec_res):
        shared["results"] = exec_res


# Sources -----------------------------------------------------------------------


class Numbers:
    def __init__(self, stop):
        self.stop = stop

    def __getitem__(self, index):
        if index >= self.stop:
            raise IndexError
        return index


class Double(Items):
    def exec(self, item):
        return 2 * item


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize(
    "items",
    [range(3), [0, 1, 2], (0, 1, 2), lambda: (i for i in range(3)), {0: 0, 1: 0, 2: 0}, Numbers(3)],
    ids=["range", "list", "tuple", "generator", "dict", "getitem"],
)
def test_sources(kind, items):
    """Anything that can be iterated over is a source of items; results come in its order."""
    node = type("Doubles", (Double, kind), {})()
    assert run_in(AsyncFlow, node, {"items": items})["results"] == [0, 2, 4]


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("items", [None, [], (), range(0)], ids=str)
def test_no_items(kind, items):
    """None and empty sources are no items: post gets an empty list."""
    node = type("Doubles", (Double, kind), {})()
    assert run_in(AsyncFlow, node, {"items": items})["results"] == []


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("items", [3, 0, False, object()], ids=str)
def test_what_cannot_be_iterated_over_is_refused(kind, items):
    """The error names the node, the type, and what prep should return."""
    node = type("Doubles", (Double, kind), {})()
    with pytest.raises(TypeError, match=f"Doubles: prep returned {type(items).__name__},.*a list"):
        run_in(AsyncFlow, node, {"items": items})


@pytest.mark.parametrize("kind", [AsyncBatchNode, AsyncParallelBatchNode])
def test_async_sources(kind):
    """An async generator is a source for the async classes, and is closed."""
    closed = []

    async def source():
        try:
            for i in range(3):
                await asyncio.sleep(0)
                yield i
        finally:
            closed.append(True)

    node = type("Doubles", (Double, kind), {})()
    assert run_in(AsyncFlow, node, {"items": source})["results"] == [0, 2, 4]
    assert closed == [True]


@pytest.mark.parametrize("flow", [Flow, AsyncFlow])
def test_async_sources_of_synchronous_nodes_are_refused(flow):
    """Where nothing can be awaited an async generator is an error, never a wait without end."""

    async def source():
        await asyncio.sleep(0)
        yield 1

    with pytest.raises(TypeError, match="Doubles: prep returned async_generator.*async class"):
        run_in(flow, type("Doubles", (Double, BatchNode), {})(), {"items": source})

    class Sets(BatchFlow):
        def prep(self, shared):
            return source()

    with pytest.raises(TypeError, match="Sets: prep returned async_generator"):
        Sets(start=Node()).run({})


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_source_that_raises(kind, concurrency):
    """Its exception is raised, with a note of the node and the item; the source is closed."""
    closed = []

    def source():
        try:
            yield from range(5)
            raise OSError("line 6")
        finally:
            closed.append(True)

    node = type("Doubles", (Double, kind), {})(concurrency=concurrency)
    with pytest.raises(OSError, match="line 6") as caught:
        run_in(AsyncFlow, node, {"items": source})
    assert any("Doubles" in note and "item 5" in note for note in caught.value.__notes__)
    assert closed == [True]


# post_item ---------------------------------------------------------------------


class Kept(Items):
    def post_item(self, shared, item, exec_res):
        shared.setdefault("got", []).append((item, exec_res))


class KeptAsync(Items):
    async def post_item_async(self, shared, item, exec_res):
        await asyncio.sleep(0)
        shared.setdefault("got", []).append((item, exec_res))


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize(
    "kept, kind, flow",
    [(Kept, kind, AsyncFlow) for kind in BATCHES]
    + [
        (Kept, BatchNode, Flow),
        (KeptAsync, AsyncBatchNode, AsyncFlow),
        (KeptAsync, AsyncParallelBatchNode, AsyncFlow),
    ],
)
def test_post_item_gets_every_result_in_input_order(kept, kind, flow, concurrency):
    """Once per item, in input order, whatever finishes first; post gets None."""
    node = type("Doubles", (kept, Double, kind), {})(concurrency=concurrency)
    shared = run_in(flow, node, {"items": range(9)})
    assert shared["got"] == [(i, 2 * i) for i in range(9)]
    assert shared["results"] is None


@pytest.mark.asyncio
async def test_post_item_waits_for_the_items_before():
    """A result that is there early is handed on when its turn comes."""
    first = asyncio.Event()
    got = []

    class Late(AsyncParallelBatchNode):
        async def prep_async(self, shared):
            return range(3)

        async def exec_async(self, item):
            if item == 0:
                await first.wait()
            elif item == 2:
                first.set()
            return item

        async def post_item_async(self, shared, item, exec_res):
            got.append(item)

    await Late().run_async({})
    assert got == [0, 1, 2]


@pytest.mark.parametrize("kind", BATCHES)
def test_post_item_gets_failures_under_continue(kind):
    """A Failed stands in its place, with the item and the error."""

    class Breaks(Kept):
        def exec(self, item):
            if item == 1:
                raise ValueError(item)
            return item

    node = type("Breaks", (Breaks, kind), {})(on_error="continue")
    got = run_in(AsyncFlow, node, {"items": range(3)})["got"]
    assert [item for item, _ in got] == [0, 1, 2]
    assert got[0] == (0, 0) and got[2] == (2, 2)
    failed = got[1][1]
    assert isinstance(failed, Failed) and failed.item == 1 and isinstance(failed.error, ValueError)


@pytest.mark.parametrize("kind", BATCHES)
def test_what_was_received_before_a_failure_is_not_lost(kind):
    """Under raise, items that ended before the failing one have been received."""

    class Breaks(Kept):
        def exec(self, item):
            if item == 3:
                raise ValueError(item)
            return item

    node = type("Breaks", (Breaks, kind), {})(concurrency=1)
    shared = {"items": range(9)}
    with pytest.raises(ValueError):
        run_in(AsyncFlow, node, shared)
    assert shared["got"] == [(i, i) for i in range(3)]
    assert "results" not in shared


@pytest.mark.parametrize("kind", BATCHES)
def test_too_many_failures_with_post_item(kind):
    """The count stops the node; what post_item has received is not given a second time."""

    class Breaks(Kept):
        def exec(self, item):
            if item % 2:
                raise ValueError(item)
            return item

    node = type("Breaks", (Breaks, kind), {})(concurrency=1, on_error=2)
    shared = {"items": range(9)}
    with pytest.raises(TooManyFailuresError, match="Breaks: 2 items"):
        run_in(AsyncFlow, node, shared)
    assert [item for item, _ in shared["got"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("kept", ["plain", "async"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_exception_in_post_item_ends_the_node(kept, concurrency):
    """It is raised as it is, no further item is handed over, and the source is closed."""
    closed, got = [], []

    def source():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    def receive(item):
        got.append(item)
        if item == 2:
            raise KeyError("disk full")

    class Plain(Double, AsyncParallelBatchNode):
        def post_item(self, shared, item, exec_res):
            receive(item)

    class Async(Double, AsyncParallelBatchNode):
        async def post_item_async(self, shared, item, exec_res):
            receive(item)

    node = (Plain if kept == "plain" else Async)(concurrency=concurrency)
    with pytest.raises(KeyError, match="disk full") as caught:
        run_in(AsyncFlow, node, {"items": source})
    assert caught.value.__notes__ == [f"asyncflow: {type(node).__name__}: raised by post_item, at item 2"]
    assert got == [0, 1, 2]
    assert closed == [True]


def test_the_most_derived_post_item_counts():
    """Of the two forms that of the most derived class is called; in one class the async one."""

    class Base(KeptAsync, AsyncBatchNode):
        def exec(self, item):
            return item

    class Derived(Base):
        def post_item(self, shared, item, exec_res):
            shared.setdefault("plain", []).append(item)

    class Both(Derived):
        def post_item(self, shared, item, exec_res):
            raise AssertionError

        async def post_item_async(self, shared, item, exec_res):
            shared.setdefault("both", []).append(item)

    shared = {"items": range(2)}
    for kind in (Base, Derived, Both):
        run_in(AsyncFlow, kind(), shared)
    assert (shared["got"], shared["plain"], shared["both"]) == ([(0, 0), (1, 1)], [0, 1], [0, 1])


def test_post_item_is_not_taken_from_getattr():
    """A node that answers every attribute has not defined post_item; one patched onto an instance counts."""

    class Answers(Double, BatchNode):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return lambda *args: None

    assert run_in(Flow, Answers(), {"items": [1]})["results"] == [2]
    node, got = type("Doubles", (Double, BatchNode), {})(), []
    node.post_item = lambda shared, item, exec_res: got.append(exec_res)
    assert run_in(Flow, node, {"items": [1]})["results"] is None
    assert got == [2]


@pytest.mark.parametrize("flow", [Flow, AsyncFlow])
def test_post_item_async_of_a_synchronous_node_is_refused(flow):
    """Nothing can be awaited there: a clear error before any item runs."""

    class Doubles(KeptAsync, BatchNode):
        def exec(self, item):
            raise AssertionError

    with pytest.raises(TypeError, match="Doubles: post_item_async .*write post_item, or use AsyncBatchNode"):
        run_in(flow, Doubles(), {"items": range(2)})


def test_a_coroutine_from_post_item_is_refused():
    """`async def post_item` on a synchronous node is an error, not a coroutine that nobody awaits."""

    class Doubles(Double, BatchNode):
        async def post_item(self, shared, item, exec_res):
            raise AssertionError

    with pytest.raises(CoroutineReturnedError, match="Doubles"):
        run_in(Flow, Doubles(), {"items": range(2)})


class Thing:
    pass


@pytest.mark.parametrize(
    "kind, concurrency", [(BatchNode, 1), (BatchNode, 4), (AsyncBatchNode, 1), (AsyncParallelBatchNode, 4)]
)
def test_post_item_keeps_memory_flat(kind, concurrency):
    """At no moment are more results alive than twice the concurrency and a little, of a thousand items."""
    alive, most = weakref.WeakSet(), []
    lock = threading.Lock()

    def make(item):
        thing = Thing()
        with lock:
            alive.add(thing)
        return thing

    class Makes(Items):
        def post_item(self, shared, item, exec_res):
            most.append(len(alive))

    class MakesPlainly(Makes, BatchNode):
        def exec(self, item):
            return make(item)

    class MakesAsync(Makes, AsyncParallelBatchNode):
        async def exec_async(self, item):
            await asyncio.sleep(0)
            return make(item)

    node = (MakesPlainly if kind is BatchNode else MakesAsync)(concurrency=concurrency)
    run_in(Flow if kind is BatchNode else AsyncFlow, node, {"items": lambda: iter(range(1000))})
    gc.collect()
    assert len(most) == 1000
    assert max(most) <= 2 * concurrency + 2
    assert len(alive) == 0


# Concurrency -------------------------------------------------------------------


@pytest.mark.parametrize("inside_a_loop", [False, True])
@pytest.mark.parametrize("concurrency", [1, 2, 8])
def test_a_plain_batch_runs_on_that_many_threads(concurrency, inside_a_loop):
    """BatchNode(concurrency=n) in a plain Flow: n at once, results in order; 1 is the caller's thread."""
    barrier = threading.Barrier(concurrency, timeout=10)
    running, most, lock, threads = 0, 0, threading.Lock(), set()

    class Meets(Items, BatchNode):
        def exec(self, item):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                threads.add(threading.get_ident())
            barrier.wait()
            with lock:
                running -= 1
            return item

    shared = {"items": range(16)}

    def go():
        Flow(start=Meets(concurrency=concurrency)).run(shared)

    async def main():
        go()

    asyncio.run(main()) if inside_a_loop else go()
    assert shared["results"] == list(range(16))
    assert most == concurrency
    assert (threads == {threading.get_ident()}) is (concurrency == 1)


@pytest.mark.parametrize("kind", [AsyncBatchNode, AsyncParallelBatchNode])
@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_async_batches_run_that_many(kind, concurrency):
    """The two classes differ in their default only."""
    running = most = 0

    class Counts(Items, kind):
        async def exec_async(self, item):
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1

    run_in(AsyncFlow, Counts(concurrency=concurrency), {"items": range(100)})
    assert most == concurrency
    assert (AsyncBatchNode().concurrency, AsyncParallelBatchNode().concurrency) == (1, 64)


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("policy", ["continue", 3, 0.5])
def test_failures_that_are_kept(kind, concurrency, policy):
    """A Failed with item, error and attempts stands in its place."""

    class Breaks(Items):
        def exec(self, item):
            if item in (1, 5):
                raise ValueError(item)
            return item

    node = type("Breaks", (Breaks, kind), {})(max_retries=2, concurrency=concurrency, on_error=policy)
    results = run_in(AsyncFlow, node, {"items": range(8)})["results"]
    failed = [entry for entry in results if isinstance(entry, Failed)]
    assert [entry.item for entry in failed] == [1, 5]
    assert all(entry.attempts == 2 and entry.error.args == (entry.item,) for entry in failed)
    assert [entry for entry in results if not isinstance(entry, Failed)] == [0, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("policy", [2, 0.25])
def test_too_many_failures(kind, policy):
    """The count or share stops the node; the error carries what finished."""

    class Breaks(Items):
        def exec(self, item):
            if item % 2:
                raise ValueError(item)
            return item

    node = type("Breaks", (Breaks, kind), {})(concurrency=1, on_error=policy)
    with pytest.raises(TooManyFailuresError, match="Breaks: 2 items have failed") as caught:
        run_in(AsyncFlow, node, {"items": range(8)})
    assert [outcome.item for outcome in caught.value.outcomes] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [BatchFlow, AsyncBatchFlow, AsyncParallelBatchFlow])
def test_batch_flows_keep_failures(kind):
    """post of a batch flow gets one entry a run: its action, or a Failed with the parameter set."""

    class Breaks(Node):
        def post(self, shared, prep_res, exec_res):
            if self.params["i"] == 1:
                raise ValueError
            return f"run {self.params['i']}"

    def prep(self, shared):
        return [{"i": i} for i in range(3)]

    def post(self, shared, prep_res, exec_res):
        shared["entries"] = exec_res

    flow = type("Sets", (kind,), {"prep": prep, "post": post})(start=Breaks(), on_error="continue")
    entries = run_sync(flow).shared["entries"]
    assert entries[::2] == ["run 0", "run 2"]
    assert isinstance(entries[1], Failed) and entries[1].item == {"i": 1}
    flow.on_error = "raise"
    with pytest.raises(ValueError) as caught:
        run_sync(flow)
    assert any("Sets, item 1 ({'i': 1})" in note for note in caught.value.__notes__)
