"""The whole stack in under a second: a flow of every kind of step, and the doors."""

from __future__ import annotations

import asyncio
from typing import Any

from asyncflow import AsyncFlow, AsyncParallelBatchNode, Flow, Node, amap, run, run_sync, stream


class Numbers(Node):
    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
        shared["numbers"] = [1, 2, 3]


class Double(AsyncParallelBatchNode):
    async def prep_async(self, shared: Any) -> Any:
        return shared["numbers"]

    async def exec_async(self, item: int) -> int:
        await asyncio.sleep(0)
        return 2 * item

    async def post_async(self, shared: Any, prep_res: Any, exec_res_list: Any) -> str:
        shared["doubles"] = exec_res_list
        return "done"


def test_the_whole_stack() -> None:
    """amap, stream, run, run_sync, and a plain flow."""

    async def double(item: int) -> int:
        return 2 * item

    start = Numbers()
    start >> Double()
    flow = AsyncFlow(start=start)

    async def main() -> None:
        assert await amap(double, [1, 2]) == [2, 4]
        assert await amap(lambda item: item + 1, [1, 2]) == [2, 3]
        assert sorted([outcome.value async for outcome in stream(double, range(3))]) == [0, 2, 4]
        result = await run(flow, concurrency=1)
        assert result.shared["doubles"] == [2, 4, 6] and result.action == "done"
        assert result.statistics.succeeded == 4
        assert run_sync(flow).shared == result.shared  # inside a running loop too

    asyncio.run(main())
    assert run_sync(flow).shared["doubles"] == [2, 4, 6]
    shared: dict[str, Any] = {}
    Flow(start=Numbers()).run(shared)
    assert shared == {"numbers": [1, 2, 3]}
