"""Flows on a real journal: the engine's half of the promise and the room's, together."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchFlow,
    AsyncParallelBatchNode,
    BatchNode,
    Flow,
    Node,
)
from asyncflow.durability import MemoryStore, SQLStore, Store, as_store, open_journal, open_run
from asyncflow.engine.context import Run
from asyncflow.engine.hosts import running_host
from asyncflow.errors import KeyNeededError, NotStorableError, ResumeMismatchError, StoreError

#: A plain node holds the loop until its result is committed, which a busy machine may make long.
pytestmark = pytest.mark.filterwarnings("ignore:.* has held the event loop")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return as_store(
        request.getfixturevalue("postgres_url") if request.param == "postgres" else tmp_path / "runs.db"
    )


def run(flow: Any, shared: Any, store: Store, **options: Any) -> Any:
    """One process's run of a flow; returns what the run counted."""

    async def main() -> Any:
        async with open_journal(store, "a", **options) as journal:
            place = Run(running_host(), journal=journal)
            await flow._run_step(shared, place.inside("top"))
            return place.counts.statistics()

    return asyncio.run(main())


class Words(AsyncParallelBatchNode):
    """Three items of one row, each counted; `bad` ones fail until mended."""

    calls: list[str] = []
    bad: set[str] = set()

    async def prep_async(self, shared: Any) -> Any:
        return [f"{self.params.get('row', 'r')}-{n}" for n in range(3)]

    async def exec_async(self, item: str) -> str:
        Words.calls.append(item)
        await asyncio.sleep(0)
        if item in Words.bad:
            raise ValueError(item)
        return item.upper()

    async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> str:
        shared.setdefault("out", []).extend(exec_res)
        return "next"


class Join(Node):
    calls = 0

    def prep(self, shared: Any) -> Any:
        return sorted(shared["out"])

    def exec(self, prep_res: Any) -> str:
        Join.calls += 1
        return "+".join(prep_res)

    def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
        shared["joined"] = exec_res


class Rows(AsyncParallelBatchFlow):
    async def prep_async(self, shared: Any) -> Any:
        return [{"row": row} for row in shared["rows"]]


@pytest.fixture(autouse=True)
def fresh() -> None:
    Words.calls, Words.bad, Join.calls = [], set(), 0


def flow() -> Any:
    words = Words(max_retries=1)
    words - "next" >> Join()
    return AsyncFlow(start=words)


def test_a_second_run_calls_nothing_and_has_the_same_results(store: Store) -> None:
    """Batch items, plain nodes and actions, all read back."""
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    run(flow(), first, store)
    assert (len(Words.calls), Join.calls) == (3, 1)
    run(flow(), second, store)
    assert (len(Words.calls), Join.calls) == (3, 1) and second == first


def test_a_parallel_batch_flow_resumes_each_run_by_its_parameters(store: Store) -> None:
    """Rows inserted and reordered: only the new row's items are called."""
    run(Rows(start=flow()), {"rows": [1, 2, 3]}, store)
    assert len(Words.calls) == 9
    Words.calls = []
    shared: dict[str, Any] = {"rows": [9, 3, 1, 2]}
    run(Rows(start=flow()), shared, store)
    assert sorted(Words.calls) == ["9-0", "9-1", "9-2"]
    assert sorted(shared["out"]) == sorted(f"{row}-{n}" for row in (1, 2, 3, 9) for n in range(3))


def test_after_a_failure_only_what_is_missing_runs(store: Store) -> None:
    """What was paid for is kept, the failed item runs again, and the run is not called finished before."""
    Words.bad = {"r-1"}
    with pytest.raises(ValueError, match="r-1"):
        run(flow(), {}, store)
    Words.calls, Words.bad = [], set()
    shared: dict[str, Any] = {}
    run(flow(), shared, store)
    assert "r-1" in Words.calls and len(Words.calls) <= 3
    assert shared["out"] == ["R-0", "R-1", "R-2"] and shared["joined"] == "R-0+R-1+R-2"


def test_a_loop_records_each_visit(store: Store) -> None:
    """A node that is reached again is another place; a resumed loop takes the same way."""

    class Count(AsyncNode):
        calls = 0

        async def exec_async(self, prep_res: Any) -> int:
            Count.calls += 1
            return Count.calls

        async def post_async(self, shared: Any, prep_res: Any, exec_res: int) -> str:
            shared.setdefault("seen", []).append(exec_res)
            return "again" if exec_res < 4 else "done"

    for expected in (4, 4):
        node = Count()
        node - "again" >> node
        node - "done" >> Join()
        shared: dict[str, Any] = {"out": []}
        run(AsyncFlow(start=node), shared, store)
        assert shared["seen"] == [1, 2, 3, 4] and Count.calls == expected


def test_another_way_from_the_same_results_is_refused(store: Store) -> None:
    """A post that depends on the clock, say, would continue a different run."""

    class Turn(AsyncNode):
        way = "left"

        async def exec_async(self, prep_res: Any) -> int:
            return 1

        async def post_async(self, shared: Any, prep_res: Any, exec_res: int) -> str:
            return Turn.way

    def turning() -> Any:
        node = Turn()
        node - "left" >> Join()
        node - "right" >> Join()
        return AsyncFlow(start=node)

    run(turning(), {"out": []}, store)
    Turn.way = "right"
    with pytest.raises(ResumeMismatchError, match="Turn"):
        run(turning(), {"out": []}, store)


def test_what_cannot_be_known_or_kept_is_told_by_name(store: Store) -> None:
    """Items without content need a key; results without a stored form fail their item."""

    class Bare(AsyncParallelBatchNode):
        async def prep_async(self, shared: Any) -> Any:
            return shared["items"]

        async def exec_async(self, item: Any) -> Any:
            return object()

    with pytest.raises(KeyNeededError, match="Bare"):
        run(AsyncFlow(start=Bare()), {"items": [object()]}, store)
    with pytest.raises(NotStorableError, match=r"Bare: the result of item 0 \(1\)"):
        run(AsyncFlow(start=Bare()), {"items": [1]}, store)


def test_a_store_that_fails_ends_the_run() -> None:
    """Loudly, with what the store said; nothing goes on without it."""
    store = MemoryStore()

    class Breaks(Words):
        async def exec_async(self, item: str) -> str:
            store.failures = [ValueError("damaged")]
            return item

    with pytest.raises(StoreError, match="damaged"):
        run(AsyncFlow(start=Breaks()), {}, store)


def test_a_synchronous_flow_resumes_too(tmp_path: Path) -> None:
    """Driven without an event loop, on threads."""
    from asyncflow.engine.driver import BlockingHost, drive

    class Twice(BatchNode):
        calls = 0

        def prep(self, shared: Any) -> Any:
            return range(50)

        def exec(self, item: int) -> int:
            Twice.calls += 1
            return 2 * item

        def post(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["out"] = exec_res

    for _ in range(2):
        shared: dict[str, Any] = {}
        with open_run(SQLStore(tmp_path / "runs.db"), "a") as journal:
            host = BlockingHost()
            drive(
                host,
                Flow(start=Twice(concurrency=4))._run_step(shared, Run(host, journal=journal).inside("top")),
            )
        assert shared["out"] == [2 * n for n in range(50)] and Twice.calls == 50
