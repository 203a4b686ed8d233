"""Limits in the clients, against the simulated provider: a real server on loopback, and real seconds."""

from __future__ import annotations

import itertools

import anyio
import httpx
import pytest

from asyncflow import clock, errors
from asyncflow.events import LimitChanged
from asyncflow.http import HTTPClient
from asyncflow.llm import LLMClient, Price
from asyncflow.policy import LaneSettings, Limits
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider


def client(provider: SimulatedProvider, **options: object) -> LLMClient:
    return LLMClient("m", base_url=provider.base_url, **{"api_key": "", **options})  # type: ignore[arg-type]


async def ask(llm: LLMClient, calls: int, *, workers: int = 100, **options: object) -> list[object]:
    """So many calls from so many workers; errors among the answers."""
    ended: list[object] = []
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            try:
                ended.append(await llm.complete(f"question {number}", **options))  # type: ignore[arg-type]
            except errors.AsyncflowError as error:
                ended.append(error)

    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(worker)
    return ended


@pytest.mark.asyncio
async def test_a_quota_of_requests_is_kept_and_used() -> None:
    """Two clients of one key share the loop's lane: together they use the quota, and are never refused."""
    provider = SimulatedProvider(latency=0.05, requests_per_minute=3000, burst=1.0)
    async with provider:
        async with client(provider, requests_per_minute=3000) as one, client(provider) as other:
            assert one._http.lane is other._http.lane
            start = anyio.current_time()
            async with anyio.create_task_group() as group:
                group.start_soon(ask, one, 50)
                group.start_soon(ask, other, 50)
            seconds = anyio.current_time() - start
    assert provider.statistics().refused == {}
    assert provider.statistics().answered == 100
    assert 1.9 <= seconds <= 2.4  # 49.4 a second, and nothing faster


@pytest.mark.asyncio
async def test_a_quota_of_tokens_is_used_though_max_tokens_is_too_high() -> None:
    """Reserved by what answers turn out to be, settled by what they report: no refusal, and little left."""
    provider = SimulatedProvider(
        reply=lambda asked: "word " * 40, latency=0.05, tokens_per_minute=120_000, burst=5.0
    )
    async with provider, client(provider, tokens_per_minute=120_000) as llm:
        await ask(llm, 5, workers=1, max_tokens=1000)
        start = anyio.current_time()
        before = provider.statistics().tokens
        await ask(llm, 100, max_tokens=1000)
        seconds = anyio.current_time() - start
        used = provider.statistics().tokens - before
        assert llm._http.lane.estimate.output_tokens(1000) < 70  # type: ignore[attr-defined]
    assert provider.statistics().refused == {}
    assert used / seconds >= 0.8 * 2000


@pytest.mark.asyncio
async def test_a_hidden_limit_is_found_by_default() -> None:
    """Unconfigured, against 20 at once: few are refused, none fails, and the lane ends up near the limit."""
    limits = Limits(seed=1)
    async with SimulatedProvider(latency=0.1, spread=0.2, concurrency_limit=20) as provider:
        async with client(provider, limits=limits) as llm:
            ended = await ask(llm, 500)
        asked = provider.statistics()
    assert not [error for error in ended if isinstance(error, Exception)]
    assert asked.refused.get("concurrency", 0) <= 0.04 * asked.asked
    (lane,) = limits.statistics()
    assert lane.best_known in range(17, 24) and lane.running == lane.waiting == 0
    assert "refused with" in " ".join(getattr(event, "reason", "") for event in limits.events)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("burst", [60.0, 1.0])
