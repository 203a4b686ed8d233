"""What issue 3 asks of limits, against a simulated provider: minutes and hours of it, on virtual time."""

from __future__ import annotations

import math
import random
from typing import Any, Literal

import pytest

from asyncflow import clock, errors
from asyncflow.events import Event, LimitChanged
from asyncflow.policy import LaneSettings, RateLane
from tests.policy.provider import BACKENDS, Full, Provider, run, work

both = pytest.mark.parametrize("backend", BACKENDS)


def output(sizes: random.Random) -> int:
    """Tokens of an answer: log-normal around 200."""
    return int(200 * sizes.lognormvariate(0.0, 0.5))


def best_rate(provider: Provider, at_once: int) -> float:
    """Calls a second with so many under way all the time."""
    return at_once / (provider.latency * math.exp(provider.spread**2 / 2))


@both
@pytest.mark.parametrize(("quota", "latency"), [(60, 1.0), (600, 0.5), (600, 8.0)])
def test_requests_per_minute_are_used(quota: int, latency: float, backend: str) -> None:
    """At least 97 % of a known quota of requests is used, with no refusal by the strictest of counters."""
    lane = RateLane(LaneSettings(requests_per_minute=quota))
    provider = Provider(requests_per_minute=quota, latency=latency)
    run(lambda: work(lane, provider, seconds=600, workers=quota), backend)
    assert provider.refused == []
    assert len(provider.asked) >= 0.97 * 10 * quota


@both
@pytest.mark.parametrize("latency", [0.5, 2.0])
def test_tokens_per_minute_are_used(latency: float, backend: str) -> None:
    """At least 93 % of a quota of tokens is used, with max_tokens twenty times too high, and no refusal."""
    lane = RateLane(LaneSettings(requests_per_minute=1000, tokens_per_minute=100_000))
    provider = Provider(requests_per_minute=1000, tokens_per_minute=100_000, latency=latency)
    run(
        lambda: work(lane, provider, seconds=600, workers=100, size=output, max_tokens=20 * 226),
        backend,
    )
    assert provider.refused == []
    assert sum(tokens for _, tokens in provider.served) >= 0.93 * 10 * 100_000


@pytest.mark.parametrize(
    ("latency", "as_long", "counted", "share"),
    [
        (5.0, True, "comes", 0.95),
        (20.0, False, "comes", 0.93),
        (20.0, True, "comes", 0.925),
        (20.0, True, "done", 0.925),
        (60.0, True, "comes", 0.88),
    ],
)
def test_tokens_per_minute_are_used_by_long_calls(
    latency: float, as_long: bool, counted: Literal["comes", "done"], share: float
) -> None:
    """The same for calls of 5 to 60 s, up to three hundred of them under way, once the first have told.

    Whether answers take as long as they are, so that the first to end are the short ones, and whether they
    are counted when they come or when they are done.
    """
    lane = RateLane(LaneSettings(tokens_per_minute=100_000))
    provider = Provider(
        seed=1001, tokens_per_minute=100_000, latency=latency, as_long=as_long, counted=counted
    )
    run(lambda: work(lane, provider, seconds=1200, workers=600, size=output, max_tokens=20 * 226))
    assert provider.refused == []
    late = sum(tokens for moment, tokens in provider.served if 300 <= moment < 1140)
    assert late >= share * 14 * 100_000


@pytest.mark.parametrize(("quota", "share"), [(20_000, 0.86), (1_000_000, 0.97)])
@pytest.mark.parametrize("max_tokens", [None, 20 * 226])
def test_small_and_large_quotas_of_tokens_are_used(quota: int, share: float, max_tokens: int | None) -> None:
    """Sixty calls a minute, and three thousand: the fewer there are, the more room a long one needs."""
    lane = RateLane(LaneSettings(tokens_per_minute=quota))
    provider = Provider(seed=1001, tokens_per_minute=quota, latency=5.0, as_long=True)
    run(lambda: work(lane, provider, seconds=300, workers=600, size=output, max_tokens=max_tokens))
    assert provider.refused == []
    late = sum(tokens for moment, tokens in provider.served if 60 <= moment < 240)
    assert late >= share * 3 * quota


def sometimes_long(sizes: random.Random) -> int:
    """Tokens of an answer: mostly short, some of them very long."""
    return int((20 if sizes.random() < 0.7 else 600) * sizes.lognormvariate(0.0, 0.4))


