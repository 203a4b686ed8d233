"""asyncflow/policy/shares.py: what calls under way will turn out to use."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from asyncflow.policy.shares import Shares


def under_way(
    shares: Shares, draws: random.Random, seconds_of: Callable[[float], float], calls: int
) -> tuple[float, float]:
    """What so many calls, found under way at some moment, were charged and will use."""
    found: list[float] = []
    longest = seconds_of(1.0)
    while len(found) < calls:  # a long call is met more often than a short one
        share = min(1.0, draws.lognormvariate(-0.9, 0.4))
        if draws.random() < seconds_of(share) / longest:
            found.append(share)
    return 500.0 * calls, 500.0 * sum(found)


@pytest.mark.parametrize("calls", [5, 30, 100])
@pytest.mark.parametrize(
    "seconds_of", [lambda share: 2.0, lambda share: 20.0 * share], ids=["any", "as long"]
)
def test_the_sum_of_those_under_way_stays_below(seconds_of: Callable[[float], float], calls: int) -> None:
    """In a thousand moments the calls under way use more than was said in five at most, and not much less."""
    draws = random.Random(calls)
    shares = Shares()
    for _ in range(2000):
        share = min(1.0, draws.lognormvariate(-0.9, 0.4))
        shares.learn(500.0, 500.0 * share, seconds_of(share))
    passed, slack = 0, 0.0
    for _ in range(1000):
        charged, used = under_way(shares, draws, seconds_of, calls)
        said = shares.most(calls, charged) * charged
        passed += used > said
        slack += (said - used) / charged
    assert passed <= 5
    assert slack / 1000 <= 1.2 / calls**0.5


def test_all_is_expected_until_calls_have_told() -> None:
    """Nothing is known at first; then a few calls are believed a little, and many wholly."""
    shares = Shares()
    assert shares.expected(100.0) == 100.0 and shares.most(3, 300.0) == 1.0
    seen = []
    for number in range(1, 2001):
        shares.learn(100.0, 50.0, 1.0)
        if number in (5, 20, 2000):
            seen.append(shares.expected(100.0))
    assert seen == pytest.approx([90.0, 75.0, 50.5], abs=0.01)


def test_better_estimates_count_at_once() -> None:
    """When charges come down to what calls use, calls under way are not taken for a fraction of that."""
    shares = Shares()
    for _ in range(100):
        shares.learn(5000.0, 300.0, 1.0)  # of a charge that was far too high
    assert shares.most(10, 10 * 400.0) >= 300 / 400
    assert shares.expected(400.0) >= 300.0


def test_what_is_given_back_teaches_nothing() -> None:
    """A cancelled call has used nothing, and says nothing of those that run to their end."""
    shares = Shares()
    shares.learn(100.0, 0.0, 1.0)
    assert shares.expected(100.0) == 100.0
