"""What a spent budget stops is skipped, told apart from failed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncflow import AsyncNode, Retry, Skipped, amap, run, stream
from asyncflow.errors import BudgetSpentError
from asyncflow.events import LimitChanged
from asyncflow.policy.limits import Limits
from asyncflow.policy.settings import LaneSettings


async def spend(item: int) -> int:
    if item >= 2:
        raise BudgetSpentError("no money left")
    return item


def test_a_spent_budget_skips_items_under_continue() -> None:
    """Skipped stands in the place of the result, is not retried, and is counted apart."""

    async def main() -> None:
        retry = Retry.constant(3)
        results = await amap(spend, range(4), on_error="continue", retry=retry)
        assert results[:2] == [0, 1]
        assert [(one.reason, one.index, one.attempts) for one in results[2:]] == [
            ("budget", 2, 0),
            ("budget", 3, 0),
        ]
        outcomes = stream(spend, range(4), on_error="continue")
        kinds = [type(outcome).__name__ async for outcome in outcomes]
        assert sorted(kinds) == ["Ok", "Ok", "Skipped", "Skipped"]
        assert (outcomes.statistics().skipped, outcomes.statistics().failed) == (2, 0)
        with pytest.raises(BudgetSpentError):
            await amap(spend, range(4))

    asyncio.run(main())


def test_a_single_node_is_skipped_too() -> None:
    """`post` receives the Skipped; the statistics say so."""

    class Spends(AsyncNode):
        on_error = "continue"

        async def exec_async(self, prep_res: Any) -> int:
            return await spend(2)

        async def post_async(self, shared: Any, prep_res: Any, exec_res: Any) -> None:
            shared["result"] = exec_res

    result = asyncio.run(run(Spends()))
    assert isinstance(result.shared["result"], Skipped)
    assert result.statistics.skipped == 1


def test_a_skipped_item_runs_when_the_run_goes_on(tmp_path: Path) -> None:
    """It is not recorded: with more money it may run."""
    money = 2

    async def pay(item: int) -> int:
        if item >= money:
            raise BudgetSpentError("no money left")
        return item

    async def main() -> list[Any]:
        return await amap(pay, range(4), on_error="continue", store=tmp_path / "runs.db", run_id="m")

    assert [isinstance(one, Skipped) for one in asyncio.run(main())] == [False, False, True, True]
    money = 9
    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_observers_of_a_run_hear_of_the_lanes() -> None:
    """A limit that changes during a run is one of its events."""
    heard: list[Any] = []

    async def restrict(item: int) -> int:
        for limit in (30, 10):
            Limits.of_loop().lane("http://127.0.0.1", settings=LaneSettings(requests_per_minute=limit))
        return item

    asyncio.run(amap(restrict, [1], observers=[heard.append]))
    assert any(isinstance(event, LimitChanged) and event.new == 10 for event in heard)
