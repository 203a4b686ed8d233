"""The simulated provider in bad moods: faults, quotas, a hidden limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncflow import errors
from asyncflow.http import HTTPClient, Timeouts
from asyncflow.http.hints import rate_limits
from asyncflow.llm import LLMClient
from asyncflow.policy.retry import Retry
from asyncflow.testing import FAULTS, SimulatedProvider
from asyncflow.testing.faults import FaultPlan
from asyncflow.testing.quota import Bucket, Quotas, Slope

EXPECTED: dict[Any, tuple[type[Exception], str]] = {
    "hang": (errors.HTTPTimeoutError, "read"),
    "stall": (errors.HTTPTimeoutError, "read"),
    "drip": (errors.HTTPTimeoutError, "total"),
    "reset": (errors.HTTPConnectionError, ""),
    "close": (errors.HTTPConnectionError, ""),
    "cut": (errors.HTTPConnectionError, ""),
    "no_end": (errors.HTTPConnectionError, ""),
    "error_event": (errors.ServerError, ""),
    "refused_event": (errors.RateLimitedError, ""),
    "refused_first": (errors.RateLimitedError, ""),
    "overloaded_event": (errors.ServerError, ""),
    "overloaded_first": (errors.ServerError, ""),
    "too_long": (errors.RequestTooLargeError, ""),
    "no_credit": (errors.AccessDeniedError, ""),
    "html": (errors.BadAnswerError, ""),
    "invalid_json": (errors.BadAnswerError, ""),
    "empty": (errors.BadAnswerError, ""),
    "no_answer": (errors.BadAnswerError, ""),
    400: (errors.RequestRefusedError, ""),
    401: (errors.AccessDeniedError, ""),
    429: (errors.RateLimitedError, ""),
    529: (errors.ServerError, ""),
}


def test_every_kind_is_expected() -> None:
    """No kind without its row in the table above."""
    assert set(FAULTS) == {kind for kind in EXPECTED if isinstance(kind, str)}


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", EXPECTED)
@pytest.mark.asyncio
async def test_fault(fault: Any, kind: str) -> None:
    """The fault comes over the wire as what it says, once, and the next request is answered."""
    timeout = Timeouts(connect=5, read=0.15, total=0.3)
    async with SimulatedProvider(latency=0, script=[fault, None]) as provider:
        url = provider.base_url if kind == "openai" else provider.anthropic_base_url
        llm = LLMClient("m", provider=kind, base_url=url, api_key="", retry=None, timeout=timeout)
        async with llm:
            error, phase = EXPECTED[fault]
            with pytest.raises(error) as caught:
                await llm.complete("x")
            assert getattr(caught.value, "phase", "") == phase
            await llm.__aenter__()  # after a 401 only a client that is entered tries again
            assert "no model was asked" in (await llm.complete("x")).text
        statistics = provider.statistics()
    assert statistics.faults == {fault: 1} and (statistics.asked, statistics.answered) == (2, 1)


def test_shares_follow_the_seed() -> None:
    """About the share asked for; the same requests whatever their order; another seed hits others."""

    def hit(seed: int) -> set[int]:
        plan = FaultPlan({500: 0.2, "hang": 0.1}, (), seed)
        return {one for one in range(2000) if plan.fault_of(one, b"%d" % one, 0) is not None}

    assert hit(1) == hit(1) != hit(2) and 500 < len(hit(1)) < 700
    plan = FaultPlan({500: 1.0}, ["cut", None], 0)
    assert [plan.fault_of(index, b"", 0) for index in range(3)] == ["cut", None, 500]


@pytest.mark.parametrize("faults", [{"nonsense": 0.1}, {500: 1.2}, {500: 0.6, "cut": 0.6}, {200: 0.1}])
def test_faults_are_checked(faults: Any) -> None:
    """Told when the provider is made."""
    with pytest.raises(ValueError, match="fault"):
        SimulatedProvider(faults=faults)


@pytest.mark.asyncio
async def test_a_client_gets_through_a_bad_day() -> None:
    """With a third of all requests failing in every passing way, every call still gets its answer."""
    passing = {
        500: 0.08,
        529: 0.04,
        "reset": 0.05,
        "cut": 0.05,
        "html": 0.03,
        "no_answer": 0.03,
        "empty": 0.03,
    }
    async with SimulatedProvider(latency=0.001, faults=passing, seed=3) as provider:
        retry = Retry(attempts=10, wait=0)
        async with LLMClient("m", base_url=provider.base_url, api_key="", retry=retry, concurrency=20) as llm:
            done = await asyncio.gather(*(llm.complete(f"number {number}") for number in range(200)))
            assert llm.statistics().failed == 0
        statistics = provider.statistics()
    assert len({one.text for one in done}) == 200 and statistics.answered == 200
    assert 40 < sum(statistics.faults.values()) < 200


def test_buckets_refill_all_the_time() -> None:
    """Smoothly, up to what they hold; more than they hold is let through when they are full."""
    clock = [0.0]
    bucket = Bucket(600, 1.0, lambda: clock[0])
    assert [bucket.take(1) for _ in range(11)] == [True] * 10 + [False]
    assert bucket.wait_for(1) == pytest.approx(0.1)
    clock[0] = 0.35
    assert [bucket.take(1) for _ in range(4)] == [True] * 3 + [False]
    assert bucket.wait_for(99) == pytest.approx(0.95)
    clock[0] = 60
    assert bucket.take(99) and not bucket.take(1)
    with pytest.raises(ValueError, match="above 0"):
        Bucket(0, 1, lambda: 0.0)


def test_reasons() -> None:
    """Each limit refuses for itself, with the wait where it can be known."""
    quotas = Quotas(lambda: 0.0, 1.0, requests=60, tokens=600, at_once=2)
    assert quotas.enter(2).what == "concurrency" and quotas.enter(2).wait is None  # type: ignore[union-attr]
    assert quotas.enter(0) is None and quotas.enter(0).wait == 1.0  # type: ignore[union-attr]
    assert quotas.charge(6, 4) is None and quotas.charge(5, 0).wait == pytest.approx(0.5)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.asyncio
async def test_quotas_over_the_wire(path: str) -> None:
    """429 with the wait in both headers, and what is left in each protocol's own spelling."""
    async with SimulatedProvider(
        latency=0, requests_per_minute=60, tokens_per_minute=60000, burst=2.0
    ) as provider:
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]}
        async with HTTPClient(base_url=provider.anthropic_base_url, retry=None) as http:
            first = await http.post(path, json=body)
            answers = [await http.post(path, json=body, accept={429}) for _ in range(5)]
        refused = [answer for answer in answers if answer.status_code == 429]
        statistics = provider.statistics()
    limits = rate_limits(first.headers)
    assert limits is not None and limits.requests is not None and limits.tokens is not None
    assert limits.requests.limit == 60 and limits.tokens.remaining is not None
    assert refused and sum(statistics.refused.values()) == len(refused)
    assert refused[0].headers["retry-after"] == "1" and 0 < int(refused[0].headers["retry-after-ms"]) <= 1000