@pytest.mark.parametrize("quota", [{"requests_per_minute": 600}, {"tokens_per_minute": 60_000}])
def test_a_quota_is_learnt_from_headers(quota: dict[str, float], burst: float, kind: str) -> None:
    """A client that was told nothing keeps a provider's quota from its first answers on, and uses it."""

    async def main() -> tuple[float, int, list[object]]:
        with clock.FakeClock():
            provider = SimulatedProvider(latency=0.5, burst=burst, reply=lambda asked: "word " * 40, **quota)
            limits = Limits(seed=1)
            end = clock.now() + 180
            numbers = itertools.count()
            async with httpx.AsyncClient(transport=provider.transport()) as http:
                url = "http://simulated" + ("/v1" if kind == "openai" else "")
                options = {"provider": kind, "base_url": url, "api_key": "", "http": http, "limits": limits}
                async with LLMClient("m", **options) as llm:  # type: ignore[arg-type]

                    async def worker() -> None:
                        while clock.now() < end:
                            await llm.complete(f"question {next(numbers)}", max_tokens=500)

                    async with anyio.create_task_group() as group:
                        for _ in range(40):
                            group.start_soon(worker)
            seen = provider.statistics()
            minutes = clock.now() / 60
            used = seen.answered if "requests_per_minute" in quota else seen.tokens
            return used / minutes, sum(seen.refused.values()), list(limits.events)

    per_minute, refused, events = anyio.run(main)
    (limit,) = quota.values()
    assert refused <= 6 and 0.95 * limit <= per_minute <= 1.01 * limit
    learnt = [e for e in events if isinstance(e, LimitChanged) and e.limit in quota]
    assert [(e.old, e.new, e.reason) for e in learnt] == [(None, limit, "the provider's headers say so")]


