"""With each outcome: attempts, times, and what it has cost, whatever `exec` returns."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from asyncflow import (
    AsyncFlow,
    AsyncNode,
    AsyncParallelBatchNode,
    BatchNode,
    Flow,
    Retry,
    amap,
    run_sync,
)
from asyncflow.durability import MemoryStore, SQLStore, Store
from asyncflow.durability.store import ACTION, Record
from asyncflow.llm import LLMClient, Price
from asyncflow.outcome import Spent
from asyncflow.testing import SimulatedProvider
from asyncflow.waiting import spent


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SQLStore(tmp_path / "runs.db")


def recorded(store: Store) -> tuple[list[Record], Spent]:
    reader = store.open_reader()
    try:
        records = [record for _, record in reader.following(1, 0, 1000) if record.kind != ACTION]
        return sorted(records, key=lambda record: record.position), reader.spent(1)
    finally:
        reader.close()


def test_what_a_model_s_answers_cost_is_recorded_though_exec_returns_something_else(store: Store) -> None:
    """Attempts that fail are paid for, and so are the calls of an amap inside."""

    async def main() -> Any:
        async with SimulatedProvider(reply=lambda asked: "a b c", latency=0) as provider:
            async with LLMClient(
                "m", base_url=provider.base_url, api_key="k", price=Price(1e6, 2e6)
            ) as client:
                failed: set[int] = set()

                async def ask(item: int) -> int:
                    await client.complete("one two three four")
                    if item == 1 and item not in failed:
                        failed.add(item)
                        raise OSError("after the answer")
                    if item == 2:
                        await amap(client.complete, ["one two three four"] * 2)
                    return item

                retry = Retry(attempts=2, wait=0.001)
                before = time.time()
                await amap(ask, range(4), retry=retry, store=store, run_id="r", on_error="continue")
                return before, client.statistics()

    before, used = asyncio.run(main())
    records, total = recorded(store)
    assert total == Spent(used.usage.input_tokens, used.usage.output_tokens, 0, pytest.approx(used.cost))
    assert used.calls == 7
    per_call = used.usage.input_tokens / 7
    read = [
        int(record.usage.split('"input_tokens": ')[1].split(",")[0]) for record in records if record.usage
    ]
    assert read == [per_call, 2 * per_call, 3 * per_call, per_call]
    assert [record.attempts for record in records] == [1, 2, 1, 1]
    assert all(before <= record.began <= record.at <= time.time() for record in records)


def test_sums_go_over_all_sessions(store: Store) -> None:
    """A resume does not begin at zero; a failure that was paid for counts, though a result replaced it."""

    async def work(item: int) -> int:
        spent(10, 1, cost=0.5)
        if item == 2 and session == 1:
            raise ValueError(item)
        return item

    for session, expected in (
        (1, Spent(30, 3, 0, 1.5)),
        (2, Spent(40, 4, 0, 2.0)),
        (3, Spent(40, 4, 0, 2.0)),
    ):
        asyncio.run(amap(work, range(3), store=store, run_id="r", on_error="continue"))
        assert recorded(store)[1] == expected


class Single(AsyncNode):
    async def exec_async(self, prep_res: Any) -> str:
        spent(5, 2, 1)
        return "x"


class Many(AsyncParallelBatchNode):
    async def prep_async(self, shared: Any) -> Any:
        return range(3)

    async def exec_async(self, item: int) -> str:
        spent(5, 2, 1)
        return "x"


class Plain(BatchNode):
    def prep(self, shared: Any) -> Any:
        return range(3)

    def exec(self, item: int) -> str:
        spent(5, 2, 1)
        return "x"


@pytest.mark.parametrize(
    ("flow", "times"),
    [
        (lambda: AsyncFlow(start=Single()), 1),
        (lambda: AsyncFlow(start=Many()), 3),
        (lambda: Flow(start=Plain()), 3),
        (lambda: Flow(start=Plain(concurrency=2)), 3),
    ],
    ids=["single", "many", "in place", "threads"],
)
def test_each_kind_of_node_records_what_it_spends(store: Store, flow: Any, times: int) -> None:
    """And the session's sum is in the result; read back, it is nothing new."""
    expected = Spent(5 * times, 2 * times, times)
    assert run_sync(flow(), {}, store=store, run_id="r").spent == expected
    assert run_sync(flow(), {}, store=store, run_id="r").spent == Spent()
    assert recorded(store)[1] == expected
    assert run_sync(flow(), {}).spent is None


def test_an_item_s_costs_are_its_own() -> None:
    """A worker that goes on to the next item does not take them along."""
    store = MemoryStore()

    async def work(item: int) -> int:
        if item % 2:
            spent(item, 0)
        return item

    asyncio.run(amap(work, range(6), concurrency=1, store=store, run_id="r"))
    records, _ = recorded(store)
    assert [record.usage is not None for record in records] == [False, True] * 3
