"""asyncflow/policy/lane.py and line.py: attempts that wait for their turn, on virtual time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow import clock, errors
from asyncflow.events import Event, LanePaused, LaneResumed, LaneStopped, LimitChanged
from asyncflow.policy import LaneSettings, RateLane
from asyncflow.waiting import current
from tests.policy.provider import BACKENDS, Provider, run, work

both = pytest.mark.parametrize("backend", BACKENDS)


def a_lane(told: list[Event] | None = None, **limits: Any) -> RateLane:
    tell = told.append if told is not None else None
    return RateLane(LaneSettings(**limits), name="m at x", tell=tell, uniform=lambda: 0.0)


async def fail(lane: RateLane, error: BaseException) -> None:
    """One attempt that ends with this error, which is swallowed."""
    try:
        async with lane.attempt():
            raise error
    except type(error):
        pass


@both
def test_first_come_first_served(backend: str) -> None:
    """Waiters start in the order in which they came."""
    lane, order = a_lane(concurrency=3, requests_per_minute=60_000), {}

    async def one(number: int) -> None:
        async with lane.attempt() as ticket:
            order[number] = ticket.number
            await clock.sleep(0.01)

    async def main() -> None:
        with clock.FakeClock(autojump=False) as fake:
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(one, number)
                    await anyio.wait_all_tasks_blocked()
                await fake.advance(10)

    anyio.run(main, backend=backend)
    assert [order[number] for number in range(100)] == list(range(1, 101))


def test_ten_thousand_waiters_are_one_timer_and_a_wake_each() -> None:
    """Asking whose turn it is happens a few times for each start, however long the line is."""
    lane, asked = a_lane(requests_per_minute=600_000), 0
    admit = lane._line._admit

    def counted(attempt: Any, now: float) -> float | None:
        nonlocal asked
        asked += 1
        return admit(attempt, now)

    lane._line._admit = counted

    async def one() -> None:
        async with lane.attempt():
            pass

    async def main() -> int:
        with clock.FakeClock() as fake:
            async with anyio.create_task_group() as group:
                for _ in range(10_000):
                    group.start_soon(one)
            return len(fake.waits)

    timers = anyio.run(main)
    assert lane.statistics().started == 10_000
    assert asked <= 30_000 and timers <= 10_000


@both
def test_at_most_so_many_at_once(backend: str) -> None:
    """A number bounds the attempts under way, and the lane is empty afterwards."""
    lane, provider = a_lane(concurrency=7), Provider()
    run(lambda: work(lane, provider, seconds=20, workers=30), backend)
    assert provider.peak == 7
    now = lane.statistics()
    assert (now.running, now.waiting, now.state) == (0, 0, "open")
    assert now.started >= now.succeeded > 200 and now.refused == now.failed == 0


@both
def test_waiting_is_said(backend: str) -> None:
    """While an attempt waits for its turn, the engine is told, so no timeout runs and no slot is held."""
    said: list[str] = []

    class Waiter:
        def pause(self, reason: str) -> None:
            said.append(reason)

        async def resume(self) -> None:
            said.append("resumed")

        def pause_from_thread(self, reason: str) -> None: ...
        def resume_from_thread(self) -> None: ...

    lane = a_lane(concurrency=1)

    async def one() -> None:
        current.set(Waiter())
        async with lane.attempt():
            await clock.sleep(1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(one)

    run(main, backend)
    assert said == ["limit", "resumed"]


@both
@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.5, 2.0, 30.0]), st.booleans()), max_size=40),
    concurrency=st.sampled_from([1, 3, "auto"]),
)
def test_nothing_leaks_under_cancellation(
    backend: str, steps: list[tuple[float, bool]], concurrency: Any
) -> None:
    """Cancelled in line, on the point of starting, or under way: slots and tokens come back, all of them."""
    lane = a_lane(concurrency=concurrency, requests_per_minute=600, tokens_per_minute=10_000)

    async def one(seconds: float, at_once: bool, started: list[int]) -> None:
        with anyio.CancelScope() as scope:
            cancel = (lambda: None) if at_once else clock.current().call_later(seconds, scope.cancel)
            if at_once:
                scope.cancel()
            try:
                async with lane.attempt(50):
                    started.append(1)
                    await clock.sleep(1.0)
            finally:
                cancel()

    async def main() -> tuple[int, float]:
        started: list[int] = []
        async with anyio.create_task_group() as group:
            for seconds, at_once in steps:
                group.start_soon(one, seconds, at_once, started)
        now = lane.statistics()
        assert (now.running, now.waiting) == (0, 0)
        # Cancelled attempts have given back their tokens, those that ended have used them.
        assert now.tokens_last_minute == pytest.approx(50 * now.succeeded)
        async with lane.attempt(1):  # and there is room for the next
            return len(started), now.started

    run(main, backend)


@both
def test_cancelled_with_its_turn_in_hand(backend: str) -> None:
    """An attempt whose turn comes in the same moment as its cancellation gives the turn to the next."""
    lane, scopes = a_lane(concurrency=1), []
    order: list[str] = []

    async def waiter(name: str) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            async with lane.attempt():
                order.append(name)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            async with lane.attempt():
                for name in "abc":
                    group.start_soon(waiter, name)
                    await anyio.wait_all_tasks_blocked()
            scopes[0].cancel()  # its turn has come, but it has not run yet

    run(main, backend)
    assert order[-2:] == ["b", "c"] and lane.statistics().running == 0


def test_what_an_attempt_reports_is_what_it_used() -> None:
    """Tokens are settled with what was reported; failed calls used nothing, lost answers all of it."""
    lane = a_lane(tokens_per_minute=60_000)

    async def main() -> list[float]:
        seen = []
        for reported, error in (
            (70, None),
            (None, None),
            (None, errors.ServerError(status=500)),
            (None, errors.RateLimitedError(status=429, retry_after=0)),
            (None, errors.HTTPTimeoutError(phase="read")),
            (None, errors.RequestRefusedError(status=400)),
            (30, errors.BadAnswerError(status=200)),
        ):
            before = lane.statistics().tokens_last_minute
            try:
                async with lane.attempt(100) as ticket:
                    if reported is not None:
                        ticket.used(reported)
                    if error is not None:
                        raise error
            except errors.HTTPError:
                pass
            seen.append(lane.statistics().tokens_last_minute - before)
        return seen

    assert run(main) == [70, 100, 0, 0, 100, 0, 30]


def test_requests_that_were_not_sent_are_given_back() -> None:
    """A request that never reached the server is not one of the quota's."""
    lane = a_lane(requests_per_minute=600)

    async def main() -> float:
        await fail(lane, errors.HTTPConnectionError(sent=False))
        await fail(lane, errors.ServerError(status=500))
        return lane.statistics().requests_last_minute

    assert run(main) == 1


