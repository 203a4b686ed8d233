"""asyncflow/observe/tally.py: counting events."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncflow import (
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchFlow,
    BatchNode,
    Flow,
    Node,
    Retry,
    amap,
    run,
    waiting,
)
from asyncflow.events import (
    ItemFinished,
    ItemResumed,
    ItemRetrying,
    ItemStarted,
    ItemWaiting,
    LoopHeld,
    NodeFinished,
    NodeStarted,
    RunStarted,
)
from asyncflow.observe.tally import NodeTally, Tally
from asyncflow.outcome import Failed, Ok, Skipped

HERE = ("flow", "node")
ERROR = ValueError("no")


def told(*events: Any) -> NodeTally:
    """The tally of the one node after these events."""
    tally = Tally()
    for event in events:
        tally(event)
    return tally.nodes[HERE]


def places(node: NodeTally) -> tuple[int, int, int]:
    return node.running, node.waiting, node.retrying


def started(total: int | None = 10, at: float = 0.0) -> NodeStarted:
    return NodeStarted(HERE, at, total, 4)


def ok(index: int, at: float = 1.0) -> ItemFinished:
    return ItemFinished(HERE, at, Ok("x", index=index))


def test_how_items_ended() -> None:
    """Done, failed and skipped are counted apart, and together they are finished."""
    node = told(
        started(),
        ok(0),
        ok(1),
        ItemFinished(HERE, 1.0, Failed(ERROR, index=2)),
        ItemFinished(HERE, 1.0, Skipped("budget", index=3)),
    )
    assert (node.done, node.failed, node.skipped, node.finished, node.total) == (2, 1, 1, 4, 10)


def test_where_items_are() -> None:
    """An item is running, waiting while it runs, or between attempts, and nowhere once it has ended."""
    events: list[Any] = [started(), ItemStarted(HERE, 0.0, 0, 1)]
    assert places(told(*events)) == (1, 0, 0)
    events.append(ItemWaiting(HERE, 0.1, 0, "a limit"))
    assert places(told(*events)) == (1, 1, 0)
    events.append(ItemResumed(HERE, 0.2, 0))
    assert places(told(*events)) == (1, 0, 0)
    events.append(ItemRetrying(HERE, 0.3, 0, 1, 5.0, ERROR))
    assert places(told(*events)) == (0, 0, 1)
    events.append(ItemStarted(HERE, 5.3, 0, 2))
    assert places(told(*events)) == (1, 0, 0)
    events.append(ok(0, 6.0))
    assert places(told(*events)) == (0, 0, 0)


def test_an_item_may_end_between_two_attempts() -> None:
    """Where the total time runs out during the wait there is no further start, and nothing stays behind."""
    node = told(
        started(),
        ItemStarted(HERE, 0.0, 0, 1),
        ItemRetrying(HERE, 0.3, 0, 1, 5.0, ERROR),
        ItemFinished(HERE, 1.0, Failed(ERROR, index=0)),
    )
    assert places(node) == (0, 0, 0)


def test_rate_and_time_left() -> None:
    """The rate counts what has finished since the start; what is left follows from it."""
    node = told(started(total=10, at=100.0), ok(0), ok(1))
    assert node.rate(104.0) == 0.5
    assert node.left(104.0) == 16.0


@pytest.mark.parametrize(("total", "done"), [(None, 1), (10, 0)])
def test_time_left_is_not_guessed(total: int | None, done: int) -> None:
    """Without a number of items, or before the first has finished, nothing is said."""
    node = told(started(total), *[ok(n) for n in range(done)])
    assert node.left(4.0) is None


def test_no_time_is_no_rate() -> None:
    """At the moment it starts, a node's rate is 0 and no division by it."""
    assert told(started(), ok(0, 0.0)).rate(0.0) == 0.0


def test_the_end_stops_the_clock() -> None:
    """After the end the rate stays what it was."""
    node = told(started(), ok(0), NodeFinished(HERE, 2.0))
    assert (node.ended, node.stopped, node.seconds(99.0), node.rate(99.0)) == (2.0, False, 2.0, 0.5)


def test_what_was_cancelled_is_nowhere() -> None:
    """Items without a last event, because an error or a cancel ended the node, are not left running."""
    node = told(
        started(),
        ItemStarted(HERE, 0.0, 0, 1),
        ItemStarted(HERE, 0.0, 1, 1),
        ItemRetrying(HERE, 0.1, 1, 1, 5.0, ERROR),
        NodeFinished(HERE, 2.0, ERROR),
    )
    assert places(node) == (0, 0, 0)
    assert node.stopped


