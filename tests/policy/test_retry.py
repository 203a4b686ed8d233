"""`Retry`: pure decisions, without a loop or a clock."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import Retry
from asyncflow.errors import ItemTimeoutError, TransientError


def test_waits_grow_up_to_the_most() -> None:
    """Each wait is the one before it times the factor, never more than max_wait, however many attempts."""
    rule = Retry(attempts=10_000, wait=1, factor=2, max_wait=10, jitter=0)
    assert [rule.wait_after(n, OSError()) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 10]
    assert rule.wait_after(9_999, OSError()) == 10  # 2 ** 9998 is no float
    assert rule.wait_after(10_000, OSError()) is None


@given(
    attempt=st.integers(1, 50),
    wait=st.floats(0, 1000),
    jitter=st.floats(0, 1),
    uniform=st.floats(0, 1, exclude_max=True),
)
def test_jitter_only_shortens_and_by_no_more_than_its_share(
    attempt: int, wait: float, jitter: float, uniform: float
) -> None:
    """The wait lies between (1 - jitter) times the plain wait and the plain wait."""
    rule = Retry(attempts=100, wait=wait, jitter=jitter)
    whole = min(rule.max_wait, wait * 2.0 ** (attempt - 1))
    waited = rule.wait_after(attempt, OSError(), lambda: uniform)
    assert waited is not None
    assert whole * (1 - jitter) - 1e-9 <= waited <= whole


def test_the_error_s_own_wait_is_respected() -> None:
    """At least `retry_after`, beyond max_wait too; what is no finite number of seconds is left aside."""
    rule = Retry(attempts=2, wait=1, max_wait=5, jitter=0)
    assert rule.wait_after(1, TransientError("busy", retry_after=30)) == 30
    assert rule.wait_after(1, TransientError("busy", retry_after=0.1)) == 1
    for odd in (math.inf, math.nan, -5, "soon", None):
        assert rule.wait_after(1, TransientError("busy", retry_after=odd)) == 1  # type: ignore[arg-type]
    spread = Retry(attempts=2, wait=1, jitter=0.5).wait_after(
        1, TransientError("busy", retry_after=30), lambda: 0.5
    )
    assert spread == 30.25  # not all of them at once, and none too early


def test_what_is_repeated() -> None:
    """By default passing failures of the world; by class, classes, predicate; never what is exhausted."""
    for error in (TimeoutError(), ConnectionError(), OSError(), TransientError(), ItemTimeoutError()):
        assert Retry().repeats(error)
    for other in (ValueError(), KeyboardInterrupt(), TransientError(exhausted=True)):
        assert not Retry().repeats(other)
    assert Retry(on=ValueError).repeats(ValueError()) and not Retry(on=ValueError).repeats(OSError())
    assert Retry(on=(KeyError, OSError)).repeats(OSError())
    assert Retry(on=lambda error: "again" in str(error)).repeats(ValueError("again"))
    assert not Retry(on=BaseException).repeats(KeyboardInterrupt())
    assert Retry.constant(3, 2.0).wait_after(2, ValueError()) == 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"attempts": 0}, ValueError),
        ({"attempts": True}, TypeError),
        ({"attempts": 2.0}, TypeError),
        ({"wait": -1}, ValueError),
        ({"wait": math.nan}, ValueError),
        ({"wait": "1"}, TypeError),
        ({"factor": 0.5}, ValueError),
        ({"max_wait": -1}, ValueError),
        ({"jitter": 1.5}, ValueError),
        ({"jitter": None}, TypeError),
        ({"on": "OSError"}, TypeError),
        ({"on": (OSError, 3)}, TypeError),
    ],
)
def test_numbers_out_of_range_are_refused(wrong: Any, error: Any) -> None:
    """Each at once, and by name."""
    with pytest.raises(error, match=next(iter(wrong))):
        Retry(**wrong)