@both
def test_one_pause_for_a_wave_of_refusals(backend: str) -> None:
    """Forty refused at once pause the lane once, as long as was asked; then it wakes gently."""
    told: list[Event] = []
    lane = a_lane(told, concurrency=40)
    starts: list[float] = []

    async def one() -> None:
        try:
            async with lane.attempt() as ticket:
                starts.append(clock.now())
                await clock.sleep(1.0)
                if ticket.number <= 40:
                    raise errors.RateLimitedError("429", status=429, retry_after=20.0)
        except errors.RateLimitedError:
            pass

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(80):
                group.start_soon(one)

    run(main, backend)
    assert [type(event) for event in told] == [LanePaused, LaneResumed]
    assert starts[:40] == [0.0] * 40
    later = starts[40:]
    assert min(later) == pytest.approx(21.0)  # never earlier than asked
    assert len({round(moment, 3) for moment in later}) == 40  # and one after the other
    assert max(later) <= 26.5
    assert lane.statistics().pauses == 1


@both
def test_a_refused_key_stops_the_lane_once(backend: str) -> None:
    """401 ends ten thousand waiters with the same error, one call sent; a new client tries once more."""
    told: list[Event] = []
    lane = a_lane(told, concurrency=1)
    sent = 0
    denied: list[Exception] = []
    bad = True

    async def one() -> None:
        nonlocal sent
        try:
            async with lane.attempt():
                sent += 1
                await clock.sleep(0.1)
                if bad:
                    raise errors.AccessDeniedError("401", status=401)
        except errors.AccessDeniedError as error:
            denied.append(error)

    async def crowd(size: int) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(size):
                group.start_soon(one)

    async def main() -> None:
        nonlocal bad
        await crowd(10_000)
        assert sent == 1 and len(denied) == 10_000 and lane.statistics().state == "stopped"
        assert sum(error.sent for error in denied if isinstance(error, errors.HTTPError)) == 1
        await one()
        assert sent == 1 and len(denied) == 10_001
        lane.probe()
        await crowd(100)
        assert sent == 2 and lane.statistics().state == "stopped"  # probed, and still refused
        bad = False
        lane.probe()
        await crowd(100)

    run(main, backend)
    assert sent == 102 and lane.statistics().state == "open"
    assert [type(event) for event in told] == [LaneStopped, LaneStopped, LaneResumed]