def test_visits_one_after_the_other_add_up() -> None:
    """A node in a loop counts on; the time between two visits is not held against its rate."""
    node = told(
        started(2, at=0.0), ok(0), ok(1), NodeFinished(HERE, 1.0), started(4, at=1000.0), ok(0), ok(1)
    )
    assert (node.total, node.finished, node.ended) == (6, 4, None)
    assert node.rate(1001.0) == 2.0
    assert node.left(1001.0) == 1.0


def test_visits_at_the_same_time() -> None:
    """In a parallel flow a node has ended when its last visit has; equal indices are different items."""
    tally = Tally()
    for event in (
        started(2),
        started(2),
        ItemStarted(HERE, 0.0, 0, 1),
        ItemStarted(HERE, 0.0, 0, 1),
    ):
        tally(event)
    node = tally.nodes[HERE]
    assert places(node) == (2, 0, 0)
    tally(ok(0))
    tally(NodeFinished(HERE, 1.0))
    assert (node.ended, places(node), node.total) == (None, (1, 0, 0), 4)
    tally(ok(0))
    tally(NodeFinished(HERE, 2.0))
    assert (node.ended, places(node), node.seconds(9.0)) == (2.0, (0, 0, 0), 2.0)


def test_a_number_once_unknown_stays_unknown() -> None:
    """If one visit cannot say how many items it has, the sum cannot either."""
    assert told(started(None), NodeFinished(HERE, 1.0), started(3)).total is None
    assert told(started(3), NodeFinished(HERE, 1.0), started(None)).total is None


def test_events_of_others_are_left_alone() -> None:
    """Events of a run, of a held loop, and of nodes that have not begun make no tally."""
    tally = Tally()
    for event in (RunStarted("r", 0.0), LoopHeld(HERE, 0.0, 1.0), ItemStarted(HERE, 0.0, 0, 1), ok(0)):
        tally(event)
    assert tally.nodes == {}


# With the engine.


def test_counts_of_a_real_run() -> None:
    """The numbers are those of the run's own statistics: failures, retries ended, nothing left anywhere."""
    tally, seen = Tally(), []

    async def work(n: int) -> int:
        if n == 3 and n not in seen:
            seen.append(n)
            raise ConnectionError("once")
        if n == 4:
            raise ValueError("never")
        with_limit = waiting("a limit")
        async with with_limit:
            await asyncio.sleep(0)
        return n

    asyncio.run(amap(work, range(8), retry=Retry(wait=0), on_error="continue", observers=[tally]))
    (node,) = tally.nodes.values()
    assert (node.done, node.failed, node.total, places(node)) == (7, 1, 8, (0, 0, 0))
    assert node.ended is not None and not node.stopped


class Numbers(AsyncParallelBatchNode):
    async def prep_async(self, shared: Any) -> range:
        return range(self.params["count"])

    async def exec_async(self, n: int) -> None:
        await asyncio.sleep(0)


class Counts(AsyncParallelBatchFlow):
    async def prep_async(self, shared: Any) -> list[dict[str, int]]:
        return [{"count": 3}, {"count": 4}, {"count": 0}]


def test_a_parallel_flow_of_parallel_nodes() -> None:
    """Each of the two has a tally of its own, and the inner one is the sum over the runs."""
    tally = Tally()
    asyncio.run(run(Counts(start=Numbers()), {}, observers=[tally]))
    found = {path: (node.finished, node.total, places(node)) for path, node in tally.nodes.items()}
    assert set(found.values()) == {(3, 3, (0, 0, 0)), (7, 7, (0, 0, 0))}
    assert all(node.ended is not None for node in tally.nodes.values())


class Square(BatchNode):
    def prep(self, shared: Any) -> range:
        return range(5)

    def exec(self, n: int) -> int:
        return n * n


class Twice(BatchFlow):
    def prep(self, shared: Any) -> list[dict[str, int]]:
        return [{}, {}]


class Plain(Node):
    def exec(self, prep_res: Any) -> None:
        pass


def test_plain_nodes_beside_batches() -> None:
    """A node of one step has no items and no tally, and adds to nobody else's."""
    tally = Tally()
    plain = Plain()
    plain >> Square()
    asyncio.run(run(Twice(start=Flow(start=plain)), {}, observers=[tally]))
    assert {path[-1]: (node.finished, node.total) for path, node in tally.nodes.items()} == {
        "Twice": (2, 2),
        "Square": (10, 10),
    }
