"""The warning about a plain node that holds the event loop."""

from __future__ import annotations

import asyncio

import pytest

from asyncflow import AsyncFlow, AsyncNode, AsyncParallelBatchFlow, BatchNode, Flow, Node, run, run_sync
from asyncflow.clock import FakeClock, sleep
from asyncflow.events import LoopHeld


class Holds(Node):
    """Its retry wait is spent in place, on the fake clock."""

    def exec(self, prep_res):
        if self.cur_retry == 0:
            raise ValueError
        return prep_res


class HoldsInBatch(BatchNode):
    def prep(self, shared):
        return [1]

    exec = Holds.exec


@pytest.mark.parametrize("kind", [Holds, HoldsInBatch])
def test_a_plain_node_that_holds_the_loop_is_named(kind):
    """The warning names the node, the time and the way out; an event and the statistics say it too."""
    events = []

    async def main():
        with FakeClock():
            node = kind(max_retries=2, wait=3, name="translate")
            return await run(AsyncFlow(start=node), observers=[events.append])

    with pytest.warns(RuntimeWarning, match="translate is a plain node.*3.00 seconds.*offload=True"):
        result = asyncio.run(main())
    assert result.statistics.loop_lag == 3
    [held] = [event for event in events if isinstance(event, LoopHeld)]
    assert (held.path[-1], held.seconds) == ("translate", 3)


def test_only_a_longer_hold_warns_again():
    """In a loop of a thousand steps the same node is not named a thousand times."""

    class Parallel(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{}] * 20

    async def main():
        with FakeClock():
            await Parallel(start=Holds(max_retries=2, wait=1)).run_async({})

    with pytest.warns(RuntimeWarning) as caught:
        asyncio.run(main())
    assert len(caught) <= 2


@pytest.mark.parametrize("settings", [{"offload": True}, {"timeout": 60}])
def test_off_the_loop_nothing_is_held(settings):
    """On a thread there is nothing to warn of; nor is there in a synchronous flow."""
    node = Node(**settings)
    node.exec = lambda prep_res: None
    assert run_sync(AsyncFlow(start=node)).statistics.loop_lag == 0
    with FakeClock():
        Flow(start=Holds(max_retries=2, wait=3)).run({})


def test_a_plain_node_in_place_takes_no_slot():
    """Under a cap that others have filled it runs at once, and is not torn apart by waiting."""
    ran = []

    class Slow(AsyncNode):
        async def exec_async(self, prep_res):
            await sleep(10)

        async def post_async(self, shared, prep_res, exec_res):
            ran.append(self.params["i"])

    class Quick(Node):
        def exec(self, prep_res):
            ran.append("quick")

    class Chooses(Node):
        def post(self, shared, prep_res, exec_res):
            return "slow" if self.params["i"] else "quick"

    class Both(AsyncParallelBatchFlow):
        async def prep_async(self, shared):
            return [{"i": 1}, {"i": 0}]

    choose = Chooses()
    choose - "slow" >> Slow()
    choose - "quick" >> Quick()

    async def main():
        with FakeClock():
            return await run(Both(start=choose), concurrency=1)

    result = asyncio.run(main())
    assert ran == ["quick", 1]
    assert result.statistics.loop_lag < 1
    assert result.statistics.seconds >= 10