def test_403_about_one_address_stops_nothing() -> None:
    """Where denials may be about one address only, the lane goes on."""
    lane = RateLane(LaneSettings(), stops_when_denied=False)

    async def main() -> None:
        for _ in range(3):
            await fail(lane, errors.AccessDeniedError(status=403))
        async with lane.attempt():
            pass

    run(main)
    assert lane.statistics().state == "open"


@both
def test_a_dead_provider_is_left_alone(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    """After 20 failures in a row a lane of 8 sends only probes, and when one is answered, everything.

    It is logged once, as a warning, for whoever listens to no events.
    """
    told: list[Event] = []
    lane = a_lane(told, concurrency=8)
    provider = Provider(
        down=lambda now: errors.ServerError("503", status=503) if 10 <= now < 100 else None, spread=0.0
    )
    run(lambda: work(lane, provider, seconds=170, workers=20), backend)
    dead = [moment for moment in provider.asked if 10 <= moment < 100]
    assert len(dead) <= 20 + 8 + 5
    assert sum(moment > dead[0] + 5.0 for moment in dead) <= 4
    assert [type(event) for event in told] == [LanePaused] * 5 + [LaneResumed]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "20 failures in a row: 503. Calls wait; one is tried in 5 s" in caplog.text
    assert sum(moment > 150 for moment, _ in provider.served) > 100
    assert lane.statistics().waiting == lane.statistics().running == 0


def test_a_provider_that_never_answers_stops_its_lane() -> None:
    """Where nothing was ever heard, the address may be wrong: after half a minute everybody is told."""
    told: list[Event] = []
    lane = a_lane(told, concurrency=4)
    ended: list[Exception] = []

    async def one() -> None:
        while True:
            try:
                async with lane.attempt():
                    raise errors.HTTPConnectionError("no connection", sent=False)
            except errors.HTTPConnectionError as error:
                if error.exhausted:
                    ended.append(error)
                    return

    async def main() -> float:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(one)
        return clock.now()

    assert 30.0 <= run(main) <= 60.0
    assert len(ended) == 10 and isinstance(told[-1], LaneStopped)
    assert lane.statistics().failed <= 30


def test_a_cancelled_probe_is_replaced() -> None:
    """While the breaker is open, a probe that is cancelled leaves its place to the next."""
    lane = a_lane()

    async def main() -> str:
        for _ in range(20):
            await fail(lane, errors.ServerError(status=500))
        assert lane.statistics().state == "down"
        async with anyio.create_task_group() as group:

            async def probe() -> None:
                async with lane.attempt():
                    await clock.sleep(1e6)

            group.start_soon(probe)
            await clock.sleep(6.0)
            assert lane.statistics().state == "probing"
            group.cancel_scope.cancel()
        async with lane.attempt():
            pass
        return lane.statistics().state

    assert run(main) == "open"


def test_the_retry_budget_delays_and_fails_nobody() -> None:
    """A hundred retries and nothing new: fifty at once, then two a second; what is new does not wait."""
    lane = a_lane()
    moments: list[float] = []

    async def one(retry: bool) -> None:
        async with lane.attempt(retry=retry):
            moments.append(clock.now())

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(100):
                group.start_soon(one, True)
            await anyio.wait_all_tasks_blocked()
            assert len(moments) == 50
            await one(False)
            assert clock.now() == 0.0

    run(main)
    assert len(moments) == 101 and moments.count(0.0) == 51
    assert max(moments) == pytest.approx(25.0, abs=0.5)


def test_a_stopped_lane_stops_retries_that_wait_for_the_budget() -> None:
    """Who waits for the retry budget is told too, and sends nothing."""
    lane, sent, denied = a_lane(), [], []

    async def one() -> None:
        try:
            async with lane.attempt(retry=True):
                sent.append(1)
                await clock.sleep(0.7)
                raise errors.AccessDeniedError(status=403)
        except errors.AccessDeniedError as error:
            denied.append(error)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(60):
                group.start_soon(one)

    run(main)
    assert len(denied) == 60 and len(sent) == 51
    assert lane.statistics().running == lane.statistics().waiting == 0


def test_auto_says_why() -> None:
    """Every change of a limit that finds itself is an event with its reason, and none is skipped."""
    told: list[Event] = []
    lane, provider = a_lane(told, concurrency="auto"), Provider(at_once=20)
    run(lambda: work(lane, provider, seconds=30, workers=100))
    changes = [event for event in told if isinstance(event, LimitChanged)]
    assert all(change.reason and change.limit == "concurrency" for change in changes)
    assert [change.old for change in changes[1:]] == [change.new for change in changes[:-1]]
    assert changes[0].old == 16 and changes[-1].new == lane.limit
    assert "refused with 21 at once" in {change.reason for change in changes}
    assert lane.statistics().best_known == 20 and "limit=20 (auto)" in repr(lane)


def test_two_loops_at_once_are_told() -> None:
    """Waiting in a lane that others wait in from another event loop is an error that says so."""
    import asyncio

    lane = a_lane(concurrency=1)

    async def hold() -> None:
        async with lane.attempt():
            async with anyio.create_task_group() as group:

                async def second() -> None:
                    async with lane.attempt():
                        pass

                group.start_soon(second)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(RuntimeError, match="another event loop"):
                    await anyio.to_thread.run_sync(lambda: asyncio.run(second()))
                group.cancel_scope.cancel()

    anyio.run(hold)


def test_one_loop_after_another() -> None:
    """A lane may outlive a loop: what was left waiting there does not block the next."""
    lane = a_lane(requests_per_minute=60)

    async def main() -> None:
        async with anyio.create_task_group() as group:

            async def one() -> None:
                async with lane.attempt():
                    pass

            group.start_soon(one)
            group.start_soon(one)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()

    async def after() -> float:
        async with lane.attempt():
            return clock.now()

    anyio.run(main)
    assert anyio.run(after) > 0


def test_restricting_is_told() -> None:
    """Of two settings the stricter wins, and each change is an event."""
    told: list[Event] = []
    lane = a_lane(told, requests_per_minute=600, concurrency="auto")
    lane.restrict(LaneSettings(requests_per_minute=300, tokens_per_minute=1000, concurrency=8))
    lane.restrict(LaneSettings(requests_per_minute=900))
    assert [(e.limit, e.old, e.new) for e in told if isinstance(e, LimitChanged)] == [
        ("requests_per_minute", 600, 300),
        ("tokens_per_minute", None, 1000),
        ("concurrency", 16, 8),
    ]
    fixed = a_lane(told, concurrency=8)
    fixed.restrict(LaneSettings(concurrency=4))
    assert told[-1] == LimitChanged(
        "m at x", told[-1].at, "concurrency", 8, 4, "the stricter of two settings"
    )
