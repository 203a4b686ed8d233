"""The engine's half of the journal's promise, against a journal in memory that commits when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from asyncflow import (
    AsyncBatchFlow,
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchNode,
    Node,
    Retry,
    Stop,
    amap,
    stream,
)
from asyncflow.durability import MemoryStore
from asyncflow.engine.alone import Alone
from asyncflow.engine.cap import Cap
from asyncflow.engine.context import Run
from asyncflow.engine.hosts import running_host
from asyncflow.engine.journal import Committed, Verdict
from asyncflow.engine.stopping import stoppable
from asyncflow.engine.tasks import Host
from asyncflow.errors import ItemCrashedError, RunStoppedError, StoreError
from asyncflow.outcome import Failed, Ok, Spent
from asyncflow.policy.limits import Limits
from asyncflow.waiting import waiting


class Memory:
    """Implements `Journal`: keeps outcomes of committed items between runs; `commits` counts them."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], Ok[Any] | Failed] = {}
        self.log: list[str] = []
        self.hold: list[Callable[[], None]] | None = None
        self.fail: Exception | None = None
        self.verdicts: dict[bytes, Verdict] = {}
        self.spent: dict[bytes, Spent | None] = {}
        self.refuses: Exception | None = None

    @property
    def suspects(self) -> int:
        return len(self.verdicts)

    asked = None
    run_id = "m"

    def place(
        self, path: tuple[str, ...], visit: int, host: Host, *, key: Any = None, result_type: Any = None
    ) -> Ledger:
        return Ledger(self, (path, visit), host)


class Ledger:
    """Implements `Place`."""

    def __init__(self, memory: Memory, where: tuple[Any, ...], host: Host) -> None:
        self.memory, self.where, self.host = memory, where, host
        self.seen: dict[str, int] = {}
        self.actions: list[Any] = []

    @property
    def has_records(self) -> bool:
        return any(key[0] == self.where for key in self.memory.kept)

    def key_of(self, item: Any) -> bytes:
        text = repr(item)
        count = self.seen[text] = self.seen.get(text, -1) + 1
        return f"{text}#{count}".encode()

    def key_of_single(self, prep_res: Any) -> bytes:
        return f"single:{prep_res!r}".encode()

    async def recall(self, key: bytes) -> Ok[Any] | Failed | None:
        kept = self.memory.kept.get((self.where, key))
        return kept if isinstance(kept, Ok) else None

    def begin(self, key: bytes) -> None:
        self.memory.log.append(f"begin {key.decode()}")

    def rests(self, key: bytes) -> None:
        self.memory.log.append(f"rests {key.decode()}")

    def goes_on(self, key: bytes) -> None:
        self.memory.log.append(f"goes_on {key.decode()}")

    def verdict(self, key: bytes) -> Verdict:
        return self.memory.verdicts.get(key, "run")

    def withdraw(self, key: bytes) -> None:
        self.memory.log.append(f"withdraw {key.decode()}")

    def commit(
        self, key: bytes, outcome: Ok[Any] | Failed, committed: Committed, spent: Spent | None = None
    ) -> None:
        self.memory.spent[key] = spent

        def durable() -> None:
            if self.memory.fail is not None:
                committed(self.memory.fail)
                return
            self.memory.kept[self.where, key] = outcome
            self.memory.log.append(f"commit {key.decode()}")
            committed(None)

        if self.memory.refuses is not None:
            raise self.memory.refuses
        if isinstance(outcome, Ok) and isinstance(outcome.value, complex):
            raise TypeError("a complex number cannot be stored")
        if self.memory.hold is not None:
            self.memory.hold.append(durable)
        else:
            self.host.from_thread(durable)

    def leave(self) -> None:
        self.memory.log.append("leave")

    def acted(self, action: Any) -> None:
        self.memory.log.append(f"acted {'/'.join(self.where[0])} {action}")


def run(flow: Any, shared: Any, memory: Memory) -> Any:
    """One process's run of a flow with this journal."""

    async def main() -> Any:
        place = Run(running_host(), journal=memory)
        place.alone = Alone() if memory.suspects else None
        await flow._run_step(shared, place.inside("top"))
        return place.counts.statistics()

    return asyncio.run(main())