@pytest.mark.asyncio
async def test_refused_calls_come_through() -> None:
    """A client waits as long as the provider asks, and everything is answered."""
    async with SimulatedProvider(latency=0, requests_per_minute=1200, burst=0.1) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", concurrency=12) as llm:
            await asyncio.gather(*(llm.complete(f"{number}") for number in range(12)))
            refused = llm.statistics().refused
        assert provider.statistics().refused == {"requests": refused} and refused > 0
        assert provider.statistics().answered == 12


@pytest.mark.asyncio
async def test_a_hidden_limit() -> None:
    """Requests past the limit at once are refused without a wait; within it nobody is."""
    go = asyncio.Event()

    async def reply(asked: Any) -> str:
        await go.wait()
        return "x"

    async with SimulatedProvider(latency=0, reply=reply, concurrency_limit=3) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", retry=None) as llm:
            calls = [asyncio.create_task(llm.complete("x")) for _ in range(3)]
            while provider.statistics().running < 3:
                await asyncio.sleep(0.001)
            with pytest.raises(errors.RateLimitedError) as caught:
                await llm.complete("x")
            go.set()
            await asyncio.gather(*calls)
        statistics = provider.statistics()
    assert caught.value.retry_after is None and caught.value.code == "rate_limit_exceeded"
    assert statistics.refused == {"concurrency": 1} and statistics.most_at_once == 3


def test_a_slope() -> None:
    """Each second may bring so many times what the last one brought; a pause starts from the least again."""
    clock = [0.0]
    slope = Slope(2.0, 10, lambda: clock[0])
    brought = []
    for moment in (0.0, 1.0, 2.5, 3.9, 6.0):
        clock[0] = moment
        brought.append(sum(slope.take() for _ in range(100)))
    assert brought == [10, 20, 40, 80, 10]
    with pytest.raises(ValueError, match="from 1"):
        SimulatedProvider(slope_limit=0.5)


@pytest.mark.asyncio
async def test_a_slope_over_the_wire() -> None:
    """A herd that starts at once is refused but for the first ten or so, without a wait."""
    async with SimulatedProvider(latency=0, slope_limit=1.0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", retry=None) as llm:
            calls = (llm.complete(f"{number}") for number in range(60))
            done = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in done if isinstance(one, errors.RateLimitedError)]
        assert refused and provider.statistics().refused == {"slope": len(refused)}


@pytest.mark.asyncio
async def test_streams_keep_their_connection() -> None:
    """A stream read to its end gives its connection back."""
    async with SimulatedProvider(latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            for _ in range(3):
                assert [text async for text in llm.stream("x")]
            transport = llm._http._wire._transport
            assert transport is not None
            kept = transport._session.connector._conns  # type: ignore[attr-defined]
            assert sum(len(ones) for ones in kept.values()) == 1