MARKED = {"type": "text", "text": "rule " * 800, "cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize("burst", [60.0, 5.0])
@pytest.mark.parametrize(
    ("quotas", "system", "counts"),
    [
        ({"output_tokens_per_minute": 20_000, "input_tokens_per_minute": 10**6}, "Be brief.", "output"),
        ({"output_tokens_per_minute": 10**6, "input_tokens_per_minute": 20_000}, "Be brief.", "input"),
        ({"output_tokens_per_minute": 10**6, "input_tokens_per_minute": 20_000}, [MARKED], "input"),
    ],
    ids=["written", "read", "from the cache"],
)
def test_quotas_of_tokens_read_and_written_are_learnt_apart(
    quotas: dict[str, float], system: object, counts: str, burst: float
) -> None:
    """Anthropic's two quotas: each is used whole, neither is passed; what comes from the cache is free."""
    read: list[tuple[int, int]] = []

    async def main() -> tuple[float, dict[str, int], list[object]]:
        with clock.FakeClock():
            provider = SimulatedProvider(latency=1.0, burst=burst, reply=lambda asked: "word " * 60, **quotas)
            limits, numbers, end = Limits(seed=1), itertools.count(), clock.now() + 300
            async with httpx.AsyncClient(transport=provider.transport()) as http:
                options = {"base_url": "http://simulated", "api_key": "", "http": http, "limits": limits}
                async with LLMClient("m", provider="anthropic", **options) as llm:

                    async def worker() -> None:
                        while clock.now() < end:
                            prompt = f"question {next(numbers)} " * 30
                            done = await llm.complete(prompt, max_tokens=1000, extra={"system": system})
                            usage = done.usage
                            read.append((usage.input_tokens - usage.cached_input_tokens, usage.output_tokens))

                    async with anyio.create_task_group() as group:
                        for _ in range(40):
                            group.start_soon(worker)
            return clock.now() / 60, provider.statistics().refused, list(limits.events)

    minutes, refused, events = anyio.run(main)
    used = sum(one if counts == "input" else other for one, other in read) / minutes
    assert sum(refused.values()) <= (0 if burst == 60.0 else 6)
    assert 0.95 * 20_000 <= used <= 1.06 * 20_000
    learnt = {event.limit: event.new for event in events if isinstance(event, LimitChanged)}
    assert {what: learnt[what] for what in quotas} == quotas


@pytest.mark.asyncio
async def test_a_quota_is_learnt_over_the_wire() -> None:
    """The same from a real server: after the first answers calls start evenly, and hardly one is refused."""
    limits = Limits()
    async with SimulatedProvider(latency=0.02, requests_per_minute=3000, burst=1.0) as provider:
        async with client(provider, limits=limits) as llm:
            ended = await ask(llm, 150)
    assert not [error for error in ended if isinstance(error, Exception)]
    assert provider.statistics().refused.get("requests", 0) <= 5
    assert "3000 requests/min" in repr(limits)


@pytest.mark.asyncio
async def test_a_refused_key_is_asked_about_once() -> None:
    """401 stops the lane: the other calls fail without being sent, until a new client is entered."""
    limits = Limits(concurrency=1)
    async with SimulatedProvider(latency=0, script=[401]) as provider:
        async with client(provider, limits=limits, api_key="sk-canary") as llm:
            ended = await ask(llm, 50)
            assert all(isinstance(error, errors.AccessDeniedError) for error in ended)
            assert provider.statistics().asked == 1
            assert sum("not sent" in str(error) for error in ended) == 49
        async with client(provider, limits=limits, api_key="sk-canary") as llm:
            assert (await llm.complete("again")).text
    assert "canary" not in repr(limits) + repr(limits.events)


@pytest.mark.asyncio
async def test_a_storm_costs_no_call() -> None:
    """Thirty refusals in a row: every call still gets its answer, and none waits on its own account."""
    limits = Limits(concurrency=10)
    async with SimulatedProvider(latency=0.01, script=[429] * 10) as provider:
        async with client(provider, limits=limits) as llm:
            ended = await ask(llm, 50)
    assert not [error for error in ended if isinstance(error, Exception)]
    assert limits.statistics()[0].refused == 10


@pytest.mark.asyncio
async def test_max_cost_is_never_passed() -> None:
    """What the budget stops is told apart from failures, and was not sent."""
    price = Price(0.0, 1000.0)  # a thousandth for each token written
    async with SimulatedProvider(reply=lambda asked: "12345678", latency=0.01) as provider:
        async with client(provider, price=price, max_cost=0.05) as llm:
            ended = await ask(llm, 60, workers=20, max_tokens=10)
            stopped = [error for error in ended if isinstance(error, errors.BudgetSpentError)]
            cost = llm.statistics().cost
        assert cost is not None and 0.045 <= cost <= 0.05
        assert len(stopped) == 60 - provider.statistics().asked and stopped[0].reason == "budget"


@pytest.mark.asyncio
async def test_http_client_takes_limits() -> None:
    """Any endpoint has the same care: a rate, a number at once, shared by whoever is given the Limits."""
    limits = Limits(requests_per_minute=1200)
    async with SimulatedProvider(latency=0) as provider:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
        async with HTTPClient(base_url=provider.base_url, limits=limits, concurrency=5) as http:
            start = anyio.current_time()
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(lambda: http.post("chat/completions", json=body))
            assert anyio.current_time() - start >= 0.8
    (lane,) = limits.statistics()
    assert lane.succeeded == 20 and lane.limit == 5


@pytest.mark.asyncio
async def test_a_dead_server_is_left_alone() -> None:
    """Nobody listens: after 20 failures the lane is down, and calls wait instead of burning attempts."""
    limits = Limits(concurrency=4)
    async with HTTPClient(limits=limits, retry=Retry(attempts=100, wait=0.01, max_wait=0.02)) as http:
        with anyio.move_on_after(1.5):
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(http.get, "http://127.0.0.1:1/")
        assert 20 <= http.statistics().attempts <= 24
    assert limits.statistics()[0].state == "down" and limits.statistics()[0].running == 0


def test_auto_is_the_default() -> None:
    """A client finds its own limit, under any number that its Limits or another client of the lane give."""
    limits = Limits()
    for options, found in ({}, ("auto", 1000)), ({"concurrency": 30}, ("auto", 30)), ({}, ("auto", 30)):
        client = LLMClient("m", base_url="http://x", api_key="", limits=limits, **options)  # type: ignore[arg-type]
        lane = client._http.lane
        assert (lane.settings.concurrency, lane._auto.highest) == found  # type: ignore[attr-defined]
    fixed = LLMClient("n", base_url="http://x", api_key="", limits=limits, concurrency=30)._http.lane
    assert fixed.limit == 30  # type: ignore[attr-defined]
    assert LLMClient("n", base_url="http://x", api_key="", limits=limits)._http.lane is fixed
    assert fixed.limit == 30 and fixed.settings.concurrency == "auto"  # type: ignore[attr-defined]


def test_one_way_to_say_it() -> None:
    """A lane of one's own is instead of limits, not besides."""
    lane = Limits().lane("", "", "m", LaneSettings(concurrency=2))
    with pytest.raises(ValueError, match="give one"):
        HTTPClient(lane=lane, concurrency=3)
    with pytest.raises(ValueError, match="give one"):
        LLMClient("m", api_key="", base_url="http://x", limits=lane, requests_per_minute=5)
