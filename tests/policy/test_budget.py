"""asyncflow/policy/budget.py: money."""

from __future__ import annotations

import random

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow import clock
from asyncflow.errors import BudgetSpentError
from asyncflow.policy import Budget
from tests.policy.provider import BACKENDS, run


async def spend(budget: Budget, calls: list[tuple[float, float, float]], luck: random.Random) -> list[str]:
    """Make these calls side by side: (probably, at most, really)."""
    ended: list[str] = []

    async def one(probably: float, at_most: float, really: float) -> None:
        try:
            async with budget.reserve(probably=probably, at_most=at_most) as call:
                await clock.sleep(luck.random())
                call.cost(really)
            ended.append("ok")
        except BudgetSpentError as error:
            ended.append(error.reason)

    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(one, *call)
    return ended


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.1, 2.0)), min_size=1, max_size=40
    ),
    max_cost=st.floats(0.0, 10.0),
)
def test_never_exceeded_by_more_than_one_calls_error(
    sizes: list[tuple[float, float, float]], max_cost: float
) -> None:
    """Whatever calls cost, up to their `at_most`, no more is spent than one call's error above the budget."""
    calls = [(low * top, top, share * top) for low, share, top in sizes]
    budget = Budget(max_cost)
    ended = run(lambda: spend(budget, calls, random.Random(1)))
    worst = max(0.0, *(really - probably for probably, _, really in calls))
    now = budget.statistics()
    assert len(ended) == len(calls) and (now.running, now.waiting, now.reserved) == (0, 0, 0)
    assert now.spent <= max_cost + worst + 1e-6
    assert now.refused == ended.count("budget")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_budget_is_used(backend: str) -> None:
    """Calls said to cost ten times too much: the money is spent to the last call, and the rest is told."""
    budget = Budget(1.0)
    ended = run(lambda: spend(budget, [(0.011, 0.1, 0.01)] * 200, random.Random(1)), backend)
    assert 0.98 <= budget.statistics().spent <= 1.0
    assert ended.count("ok") == round(budget.statistics().spent / 0.01)
    assert ended.count("budget") == 200 - ended.count("ok")


def test_nothing_is_spent_by_what_did_not_run() -> None:
    """A cancelled call gives back what was set aside, whether it waited or ran."""
    budget = Budget(1.0)

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def one() -> None:
                async with budget.reserve(probably=0.5, at_most=0.9):
                    await clock.sleep(1e6)

            for _ in range(5):
                group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            assert (budget.statistics().running, budget.statistics().waiting) == (1, 4)
            group.cancel_scope.cancel()

    run(main)
    now = budget.statistics()
    assert (now.spent, now.reserved, now.running, now.waiting) == (0, 0, 0, 0)
    assert repr(budget) == "<Budget 0 of 1 spent, 0 reserved>"


def test_attempts_add_up_and_failures_count() -> None:
    """What failed attempts cost is spent too."""
    budget = Budget(None)

    async def main() -> None:
        with pytest.raises(KeyError):
            async with budget.reserve(probably=1.0) as call:
                call.cost(0.2)
                call.cost(0.3)
                raise KeyError
        budget.add(0.1)

    run(main)
    assert budget.statistics().spent == pytest.approx(0.6)


def test_wrong_amounts_are_told() -> None:
    """A budget that is negative, not a number, or not at all one is refused."""
    for wrong in (-1, float("nan"), "5", True):
        with pytest.raises(ValueError, match="max_cost"):
            Budget(wrong)  # type: ignore[arg-type]