def test_answers_of_two_kinds_that_come_one_after_the_other() -> None:
    """The short answers come first, for more than a minute, and are not taken for all: none is refused."""
    lane = RateLane(LaneSettings(tokens_per_minute=100_000))
    provider = Provider(seed=1001, tokens_per_minute=100_000, latency=30.0, as_long=True)
    run(lambda: work(lane, provider, seconds=1200, workers=800, size=sometimes_long, max_tokens=4096))
    assert provider.refused == []
    late = sum(tokens for moment, tokens in provider.served if 300 <= moment < 1000)
    assert late >= 0.8 * 100_000 / 60 * 700


@both
@pytest.mark.parametrize("retry_after", [None, 1.0])
@pytest.mark.parametrize(("latency", "spread"), [(0.2, 0.3), (1.0, 0.0), (2.0, 0.8)])
def test_a_hidden_limit_is_found(
    latency: float, spread: float, retry_after: float | None, backend: str
) -> None:
    """Against 40 at once: 85 % of what a limit of 40 does in the first 25 s, and 2 % refused at most."""
    best = Provider(at_once=40, latency=latency, spread=spread)
    run(lambda: work(RateLane(LaneSettings(concurrency=40)), best, seconds=25, workers=300), backend)
    provider = Provider(at_once=40, latency=latency, spread=spread, retry_after=retry_after)
    lane = RateLane(LaneSettings(concurrency="auto"), uniform=random.Random(1).random)
    run(lambda: work(lane, provider, seconds=25, workers=300), backend)
    assert len(provider.served) >= 0.85 * len(best.served) and best.refused == []
    assert len(provider.refused) <= 0.02 * len(provider.asked)


@both
def test_slow_start_does_not_hold_back_for_long(backend: str) -> None:
    """A thousand tasks and a provider that takes them all: all are under way after the seventh round."""
    provider = Provider(latency=1.0, spread=0.0)
    run(lambda: work(RateLane(LaneSettings(concurrency="auto")), provider, seconds=8, workers=1000), backend)
    assert provider.peak == 1000
    assert sum(7 <= moment < 8 for moment in provider.asked) >= 990
    assert len(provider.asked) >= 16 + 32 + 64 + 128 + 256 + 512 + 1000


class Moving(Provider):
    """A hidden limit that changes: (from second, limit)."""

    steps: tuple[tuple[float, int], ...] = ()

    async def call(self, tokens: int = 0, written: int = 0) -> int:
        self.at_once = [limit for since, limit in self.steps if clock.now() >= since][-1]
        return await super().call(tokens, written)


@pytest.mark.parametrize(("before", "after"), [(40, 80), (80, 40), (80, 10)])
def test_a_new_limit_is_found(before: int, after: int) -> None:
    """Thirty seconds after the provider's limit has moved, 90 % of the new one are used, and few refused."""
    provider = Moving(latency=0.5)
    provider.steps = ((0.0, before), (30.0, after))
    lane = RateLane(LaneSettings(concurrency="auto"), uniform=random.Random(1).random)
    run(lambda: work(lane, provider, seconds=100, workers=300))
    late = [moment for moment, _ in provider.served if moment >= 60.0]
    assert len(late) >= 0.9 * 40 * best_rate(provider, after)
    assert sum(moment >= 60.0 for moment in provider.refused) <= 0.01 * len(late) + 1


@pytest.mark.parametrize("latency", [0.01, 0.2, 1.0])
@pytest.mark.parametrize("seats", [20, 100])
def test_a_full_server_is_not_given_more_and_more(seats: int, latency: float) -> None:
    """Where nobody is refused: its whole rate, and never more than nine times as many under way as seats."""
    provider = Full(seats, latency=latency)
    told: list[Event] = []
    lane = RateLane(LaneSettings(concurrency="auto"), tell=told.append)
    seconds = {0.01: 5, 0.2: 30, 1.0: 60}[latency]
    run(lambda: work(lane, provider, seconds=seconds, workers=1000))
    assert len(provider.served) >= 0.95 * seconds * best_rate(provider, seats)
    assert max(event.new or 0 for event in told if isinstance(event, LimitChanged)) < 9 * seats
    assert lane.limit is not None and seats <= lane.limit <= 6 * seats
    assert lane.statistics().best_known is None


