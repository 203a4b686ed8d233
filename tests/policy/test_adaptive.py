"""asyncflow/policy/adaptive.py: a limit that finds itself, as a rule that is called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.policy.adaptive import Adaptive, Change


def a_round(auto: Adaptive, now: float, *, seconds: float = 1.0, at_once: int | None = None) -> list[Change]:
    """A round in which every call is served, with the growth that it earns."""
    changes = []
    for _ in range(auto.limit):
        auto.succeeded(now, seconds=seconds, at_once=auto.limit if at_once is None else at_once)
    while (due := auto.ready_at()) < now + seconds:
        change = auto.grow(max(now, due))
        if change is not None:
            changes.append(change)
    return changes


def test_slow_start_doubles_once_a_round() -> None:
    """Before any refusal the limit doubles with each round, one by one over the round and not in a burst."""
    auto = Adaptive(start=4, highest=64)
    limits = []
    for number in range(4):
        changes = a_round(auto, float(number))
        assert all(change.new == change.old + 1 for change in changes)
        assert {change.reason for change in changes} <= {"slow start"}
        limits.append(auto.limit)
    assert limits[0] >= 7 and 50 <= limits[3] <= 64


def test_growth_is_spread_over_a_round() -> None:
    """However many calls end at one moment, the limit grows by one and then waits."""
    auto = Adaptive(start=10)
    for _ in range(10):
        auto.succeeded(5.0, seconds=2.0, at_once=10)
    assert auto.grow(5.0) == Change(10, 11, "slow start")
    assert auto.grow(5.0) is None
    assert auto.ready_at() == pytest.approx(5.2)


def test_no_growth_unless_filled() -> None:
    """A limit that the load does not fill stays."""
    auto = Adaptive(start=10)
    assert a_round(auto, 0.0, at_once=5) == []


def test_a_refusal_cuts_and_teaches() -> None:
    """The cut is one multiplication; what was under way without the refused call is what is served."""
    auto = Adaptive(start=41)
    assert auto.refused(0.0, at_once=41) == Change(41, 34, "refused with 41 at once")
    assert auto.best == 40
    auto.refused_again(at_once=40)
    assert auto.limit == 34 and auto.best == 39


def test_back_to_the_best_known_and_no_further() -> None:
    """After a cut it grows to what is known to be served, stays there, and then probes by one."""
    auto = Adaptive(start=41)
    auto.refused(0.0, at_once=41)
    for number in range(1, 10):
        a_round(auto, float(number))
    assert auto.limit == 40
    changes = a_round(auto, 10.5)
    assert changes == [Change(40, 41, "probing above 40, the best known")]


def test_a_failed_probe_costs_little_and_is_repeated_later() -> None:
    """Refused just above the best known limit, it goes back a step, and waits twice as long."""
    auto = Adaptive(start=41)
    auto.refused(0.0, at_once=41)
    for number in range(1, 11):
        a_round(auto, float(number))
    assert auto.limit == 41
    assert auto.refused(11.0, at_once=41) == Change(41, 38, "refused with 41 at once")
    assert auto.best == 40
    for number in range(11, 30):
        a_round(auto, float(number))
        assert auto.limit <= 40
    a_round(auto, 31.5)
    assert auto.limit == 41


def test_probes_that_are_served_grow_faster_and_faster() -> None:
    """Where the provider takes twice as much as before, that is found in some ten rounds."""
    auto = Adaptive(start=41)
    auto.refused(0.0, at_once=41)
    now = 1.0
    while auto.limit < 80 and now < 60:
        a_round(auto, now)
        now += 1.0
    assert now < 30


def test_failures_stop_growth_and_cut_nothing() -> None:
    """A 5xx is no reason to ask for less, and none to ask for more."""
    auto = Adaptive(start=10)
    auto.succeeded(0.0, seconds=1.0, at_once=10)
    auto.failed()
    assert auto.grow(100.0) is None and auto.limit == 10


def test_refused_with_few_under_way() -> None:
    """Where hardly anything ran, their number may not be the reason: halved, and nothing is unlearnt."""
    auto = Adaptive(start=40)
    assert auto.refused(0.0, at_once=1) == Change(40, 20, "refused with only 1 at once")
    assert auto.best == 40


def test_refused_where_as_many_were_served_before() -> None:
    """A limit that is not sharp is not held: down by a cut, and up again at once, by one a round."""
    auto = Adaptive(start=41)
    auto.refused(0.0, at_once=41)
    auto.refused(1.0, at_once=34)
    assert auto.limit == 28
    grown = [change.new for number in range(2, 5) for change in a_round(auto, float(number))]
    assert grown[:2] == [29, 30] and max(grown) < 41


def test_growth_that_brings_nothing_is_taken_back() -> None:
    """Twice as many at once, each of which takes twice as long: back to what was as fast, and a rest."""
    auto, now, changes = Adaptive(start=16), 0.0, []
    while now < 60.0:  # a server that serves 200 a second, whatever is asked of it
        now += 1 / 200
        changes += [auto.succeeded(now, seconds=auto.limit / 200, at_once=auto.limit), auto.grow(now)]
    told = [change for change in changes if change is not None]
    backs = [change for change in told if change.new < change.old]
    assert 2 <= len(backs) <= 4 and all("not served faster" in change.reason for change in backs)
    assert auto.best is None and max(change.new for change in told) <= 200
    assert all(change.new <= 64 for change in backs)


def test_growth_that_brings_more_goes_on() -> None:
    """Twice as many at once in the same time: slow start goes on to the highest limit."""
    auto, now = Adaptive(start=16), 0.0
    while now < 12.0:
        now += 1.0 / auto.limit
        assert auto.succeeded(now, seconds=1.0, at_once=auto.limit) is None
        auto.grow(now)
    assert auto.limit == 1000


def test_a_cap_is_a_cap() -> None:
    """Of two settings the stricter counts from then on."""
    auto = Adaptive(start=40)
    assert auto.cap(8) == Change(40, 8, "the stricter of two settings")
    assert auto.cap(100) is None
    assert a_round(auto, 0.0) == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["served", "refused", "again", "failed"]), st.integers(1, 60), st.floats(0, 5)
        ),
        max_size=300,
    ),
    st.integers(1, 50),
)
def test_always_between_its_bounds(happenings: list[tuple[str, int, float]], highest: int) -> None:
    """Whatever happens, the limit stays between its bounds, and changes are told as they are."""
    auto, now = Adaptive(start=16, highest=highest), 0.0
    shown = auto.limit
    for what, at_once, wait in happenings:
        now += wait
        changes = []
        if what == "served":
            auto.succeeded(now, seconds=wait, at_once=at_once)
            changes.append(auto.grow(now))
        elif what == "refused":
            changes.append(auto.refused(now, at_once=at_once, pause=wait))
        elif what == "again":
            auto.refused_again(at_once=at_once)
        else:
            auto.failed()
        for change in changes:
            if change is not None:
                assert change.old == shown and change.reason
                shown = change.new
        assert auto.limit == shown and 1 <= shown <= highest
        assert auto.best is None or 1 <= auto.best
