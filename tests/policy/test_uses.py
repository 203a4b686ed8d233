"""asyncflow/policy/uses.py: what calls turn out to use, by their age."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.policy.uses import MEMORY, Uses


def watch(uses: Uses, draws: random.Random, seconds: float, *, a_second: float, as_long: bool) -> list[float]:
    """Calls start evenly; answers of 200 tokens (log-normal) take 20 s, or as long as they are."""
    ends: list[tuple[float, int, float]] = []
    told: list[float] = []
    for number in range(int(seconds * a_second)):
        now = number / a_second
        used = 200.0 * draws.lognormvariate(0.0, 0.5)
        lasts = used / 10 if as_long else 20.0 * draws.lognormvariate(0.0, 0.3)
        ends.append((now + lasts, uses.started(now, 1.0, 4000.0), used))
        ends.sort()
        while ends and ends[0][0] <= now:
            end, key, used = ends.pop(0)
            uses.ended(key, end, used)
            told.append(used)
    uses.learn(seconds)
    return told


def test_nothing_is_known_at_first() -> None:
    """Without a call that told there is no average; a call that was broken off tells nothing."""
    uses = Uses()
    assert uses.at(0.0) is None
    uses.ended(uses.started(0.0, 1.0, 100.0), 1.0, None)
    assert not uses.learn(1.0) and uses.at(0.0) is None and uses.count == 0


@pytest.mark.parametrize("as_long", [False, True])
def test_the_average_is_right_once_all_ages_were_seen(as_long: bool) -> None:
    """After ten minutes the average of a call that starts is within 8 % of the true one, 226.6."""
    uses = Uses()
    watch(uses, random.Random(1), 600.0, a_second=5.0, as_long=as_long)
    found = uses.at(0.0)
    assert found is not None and found.mean == pytest.approx(226.6, rel=0.08)
    assert found.variance**0.5 == pytest.approx(120.0, rel=0.25)


def test_short_answers_that_come_first_are_not_taken_for_all() -> None:
    """Half a minute in, what came had 150 tokens on average; what is said is no less than the truth, 226."""
    said, came = 0.0, 0.0
    for seed in range(20):
        uses = Uses()
        told = watch(uses, random.Random(seed), 30.0, a_second=5.0, as_long=True)
        found = uses.at(0.0)
        assert found is not None
        said, came = said + found.mean / 20, came + sum(told) / len(told) / 20
    assert came < 170.0 and 226.6 < said < 600.0


def test_who_is_old_is_long_where_answers_take_as_long_as_they_are() -> None:
    """A call under way for 30 s has more than 300 tokens; where the two are independent, as many as any."""
    for as_long, least, most in ((True, 330.0, 480.0), (False, 180.0, 280.0)):
        uses = Uses()
        watch(uses, random.Random(2), 900.0, a_second=5.0, as_long=as_long)
        found = uses.at(30.0)
        assert found is not None and least < found.mean < most


def test_calls_of_one_length_leave_no_doubt() -> None:
    """Where all end at the same age with the same use, that is what is said, at every age below."""
    uses = Uses()
    for number in range(100):
        uses.ended(uses.started(float(number), 2.0, 4000.0), number + 5.0, 600.0)
    assert uses.learn(105.0)
    found = uses.at(2.0)
    assert found is not None and found.mean == pytest.approx(300.0) and found.variance < 1e-6


def test_weights_scale() -> None:
    """Calls of weight 3 use three times as much: for one unit of weight the average is the same."""
    uses = Uses()
    for number in range(300):
        weight = 1.0 + 2.0 * (number % 2)
        uses.ended(uses.started(float(number), weight, 4000.0), number + 5.0, weight * 100.0)
    assert uses.learn(305.0)
    found = uses.at(0.0)
    assert found is not None and found.mean == pytest.approx(100.0)


def test_a_change_is_followed() -> None:
    """When answers double, what was before is forgotten after as many calls as are remembered."""
    uses, now = Uses(), 0.0
    for used in (100.0, 200.0):
        for _ in range(2 * MEMORY):
            now += 1.0
            uses.ended(uses.started(now, 1.0, 4000.0), now + 1.0, used)
            uses.learn(now)
    found = uses.at(0.0)
    assert found is not None and found.mean == pytest.approx(200.0)


@pytest.mark.parametrize(("a_minute", "least"), [(0.0, 0.9), (0.1, 0.85)])
def test_a_rise_is_followed_at_once(a_minute: float, least: float) -> None:
    """Answers grow by a tenth a minute, three calls a second: what is said stays close behind the truth."""
    uses, draws = Uses(), random.Random(1)
    for number in range(3 * 600):
        now = number / 3
        truth = 200.0 * (1 + a_minute * now / 60)
        uses.ended(uses.started(now, 1.0, 4000.0), now + 2.0, truth * draws.uniform(0.2, 1.8))
        uses.learn(now + 2.0)
    found = uses.at(0.0)
    assert found is not None and least * truth < found.mean < 1.1 * truth


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 90), st.floats(0, 90), st.floats(0.01, 50), st.none() | st.floats(-20, 9000)),
        min_size=1,
        max_size=80,
    )
)
def test_whatever_calls_do_averages_lie_between_them(
    calls: list[tuple[float, float, float, float | None]],
) -> None:
    """Averages are finite, at every age, and variances at least 0, whatever calls took and used."""
    uses, now = Uses(), 0.0
    for gap, lasts, weight, used in calls:
        now += gap
        uses.ended(uses.started(now, weight, 100.0), now + lasts, used)
        uses.learn(now + lasts)
        for age in (0.0, 1.0, 30.0, 1000.0):
            found = uses.at(age)
            assert found is None or (abs(found.mean) < 1e8 and 0.0 <= found.variance < 1e16)