class Doubles(AsyncParallelBatchNode):
    calls: list[int]

    async def prep_async(self, shared: Any) -> Any:
        return shared["items"]

    async def exec_async(self, item: int) -> int:
        self.calls.append(item)
        await asyncio.sleep(0)
        if item < 0:
            raise ValueError(item)
        return 2 * item

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        shared["out"] = exec_res


def doubles(**settings: Any) -> tuple[Doubles, list[int]]:
    node = Doubles(**settings)
    node.calls = []
    return node, node.calls


def test_a_second_run_reads_back_and_calls_nothing() -> None:
    """Results of committed items are read back; exec does not run again; the results are the same."""
    memory = Memory()
    node, calls = doubles()
    shared = {"items": [1, 2, 2, 3]}
    run(AsyncFlow(start=node), shared, memory)
    assert (shared["out"], sorted(calls)) == ([2, 4, 4, 6], [1, 2, 2, 3])
    again, calls = doubles()
    shared = {"items": [1, 2, 2, 3]}
    statistics = run(AsyncFlow(start=again), shared, memory)
    assert (shared["out"], calls, statistics.recalled) == ([2, 4, 4, 6], [], 4)


@pytest.mark.parametrize("door", ["pool", "single", "lane", "thread"])
def test_what_queues_is_not_in_flight(door: str) -> None:
    """An item that waits for its place under the run's cap, or in its lane, has begun nothing: if the process
    dies, it is under no suspicion."""
    memory = Memory()

    class Each(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(4)

        async def exec_async(self, item: int) -> None:
            memory.log.append("call")
            await asyncio.sleep(0)
            memory.log.append("end")

    class Threads(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(4)

        def exec(self, item: int) -> None:
            memory.log.extend(("call", "end"))

    class One(AsyncNode):
        exec_async = Each.exec_async

    class Many(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(4)]

    node: Any = {
        "pool": lambda: Each(),
        "single": lambda: Many(start=One()),
        "lane": lambda: Each(limits=Limits(concurrency=1)),
        "thread": lambda: Threads(),
    }[door]()

    async def main() -> None:
        host = running_host()
        cap = None if door == "lane" else Cap(host, 1)
        place = Run(host, journal=memory, cap=cap)
        await AsyncFlow(start=node)._run_step({}, place.inside("top"))

    asyncio.run(main())
    said = [line.split()[0] for line in memory.log]
    assert [word for word in said if word in ("begin", "call", "end")] == ["begin", "call", "end"] * 4


@pytest.mark.parametrize("door", ["pool", "single"])
def test_what_only_waits_is_not_in_flight(door: str) -> None:
    """An `exec` that waits for its client's lane, say, rests; one whose inner work goes on does not."""
    memory = Memory()

    class Each(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(1)

        async def exec_async(self, item: Any) -> None:
            memory.log.append("call")
            async with waiting("limit"), waiting("retry"):
                memory.log.append("wait")
            memory.log.append("inner")
            await amap(str, [1])
            memory.log.append("end")

    class One(AsyncNode):
        exec_async = Each.exec_async

    node: Any = Each() if door == "pool" else One()

    async def main() -> None:
        place = Run(running_host(), journal=memory)
        await AsyncFlow(start=node)._run_step({}, place.inside("top"))

    asyncio.run(main())
    said = [line.split()[0] for line in memory.log]
    assert said[: said.index("commit")] == [
        *("begin", "call", "rests", "wait", "goes_on", "inner", "goes_on", "end"),
    ]


def test_inserted_and_reordered_items_do_not_redo_finished_ones() -> None:
    """Only new items run."""
    memory = Memory()
    node, _ = doubles()
    run(AsyncFlow(start=node), {"items": [1, 2, 3]}, memory)
    again, calls = doubles()
    shared = {"items": [9, 3, 2, 1, 2]}
    run(AsyncFlow(start=again), shared, memory)
    assert (shared["out"], sorted(calls)) == ([18, 6, 4, 2, 4], [2, 9])


def test_failed_is_not_done() -> None:
    """A failed item is recorded, and runs again in the next run."""
    memory = Memory()
    node, _ = doubles(on_error="continue")
    run(AsyncFlow(start=node), {"items": [1, -1]}, memory)
    assert sorted(type(outcome).__name__ for outcome in memory.kept.values()) == ["Failed", "Ok"]
    again, calls = doubles(on_error="continue")
    run(AsyncFlow(start=again), {"items": [1, -1]}, memory)
    assert calls == [-1]


def test_nothing_is_visible_before_it_is_committed() -> None:
    """post_item sees a result only after its commit."""
    memory = Memory()
    memory.hold = []
    seen: list[int] = []

    class Tells(Doubles):
        calls: list[int] = []

        def post_item(self, shared: Any, item: int, exec_res: int) -> None:
            seen.append(item)

    async def main() -> None:
        assert memory.hold is not None
        place = Run(running_host(), journal=memory)
        task = asyncio.ensure_future(
            AsyncFlow(start=Tells())._run_step({"items": [1, 2, 3]}, place.inside("top"))
        )
        while len(memory.hold) < 3:
            await asyncio.sleep(0)
        assert seen == []
        for durable in memory.hold:
            durable()
        await task

    asyncio.run(main())
    assert seen == [1, 2, 3]


def test_a_failure_lets_what_is_in_flight_end_and_be_committed() -> None:
    """Items in flight are paid for: they end, and are committed, before the first failure is raised."""
    memory = Memory()
    fail, others = asyncio.Event(), []

    class Slow(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(100)

        async def exec_async(self, item: int) -> int:
            if item == 0:
                await fail.wait()
                raise ValueError("first")
            if item == 3:
                fail.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            others.append(item)
            return item

    with pytest.raises(ValueError, match="first"):
        run(AsyncFlow(start=Slow(concurrency=4)), {}, memory)
    stored = sorted(outcome.value for outcome in memory.kept.values() if isinstance(outcome, Ok))
    assert stored == sorted(others)
    assert len(others) < 20


def test_nothing_begins_after_a_failure_that_ends_the_call() -> None:
    """The failure is committed before it is raised, but no further item is called meanwhile."""
    memory = Memory()
    node, calls = doubles(concurrency=1)
    with pytest.raises(ValueError, match="-1"):
        run(AsyncFlow(start=node), {"items": [1, -1, *range(2, 500)]}, memory)
    assert calls == [1, -1]


def test_a_store_that_fails_stops_the_run_loudly() -> None:
    """The run never goes on without its store."""
    memory = Memory()
    memory.fail = OSError("disk full")
    node, calls = doubles(concurrency=2)
    with pytest.raises(OSError, match="disk full"):
        run(AsyncFlow(start=node), {"items": range(10_000)}, memory)
    assert len(calls) < 1000


@pytest.mark.parametrize("error", [StoreError("gone"), ValueError("not even a failure")])
@pytest.mark.parametrize("batch", [False, True])
def test_a_journal_that_takes_nothing_stops_the_run(error: Exception, batch: bool) -> None:
    """Where it refuses at once, as in a forked child: the call raises that, and does not try for ever."""
    memory = Memory()
    memory.refuses = error
    node, calls = doubles(concurrency=2, on_error="continue")
    single = Load()
    single.calls = calls
    with pytest.raises(type(error), match=str(error)):
        run(AsyncFlow(start=node if batch else single), {"items": range(100), "path": "a"}, memory)
    assert len(calls) <= 3


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("flow", [AsyncBatchFlow, AsyncParallelBatchFlow])
@pytest.mark.parametrize("batch", [True, False])
def test_a_lost_store_is_no_failure_of_a_branch(flow: Any, batch: bool, at_once: bool) -> None:
    """A batch flow that keeps failures still ends with the store's error, and pays for nothing more."""
    memory, calls = Memory(), []
    if at_once:
        memory.refuses = StoreError("gone")
    else:
        memory.fail = StoreError("gone")

    class Single(AsyncNode):
        async def exec_async(self, prep_res: Any) -> None:
            calls.append(self.params["i"])

    class Batch(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return [self.params["i"]]

        async def exec_async(self, item: Any) -> None:
            calls.append(item)

    class Branches(flow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"i": number} for number in range(100)]

    branches = Branches(start=Batch() if batch else Single(), on_error="continue", concurrency=2)
    with pytest.raises(StoreError, match="gone"):
        run(AsyncFlow(start=branches), {}, memory)
    assert len(calls) <= 2


def test_an_outcome_that_comes_after_the_store_is_lost_is_not_shown() -> None:
    """Nothing is visible that is not committed, though its `exec` ignored that it was cut off."""

    async def main() -> None:
        store, begun, seen = MemoryStore(), asyncio.Event(), []
        store.failures = [ValueError("gone")]

        async def work(item: int) -> int:
            if item == 0:
                await begun.wait()
                return item
            begun.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return item

        with pytest.raises(StoreError):
            async for outcome in stream(work, range(2), concurrency=2, store=store, run_id="r"):
                seen.append(outcome)
        assert seen == []

    asyncio.run(main())


@pytest.mark.parametrize("deadline", [True, False])
@pytest.mark.parametrize("batch", [True, False])
def test_a_cancellation_during_a_commit_is_raised_after_it(batch: bool, deadline: bool) -> None:
    """What is committed is kept, and nothing runs after it."""
    memory, log = Memory(), []
    memory.hold = held = []

    class Load(AsyncNode):
        async def exec_async(self, prep_res: Any) -> str:
            return "loaded"

    class After(AsyncNode):
        async def prep_async(self, shared: Any) -> None:
            log.append("after")

    async def main() -> None:
        first: Any = Load()
        if batch:
            first, _ = doubles(concurrency=2)
        flow = AsyncFlow(start=first)
        first >> After()
        place = Run(running_host(), journal=memory)

        async def call() -> None:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                await flow._run_step({"items": [1]}, place.inside("top"))

        limits: list[asyncio.Timeout] = []
        task = asyncio.ensure_future(call())
        while not held:
            await asyncio.sleep(0)
        if deadline:
            limits[0].reschedule(0)
        else:
            task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        memory.hold = None
        for durable in held:
            durable()
        with pytest.raises(TimeoutError if deadline else asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == []
    assert len(memory.kept) == 1


def test_the_grace_after_failures_has_one_timer() -> None:
    """However many fail: none is left in the loop."""

    async def main() -> list[Any]:
        host, timers = running_host(), []

        def call_later(delay: float, callback: Any) -> Callable[[], None]:
            timers.append(callback)
            return lambda: timers.remove(callback)

        host.call_later = call_later
        place = Run(host, journal=Memory())
        node, _ = doubles(concurrency=8)
        with pytest.raises(ValueError, match="-"):
            await AsyncFlow(start=node)._run_step({"items": range(-8, 0)}, place.inside("top"))
        return timers

    assert asyncio.run(main()) == []


def test_a_value_that_cannot_be_stored_fails_its_item() -> None:
    """The item's outcome is the refusal, committed as a failure."""

    class Odd(AsyncParallelBatchNode):
        on_error = "continue"

        async def prep_async(self, shared: Any) -> Any:
            return [1, 2]

        async def exec_async(self, item: int) -> Any:
            return 1j if item == 2 else item

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"] = exec_res

    shared: dict[str, Any] = {}
    run(AsyncFlow(start=Odd()), shared, Memory())
    assert shared["out"][0] == 1
    assert isinstance(shared["out"][1], Failed)
    assert isinstance(shared["out"][1].error, TypeError)


class Load(Node):
    calls: list[Any]

    def prep(self, shared: Any) -> Any:
        return shared["path"]

    def exec(self, path: Any) -> Any:
        self.calls.append(path)
        return f"text of {path}"

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
        shared["text"] = exec_res
        return "go"


def test_a_plain_node_runs_again_when_its_prep_returned_something_else() -> None:
    """The record of a plain node holds what prep returned."""
    memory = Memory()
    for path, expected in (("a", ["a"]), ("a", []), ("b", ["b"])):
        node = Load()
        node.calls = []
        shared = {"path": path}
        run(AsyncFlow(start=node), shared, memory)
        assert (node.calls, shared["text"]) == (expected, f"text of {path}")


def test_plain_batch_nodes_are_journaled_in_place_and_on_threads() -> None:
    """The colour and the number make no difference."""
    for concurrency in (1, 3):
        memory = Memory()
        for expected in ([0, 1, 2], []):
            calls: list[int] = []

            class Plain(BatchNode):
                def prep(self, shared: Any) -> Any:
                    return range(3)

                def exec(self, item: int) -> int:
                    calls.append(item)
                    return item + 1

                def post(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
                    shared["out"] = exec_res

            shared: dict[str, Any] = {}
            run(AsyncFlow(start=Plain(concurrency=concurrency)), shared, memory)
            assert (sorted(calls), shared["out"]) == (expected, [1, 2, 3])


def test_each_visit_of_a_loop_is_a_place_of_its_own() -> None:
    """A node that a loop comes by three times has three records."""
    memory = Memory()

    class Step(AsyncNode):
        async def prep_async(self, shared: Any) -> Any:
            return None

        async def exec_async(self, prep_res: Any) -> Any:
            made.append(1)
            return len(made)

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared.setdefault("seen", []).append(exec_res)
            return "again" if len(shared["seen"]) < 3 else None

    for expected in (3, 0):
        made: list[int] = []
        step = Step()
        step - "again" >> step
        step >> AsyncNode()
        shared: dict[str, Any] = {}
        run(AsyncFlow(start=step), shared, memory)
        assert (len(made), shared["seen"]) == (expected, [1, 2, 3])


def test_runs_of_a_batch_flow_are_told_apart_by_their_parameters() -> None:
    """A new set of parameters runs; the others are read back, whatever their order."""
    memory = Memory()

    class Work(AsyncNode):
        async def exec_async(self, prep_res: Any) -> Any:
            made.append(self.params["n"])
            return self.params["n"] * 10

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"].append(exec_res)

    class All(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in shared["numbers"]]

    for numbers, expected in (([1, 2], [1, 2]), ([3, 2, 1], [3])):
        made: list[int] = []
        shared: dict[str, Any] = {"numbers": numbers, "out": []}
        run(All(start=Work()), shared, memory)
        assert sorted(made) == expected
        assert sorted(shared["out"]) == sorted(10 * n for n in numbers)


def test_actions_are_told_to_the_journal() -> None:
    """So that a replay that takes another way can be noticed."""
    memory = Memory()
    node = Load()
    node.calls = []
    node - "go" >> AsyncNode(name="end")
    run(AsyncFlow(start=node), {"path": "a"}, memory)
    assert "acted top/Load go" in memory.log


class Lone:
    """Counts who is at work: `alone` holds those that had nobody beside them from beginning to end."""

    def __init__(self) -> None:
        self.at_work: set[Any] = set()
        self.order: list[Any] = []
        self.crowded: set[Any] = set()

    async def work(self, item: Any) -> Any:
        self.order.append(item)
        self.at_work.add(item)
        for _ in range(4):
            if len(self.at_work) > 1:
                self.crowded |= self.at_work
            await asyncio.sleep(0)
        self.at_work.discard(item)
        return item


def suspects(*items: Any, verdict: Verdict = "alone") -> dict[bytes, Verdict]:
    return {f"{item!r}#0".encode(): verdict for item in items}


@pytest.mark.parametrize("source", [list, iter])
@pytest.mark.parametrize("retried", [False, True])
def test_suspects_run_with_nothing_else_in_flight(source: Any, retried: bool) -> None:
    """Not even an item that waits for its next attempt; the others run together, before and after."""
    lone, memory = Lone(), Memory()
    memory.verdicts = suspects(4, 5, 11)
    failed: set[int] = set()

    class Items(AsyncParallelBatchNode):
        retry = Retry(attempts=2, wait=0.001) if retried else None

        async def prep_async(self, shared: Any) -> Any:
            return source(range(20))

        async def exec_async(self, item: int) -> Any:
            value = await lone.work(item)
            if retried and item not in failed and item % 2:
                failed.add(item)
                raise OSError(item)
            return value

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> Any:
            shared["out"] = exec_res

    shared: dict[str, Any] = {}
    run(AsyncFlow(start=Items(concurrency=6)), shared, memory)
    assert shared["out"] == list(range(20))
    assert not lone.crowded & {4, 5, 11} and len(lone.crowded) == 17
    marks: set[str] = set()
    for entry in memory.log:  # what a death would find in flight
        what, _, key = entry.partition(" ")
        if what == "begin":
            assert not marks or not {key, *marks} & {"4#0", "5#0", "11#0"}
            marks.add(key)
        elif what == "commit":
            marks.discard(key)


def test_suspects_of_different_branches_take_turns() -> None:
    """The gate is the run's, not the node's: single nodes and batch nodes, in parallel branches."""
    lone, memory = Lone(), Memory()

    class One(AsyncNode):
        async def prep_async(self, shared: Any) -> Any:
            return ("one", self.params["n"])

        async def exec_async(self, prep_res: Any) -> Any:
            return await lone.work(prep_res)

    class Many(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return [(self.params["n"], item) for item in range(3)]

        async def exec_async(self, item: Any) -> Any:
            return await lone.work(item)

    class All(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(4)]

    memory.verdicts = suspects((1, 2), (3, 0)) | {b"single:('one', 2)": "alone"}
    one = One()
    one >> Many()
    run(All(start=one), {}, memory)
    assert len(lone.order) == len(set(lone.order)) == 16
    assert not lone.crowded & {(1, 2), (3, 0), ("one", 2)} and lone.crowded


def test_a_run_that_is_asked_to_stop_does_not_wait_for_suspects() -> None:
    """Those that wait for their turn are given up, and so is a single node that does."""
    memory = Memory()
    memory.verdicts = suspects(3, 4) | {b"single:5": "alone"}
    begun: list[Any] = []

    class Items(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return range(50)

        async def exec_async(self, item: int) -> Any:
            begun.append(item)
            while len(begun) < 3:
                await asyncio.sleep(0)
            stop.request("enough")
            await asyncio.sleep(0)

    class One(AsyncNode):
        async def prep_async(self, shared: Any) -> Any:
            return 5

        async def exec_async(self, prep_res: Any) -> Any:
            begun.append("one")

    class All(AsyncParallelBatchFlow):
        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(2)]

    async def main(flow: Any) -> None:
        place = Run(running_host(), journal=memory, stop=stop)
        place.alone = Alone()
        if flow == "one":
            place.alone.lets(b"somebody")
            task = asyncio.ensure_future(
                stoppable(place, "one", lambda: One()._run_step({}, place.inside("top")))
            )
            await asyncio.sleep(0)
            stop.request("enough")
            await task
        else:
            await stoppable(place, "items", lambda: Items(concurrency=5)._run_step({}, place.inside("top")))

    for flow in ("items", "one"):
        stop = Stop()
        with pytest.raises(RunStoppedError):
            asyncio.run(main(flow))
    assert begun == [0, 1, 2]


def test_one_that_is_set_aside_is_not_run_and_the_others_go_on() -> None:
    """Its outcome is a Failed with what to do, which is recorded; a single node raises it."""
    memory = Memory()
    memory.verdicts = suspects(2, verdict="quarantine")
    node, calls = doubles(on_error="continue")
    shared = {"items": [1, 2, 3]}
    run(AsyncFlow(start=node), shared, memory)
    assert sorted(calls) == [1, 3] and [shared["out"][0], shared["out"][2]] == [2, 6]
    failed = shared["out"][1]
    assert isinstance(failed, Failed) and failed.attempts == 0
    assert isinstance(failed.error, ItemCrashedError) and "items retry" in str(failed.error)
    assert "commit 2#0" in memory.log and "begin 2#0" not in memory.log
    memory.verdicts = {b"single:'a'": "quarantine"}
    load = Load()
    load.calls = []
    with pytest.raises(ItemCrashedError):
        run(AsyncFlow(start=load), {"path": "a"}, memory)
    assert load.calls == []


def test_a_branch_that_fails_leaves_the_gate() -> None:
    """A suspect elsewhere is not kept waiting by items that were cut off."""
    memory = Memory()
    memory.verdicts = suspects((1, 1))
    done: list[Any] = []

    class Many(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return [(self.params["n"], item) for item in range(2)]

        async def exec_async(self, item: Any) -> Any:
            if item == (0, 0):
                raise ValueError(item)
            await asyncio.sleep(0.01)
            done.append(item)

    class All(AsyncParallelBatchFlow):
        on_error = "continue"

        async def prep_async(self, shared: Any) -> Any:
            return [{"n": n} for n in range(2)]

    run(All(start=Many()), {}, memory)
    assert (1, 1) in done and (1, 0) in done


def test_plain_items_in_place_are_let_through() -> None:
    """Nothing else goes on there, and nobody waits for ever."""
    memory = Memory()
    memory.verdicts = suspects(0, 2, 3)
    calls: list[int] = []

    class Plain(BatchNode):
        max_retries = 2

        def prep(self, shared: Any) -> Any:
            return range(5)

        def exec(self, item: int) -> int:
            calls.append(item)
            return item

    run(AsyncFlow(start=Plain()), {}, memory)
    assert calls == [0, 1, 2, 3, 4]