def test_a_server_that_grows_is_found() -> None:
    """A full server has four times the seats from one moment on: a minute later 90 % of them are used."""
    provider = Full(40, latency=0.5, later=(30.0, 160))
    run(lambda: work(RateLane(LaneSettings(concurrency="auto")), provider, seconds=130, workers=1000))
    late = [moment for moment, _ in provider.served if 90 <= moment < 129]
    assert len(late) >= 0.9 * 39 * best_rate(provider, 160)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_a_server_with_room_is_not_taken_for_full(spread: float, seed: int) -> None:
    """However unevenly calls take: no growth is taken back where a thousand are served as fast as one."""
    told: list[Event] = []
    provider = Provider(seed=seed, latency=1.0, spread=spread)
    lane = RateLane(LaneSettings(concurrency="auto"), tell=told.append)
    run(lambda: work(lane, provider, seconds=15, workers=1000))
    assert all(e.new > e.old for e in told if isinstance(e, LimitChanged))
    assert lane.limit == 1000


@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_refusals_by_chance_do_not_end_at_one_by_one(retry_after: float | None) -> None:
    """One call in ten refused, however many are under way: the limit does not stay near one."""
    luck = random.Random(3)
    refused = errors.RateLimitedError("429", status=429, retry_after=retry_after)
    provider = Provider(latency=1.0, down=lambda now: refused if luck.random() < 0.1 else None)
    lane = RateLane(LaneSettings(concurrency="auto"), uniform=random.Random(1).random)
    run(lambda: work(lane, provider, seconds=600, workers=100))
    late = [moment for moment, _ in provider.served if moment >= 100]
    assert len(late) >= 2.5 * 500


@pytest.mark.parametrize("retry_after", [None, 5.0])
def test_a_storm_cuts_once_and_is_sat_out(retry_after: float | None) -> None:
    """A minute in which everything is refused: one cut, few calls, nobody fails, then full speed again."""
    told: list[Event] = []

    def storm(now: float) -> Exception | None:
        refused = errors.RateLimitedError("429", status=429, retry_after=retry_after)
        return refused if 20 <= now < 80 else None

    provider = Provider(down=storm, latency=0.5)
    lane = RateLane(
        LaneSettings(concurrency="auto", highest=40), tell=told.append, uniform=random.Random(1).random
    )
    run(lambda: work(lane, provider, seconds=150, workers=100))
    during = [moment for moment in provider.asked if 20 <= moment < 80]
    assert len(during) <= 40
    cuts = [e for e in told if isinstance(e, LimitChanged) and e.new is not None and e.new < (e.old or 0)]
    assert len(cuts) == 1
    late = [moment for moment, _ in provider.served if moment >= 130]
    assert len(late) >= 0.95 * 20 * best_rate(provider, 40)


def test_server_errors_do_not_cut() -> None:
    """One call in ten fails with 500 for a minute: the limit never falls."""
    told: list[Event] = []
    luck = random.Random(3)
    provider = Provider(down=lambda now: errors.ServerError(status=500) if luck.random() < 0.1 else None)
    lane = RateLane(LaneSettings(concurrency="auto", highest=30), tell=told.append)
    run(lambda: work(lane, provider, seconds=60, workers=60))
    assert lane.statistics().failed > 100
    assert all(e.new > e.old for e in told if isinstance(e, LimitChanged))
    assert lane.limit == 30


def test_a_throttled_lane_does_not_slow_another() -> None:
    """A lane beside one that is refused all the time keeps its full rate."""
    import anyio

    throttled = Provider(requests_per_minute=10, retry_after=5.0)
    free = Provider(latency=0.5)
    slow, fast = RateLane(LaneSettings(concurrency="auto")), RateLane(LaneSettings(concurrency=20))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: work(slow, throttled, seconds=60, workers=50))
            group.start_soon(lambda: work(fast, free, seconds=60, workers=50))

    run(main)
    assert len(free.served) >= 0.95 * 60 * best_rate(free, 20)
    assert len(throttled.refused) > 5


def an_hour(seed: int) -> tuple[Any, ...]:
    provider = Provider(seed=seed, requests_per_minute=120, tokens_per_minute=40_000, latency=2.0)
    lane = RateLane(LaneSettings(120, 40_000, concurrency="auto"), uniform=random.Random(seed).random)
    run(lambda: work(lane, provider, seconds=3600, workers=40, size=output, max_tokens=4000, seed=seed))
    return tuple(provider.asked), tuple(provider.served), tuple(provider.refused), repr(lane)


def test_an_hour_is_the_same_by_seed() -> None:
    """An hour of a provider replays exactly from its seed, and differently from another."""
    first = an_hour(1)
    assert first == an_hour(1)
    assert first != an_hour(2)
    assert first[2] == ()
