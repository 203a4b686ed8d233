"""asyncflow/policy/follow.py: what a provider reports of its quotas, and what follows from it."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import clock, errors
from asyncflow.events import Event, LanePaused, LaneResumed, LimitChanged
from asyncflow.policy import LaneSettings, RateLane
from asyncflow.policy.follow import Followed, Reports
from asyncflow.policy.reported import Quota
from tests.policy.provider import run


def openai(
    limit: int, left: int, reset: float, what: str = "requests", more: dict[str, str] | None = None
) -> dict[str, str]:
    said = (("limit", str(limit)), ("remaining", str(left)), ("reset", f"{reset}s"))
    return {f"x-ratelimit-{part}-{what}": value for part, value in said} | (more or {})


@pytest.mark.parametrize(
    ("what", "reports", "per_minute"),
    [
        ("a bucket of a minute", [(600, 599, 0.1), (600, 590, 1.0)], 600),
        ("a window of a minute", [(600, 599, 59.0), (600, 300, 30.0), (600, 20, 1.0)], 600),
        ("a bucket that holds a second of it", [(600, 9, 0.1), (600, 1, 0.9)], 600),
        ("a window about to end", [(600, 350, 0.9)] * 5 + [(600, 599, 60.0)], 600),
        (
            "resets in whole seconds",
            [(600, 598, 0.0), (600, 596, 0.0), (600, 597, 0.0), (600, 595, 0.0)],
            600,
        ),
        ("a limit that was raised", [(600, 599, 0.1), (5000, 4900, 1.2)], 5000),
        ("nothing but the limit", [(600, None, None)], 600),
        ("a quota of a day", [(10_000, 9000, 8640.0)], None),
        ("a quota of a day, fresh", [(10_000, 9999, 8.64), (10_000, 9990, 86.4)], None),
        ("a quota of a second", [(5, 4, 0.2), (5, 3, 0.4), (5, 4, 0.1)], None),
        ("nothing", [(None, None, None)], None),
        ("a limit of zero, as some proxies say", [(0, 0, 60.0)], None),
        ("more left than there is", [(600, 9000, 1.0)], 600),
    ],
)
def test_what_a_minute_allows(
    what: str, reports: list[tuple[int | None, int | None, float | None]], per_minute: float | None
) -> None:
    """A limit sets a rate where it is one of a minute, and never where it is not."""
    quota = Followed()
    for number, report in enumerate(reports, 1):
        quota.heard(float(number), number, Quota(*report))
    assert quota.per_minute == per_minute, what


@pytest.mark.parametrize(
    ("report", "since", "need", "ready"),
    [
        (Quota(600, 500, 10.0), 5, 1, None),
        (Quota(600, 5, 59.5), 4, 1, None),
        (Quota(600, 5, 59.5), 5, 1, 101.1),  # refills all the time: one, and a second's worth
        (Quota(600, 0, 60.0), 0, 1, 101.1),
        (Quota(600, 0, 20.0), 0, 1, 120.0),  # a window: at its end
        (Quota(600, 0, None), 0, 1, None),  # who knows when
        (Quota(10_000, 0, 3000.0), 0, 1, 3100.0),  # of a day
        (Quota(10_000, 0, 60_000.0), 0, 1, 3700.0),  # or of a minute, told in milliseconds: calls find out
        (Quota(6000, 300, 57.0), 0, 500, 103.0),
        (Quota(6000, 300, 57.0), 0, 90_000, 157.0),  # more than there ever is: when it is full
    ],
)
def test_when_the_next_may_start(report: Quota, since: float, need: float, ready: float | None) -> None:
    """What is left, without what started since, or when there is enough again."""
    quota = Followed()
    quota.heard(100.0, 7, report)
    assert quota.ready_at(100.0, need, 7 + since) == (pytest.approx(ready) if ready else float("-inf"))
    assert quota.ready_at(100.0 + (report.reset or 0.0), need, 7 + since) == float("-inf")


def test_an_older_report_counts_no_more() -> None:
    """Answers overtake each other; the report of the call that started last is the best known."""
    quota = Followed()
    quota.heard(1.0, 9, Quota(600, 0, 60.0))
    quota.heard(2.0, 3, Quota(600, 300, 30.0))
    assert quota.ready_at(2.0, 1, 9) > 2.0
    assert quota.exhausted(9, 1) and not quota.exhausted(3, 1)


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([*openai(1, 1, 1.0), "anthropic-ratelimit-tokens-limit", "date"]),
            st.text(max_size=12) | st.integers(-5, 10**13).map(str),
        )
    )
)
def test_no_header_breaks_it(answers: list[dict[str, str]]) -> None:
    """Whatever a server writes, calls may start within an hour, and limits are limits."""
    reports = Reports()
    for number, headers in enumerate(answers, 1):
        reports.heard(float(number), (number, 0.0, 0.0, 0.0), headers)
        need, position = (1.0, 10.0, 5.0, 5.0), (float(number), 0.0, 0.0, 0.0)
        assert reports.ready_at(float(number), need, position) <= number + 3600
        for limit in (reports.learnt.requests_per_minute, reports.learnt.tokens_per_minute):
            assert limit is None or limit >= 1


def test_answers_that_report_nothing_are_seldom_looked_at() -> None:
    """A server without such headers costs a look at one answer in sixty-four; one that has them, at each."""
    looked = 0

    class Headers(dict[str, str]):
        def items(self):  # type: ignore[no-untyped-def]
            nonlocal looked
            looked += 1
            return super().items()

    silent = Reports()
    for number in range(6400):
        silent.heard(0.0, (number, 0.0, 0.0, 0.0), Headers({"content-type": "x"}))
    assert looked <= 110
    looked = 0
    spoken = Reports()
    for number in range(100):
        spoken.heard(0.0, (number, 0.0, 0.0, 0.0), Headers(openai(600, 500, 10.0)))
    assert looked == 100


async def one(lane: RateLane, headers: dict[str, str], error: Exception | None = None) -> None:
    try:
        async with lane.attempt(100) as ticket:
            ticket.answered(headers)
            if error is not None:
                raise error
    except errors.AsyncflowError:
        pass


@pytest.mark.parametrize(
    ("given_", "reported", "kept"), [(None, 600, 600), (300, 600, 300), (900, 600, 600), (600, 600, 600)]
)
def test_of_what_is_given_and_reported_the_stricter_counts(
    given_: float | None, reported: int, kept: float
) -> None:
    """A change is told with its reason, and nothing is told where nothing changes."""
    told: list[Event] = []
    lane = RateLane(LaneSettings(requests_per_minute=given_), tell=told.append)
    run(lambda: one(lane, openai(reported, reported - 1, 0.1)))
    assert f"{kept:g} requests/min" in repr(lane)
    changes = [(e.old, e.new, e.reason) for e in told if isinstance(e, LimitChanged)]
    assert changes == ([] if kept == given_ else [(given_, kept, "the provider's headers say so")])


def test_nothing_left_is_waited_out_and_told() -> None:
    """With none left the lane starts nothing until there is again, says so once, and says when it goes on."""
    told: list[Event] = []
    lane = RateLane(LaneSettings(), tell=told.append)
    moments: list[float] = []

    async def main() -> None:
        await one(lane, openai(60, 0, 30.0))

        async def call() -> None:
            async with lane.attempt() as ticket:
                moments.append(clock.now())
                ticket.answered(openai(60, 59, 60.0))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await clock.sleep(1.0)
            assert lane.statistics().state == "paused" and 28 < lane.statistics().resumes_in <= 29

    run(main)
    assert moments == [pytest.approx(30.0)]
    paused = [e for e in told if isinstance(e, LanePaused)]
    assert len(paused) == 1 and "nothing is left" in paused[0].reason and paused[0].seconds == 30.0
    assert isinstance(told[-1], LaneResumed)


def test_a_refusal_for_a_quota_is_no_reason_to_run_fewer_at_once() -> None:
    """The report that comes with a 429 tells one that is for a quota from one that is for their number."""
    limits = []
    for left in (0, 500):
        lane = RateLane(LaneSettings(concurrency="auto"), uniform=lambda: 0.0)
        refused = errors.RateLimitedError("429", status=429, retry_after=1.0)
        run(lambda lane=lane, left=left, refused=refused: one(lane, openai(600, left, 1.0), refused))
        limits.append(lane.limit)
        assert lane.statistics().pauses == 1
    assert limits[0] == 16 > limits[1]
