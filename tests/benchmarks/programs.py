"""The same small work, written for each library: what the benchmarks time.

An item is `await asyncio.sleep(0)` and its own value back, so that what is timed is the engine and nothing
else. Graph programs take the library as an argument and run on PocketFlow and on asyncflow alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any

CONCURRENCY = 64


async def no_op(item: int) -> int:
    await asyncio.sleep(0)
    return item


async def bare_pool(items: Sequence[int]) -> int:
    """What someone writes by hand: workers over one iterator, results into a list by index."""
    source = iter(enumerate(items))
    results: list[int | None] = [None] * len(items)

    async def worker() -> None:
        for index, item in source:
            results[index] = await no_op(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())
    return len(results)


# asyncflow's doors


async def amap(items: Sequence[int], **settings: Any) -> int:
    import asyncflow

    return len(await asyncflow.amap(no_op, items, concurrency=CONCURRENCY, **settings))


async def amap_guarded(items: Sequence[int]) -> int:
    """With retry and timeout set, neither of which comes to act."""
    import asyncflow

    return await amap(items, retry=asyncflow.Retry(attempts=3), timeout=30.0)


async def stream(items: Sequence[int], *, ordered: bool) -> int:
    """Read to its end into a list by index, as the bare pool does."""
    import asyncflow

    results: list[int | None] = [None] * len(items)
    async for outcome in asyncflow.stream(no_op, items, concurrency=CONCURRENCY, ordered=ordered):
        results[outcome.index] = outcome.value
    return len(results) - results.count(None)


# peers


async def aiometer_amap(items: Sequence[int]) -> int:
    import aiometer

    async with aiometer.amap(no_op, items, max_at_once=CONCURRENCY) as results:
        return len([result async for result in results])


async def aiostream_map(items: Sequence[int]) -> int:
    from aiostream import stream

    return len(await stream.list(stream.map(stream.iterate(items), no_op, task_limit=CONCURRENCY)))


async def langchain_abatch(items: Sequence[int]) -> int:
    from langchain_core.runnables import RunnableLambda

    return len(await RunnableLambda(no_op).abatch(list(items), {"max_concurrency": CONCURRENCY}))


# graph programs, the same for both libraries


@cache
def classes(library: str) -> SimpleNamespace:
    """The nodes and flows of the graph programs, on `library`; made once, so that no sample pays for it."""
    lib: Any = import_module(library)

    class ParallelNode(lib.AsyncParallelBatchNode):
        async def prep_async(self, shared: dict[str, Any]) -> Iterable[int]:
            return shared["items"]

        async def exec_async(self, item: int) -> int:
            await asyncio.sleep(0)
            return item

        async def post_async(self, shared: dict[str, Any], prep_res: Any, exec_res: list[int]) -> None:
            shared["done"] += len(exec_res)

    class Step(lib.AsyncNode):
        async def prep_async(self, shared: dict[str, Any]) -> int:
            return self.params["item"]

        async def exec_async(self, item: int) -> int:
            await asyncio.sleep(0)
            return item

        async def post_async(self, shared: dict[str, Any], prep_res: int, exec_res: int) -> None:
            shared["done"] += 1

    class ParallelFlow(lib.AsyncParallelBatchFlow):
        async def prep_async(self, shared: dict[str, Any]) -> list[dict[str, Any]]:
            return [{"item": item} for item in shared["runs"]]

    class PlainStep(lib.Node):
        def exec(self, prep_res: None) -> None:
            return None

        def post(self, shared: dict[str, Any], prep_res: None, exec_res: None) -> str:
            shared["done"] += 1
            return "again" if shared["done"] < shared["steps"] else "done"

    class PlainBatch(lib.BatchNode):
        def prep(self, shared: dict[str, Any]) -> Sequence[int]:
            return shared["items"]

        def exec(self, item: int) -> int:
            return item

        def post(self, shared: dict[str, Any], prep_res: Any, exec_res: list[int]) -> None:
            shared["done"] += len(exec_res)

    step, end = PlainStep(), lib.Node()
    step - "again" >> step
    step - "done" >> end
    return SimpleNamespace(
        parallel_node=ParallelNode(),
        flow_of_one=ParallelFlow(start=Step()),
        flow_of_nodes=ParallelFlow(start=ParallelNode()),
        plain_flow=lib.Flow(start=step),
        plain_batch=PlainBatch(),
    )


async def parallel_node(library: str, items: Sequence[int]) -> int:
    shared = {"items": items, "done": 0}
    await classes(library).parallel_node.run_async(shared)
    return shared["done"]


async def flow_of_one(library: str, items: Sequence[int]) -> int:
    """A parallel flow of one async node, a run an item."""
    shared = {"runs": items, "done": 0}
    await classes(library).flow_of_one.run_async(shared)
    return shared["done"]


async def flow_of_nodes(library: str, runs: Sequence[int]) -> int:
    """A parallel flow whose node is itself parallel, over four items a run."""
    shared = {"runs": runs, "items": range(4), "done": 0}
    await classes(library).flow_of_nodes.run_async(shared)
    return shared["done"]


def plain_flow(library: str, steps: int) -> int:
    """A plain flow of one node that loops on an action; no event loop anywhere."""
    shared = {"steps": steps, "done": 0}
    classes(library).plain_flow.run(shared)
    return shared["done"]


def plain_batch(library: str, items: Sequence[int]) -> int:
    shared = {"items": items, "done": 0}
    classes(library).plain_batch.run(shared)
    return shared["done"]
