"""The simulated provider without a socket, on virtual time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from asyncflow import errors
from asyncflow.clock import FakeClock
from asyncflow.http import Timeouts
from asyncflow.llm import LLMClient
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider

pytestmark = pytest.mark.asyncio


def client(provider: SimulatedProvider, kind: str = "openai", **options: Any) -> LLMClient:
    http = httpx.AsyncClient(transport=provider.transport(), trust_env=False)
    base_url = "http://simulated/v1" if kind == "openai" else "http://simulated"
    return LLMClient("m", provider=kind, base_url=base_url, api_key="", http=http, **options)


async def hour() -> tuple[list[float], float]:
    """Five callers, each asking again as soon as it has its answer, for an hour of virtual time."""
    with FakeClock() as clock:
        provider = SimulatedProvider(latency=10, requests_per_minute=600, burst=3.0, seed=7)
        async with client(provider) as llm:

            async def caller(name: int) -> None:
                number = 0
                while clock.now() < 3600:
                    await llm.complete(f"caller {name}, question {number}")
                    number += 1

            await asyncio.gather(*(caller(name) for name in range(5)))
        return [asked.at for asked in provider.log], float(provider.statistics().answered)


async def test_an_hour_in_moments_and_the_same_each_time() -> None:
    """An hour of latencies, quotas and waits takes seconds, and two runs see the same to the microsecond."""
    started = time.perf_counter()
    first = await hour()
    assert time.perf_counter() - started < 20  # about one second on a quiet machine
    assert first == await hour()
    assert 1500 < first[1] < 1900 and first[0][-1] > 3590


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_faults_and_streams(kind: str) -> None:
    """The same faults, as the same errors, with waits that cost nothing."""
    with FakeClock() as clock:
        script = ["hang", "reset", "html", 529, None, "cut", "no_end", None]
        provider = SimulatedProvider(script=script, reply=lambda asked: "hello there", seconds_per_token=5)
        async with client(provider, kind, retry=Retry(attempts=5, wait=30)) as llm:
            assert (await llm.complete("x")).text == "hello there"
            assert clock.now() > 200 and llm.statistics().attempts == 5
            for error in (errors.HTTPConnectionError, errors.BadAnswerError):
                with pytest.raises(error):
                    async for _ in llm.stream("x"):
                        pass
            assert "".join([text async for text in llm.stream("x")]) == "hello there"
        assert provider.statistics().running == 0


@pytest.mark.parametrize(
    ("timeout", "phase", "until"),
    [
        (Timeouts(connect=1, read=40, total=100), "read", 40),
        (Timeouts(connect=1, read=100, total=40), "total", 40),
        (None, "read", 300),
    ],
)
async def test_timeouts_on_virtual_time(timeout: Timeouts | None, phase: str, until: float) -> None:
    """A client's timeouts run on the same clock as the provider's latencies, for streams too."""
    with FakeClock() as clock:
        provider = SimulatedProvider(latency=3000, spread=0, script=[None, "hang", "stall"])
        async with client(provider, timeout=timeout, retry=None) as llm:
            for _ in range(2):
                started = clock.now()
                with pytest.raises(errors.HTTPTimeoutError) as caught:
                    await llm.complete("x")
                assert (clock.now() - started, caught.value.phase) == (until, phase)
        provider = SimulatedProvider(latency=0, script=["stall"])
        async with client(provider, timeout=Timeouts(connect=1, read=40, total=100), retry=None) as llm:
            started, texts = clock.now(), []
            with pytest.raises(errors.HTTPTimeoutError, match="sent nothing"):
                async for text in llm.stream("x"):
                    texts.append(text)
            assert texts and clock.now() - started == 40
        assert provider.statistics().running == 0


async def test_leaving_a_stream_early() -> None:
    """The exchange is over when its reader leaves."""
    provider = SimulatedProvider(latency=0)
    async with client(provider) as llm:
        async with llm.stream("x") as pieces:
            await anext(pieces)
            assert provider.statistics().running == 1
        assert provider.statistics().running == 0


async def test_another_address() -> None:
    """What the provider does not have is not found."""
    http = httpx.AsyncClient(transport=SimulatedProvider().transport(), trust_env=False)
    async with LLMClient("m", base_url="http://simulated", api_key="", http=http) as llm:
        with pytest.raises(errors.RequestRefusedError, match="no such address"):
            await llm.complete("x")
