"""asyncflow/policy/rate.py: so much per minute."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncflow.policy.rate import Quota, Rate
from asyncflow.policy.window import Cost

Started = list[tuple[float, float]]

#: Moments between calls: none, short, and long enough to forget.
GAPS = st.lists(st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.0, 7.0, 61.0]), min_size=1, max_size=60)


def fill(rate: Rate, start: float, seconds: float, cost: float = 1.0, share: float | None = None) -> Started:
    """Start calls as soon as each may; with `share`, each uses that share of its charge, a second later."""
    now, started, under_way = start, [], []
    while now < start + seconds:
        ready = max(now, rate.ready_at(now, Cost.about(cost)))
        if under_way and under_way[0][0] <= ready:
            now = max(now, under_way[0][0])
            rate.settle(now, under_way.pop(0)[1], cost * (share or 1.0))
            continue
        now = ready
        started.append((now, cost * (1.0 if share is None else share)))
        charge = rate.take(now, Cost.about(cost))
        if share is not None:
            under_way.append((now + 1.0, charge))
    return started


def most_in_a_window(started: Started, width: float) -> float:
    """The most that any half-open window of this width holds."""
    most = total = 0.0
    first = 0
    for now, cost in started:
        total += cost
        while started[first][0] <= now - width:
            total -= started[first][1]
            first += 1
        most = max(most, total)
    return most


@pytest.mark.parametrize("amount", [1, 2, 3, 10, 59, 60, 61, 500, 3000])
def test_no_window_holds_more_than_the_quota_and_little_less(amount: int) -> None:
    """Kept busy for ten minutes, a rate starts at least 97 % of its quota, and never more in any minute."""
    rate = Rate(Quota(amount))
    started = fill(rate, 1234.5, 600.0)
    assert most_in_a_window(started, 60.0) <= amount
    assert len(started) >= 0.97 * 10 * amount


def test_smooth_from_the_first_second() -> None:
    """There is no double burst: no second holds more than a sixtieth of the quota and a tenth of that."""
    started = fill(Rate(Quota(6000)), 0.0, 30.0)
    assert most_in_a_window(started, 1.0) <= 110


@given(
    amount=st.integers(1, 200),
    gaps=GAPS,
    costs=st.lists(st.integers(1, 40), min_size=1),
    start=st.floats(0, 1e6),
)
def test_no_window_holds_more_whatever_the_calls(
    amount: int, gaps: list[float], costs: list[int], start: float
) -> None:
    """Whenever calls of whatever size come, those started in any minute fit into the quota."""
    rate, now, started = Rate(Quota(amount)), start, []
    for number, gap in enumerate(gaps * 3):
        cost = float(costs[number % len(costs)])
        now = max(now + gap, rate.ready_at(now + gap, Cost.about(cost)))
        rate.take(now, Cost.about(cost))
        started.append((now, min(cost, amount)))
    assert most_in_a_window(started, 60.0) <= amount + 1e-9


@settings(max_examples=30, deadline=None)
@given(share=st.floats(0.3, 1.0), amount=st.integers(50, 5000))
def test_what_is_given_back_is_used_and_never_too_much(share: float, amount: int) -> None:
    """Calls that use a part of their charge leave the rest to others; no minute gets more than its due."""
    rate = Rate(Quota(amount))
    started = fill(rate, 0.0, 300.0, cost=amount / 50, share=share)
    assert most_in_a_window(started, 60.0) <= amount + 1e-6
    assert sum(used for _, used in started) >= 0.93 * 5 * amount


@given(gaps=GAPS, used=st.lists(st.floats(0, 30), min_size=60, max_size=60))
def test_settling_is_exact(gaps: list[float], used: list[float]) -> None:
    """Once all calls are settled, the last minute has used exactly what they said."""
    rate, now, calls = Rate(Quota(1000)), 0.0, []
    for gap in gaps:
        now += gap
        calls.append((now, rate.take(now, Cost.about(10.0))))
    for (_, charge), amount in zip(calls, used, strict=False):
        rate.settle(now, charge, amount)
    oldest = math.floor((now - 60.0) / 0.1) * 0.1
    expected = sum(amount for (at, _), amount in zip(calls, used, strict=False) if at >= oldest)
    assert rate.used(now) == pytest.approx(expected, abs=1e-6)


@given(amount=st.integers(1, 1000), cost=st.floats(1, 500), gap=st.floats(0, 59))
@example(amount=2, cost=1.0000000000000002, gap=0.0)
def test_taking_and_giving_back_changes_nothing(amount: int, cost: float, gap: float) -> None:
    """A call that is given back at once leaves the rate as it was."""
    rate = Rate(Quota(amount))
    rate.take(100.0, Cost(1.0))
    now = 100.0 + gap
    before = max(now, rate.ready_at(now, Cost.about(cost)))
    rate.settle(now, rate.take(now, Cost.about(cost)), 0.0)
    assert max(now, rate.ready_at(now, Cost.about(cost))) == pytest.approx(before, abs=1e-6)
    assert rate.used(now) == pytest.approx(1.0)


def test_more_than_reserved_is_paid_later() -> None:
    """A call that used more than its charge delays those after it."""
    rate = Rate(Quota(600))
    rate.settle(0.0, rate.take(0.0, Cost(10.0)), 310.0)
    assert 29.0 < rate.ready_at(0.0, Cost(10.0)) < 33.0


def test_larger_than_the_quota_goes_alone() -> None:
    """A call that can never fit is charged the whole quota instead of waiting for ever."""
    rate = Rate(Quota(100))
    assert rate.ready_at(0.0, Cost.about(5000.0)) <= 0.0
    rate.take(0.0, Cost.about(5000.0))
    assert 60.0 < rate.ready_at(0.0, Cost(1.0)) < 62.0


def test_quotas_are_checked() -> None:
    """A quota below one, infinite, or not a number is refused."""
    for wrong in (0, 0.5, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="at least 1"):
            Quota(wrong)
    with pytest.raises(TypeError, match="a number"):
        Quota("60")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a number"):
        Quota(True)
