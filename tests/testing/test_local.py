"""The simulated provider without a socket, on virtual time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from asyncflow import errors
from asyncflow.clock import FakeClock
from asyncflow.http import Timeouts
from asyncflow.llm import LLMClient
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider
from asyncflow.testing.seen import Seen

pytestmark = pytest.mark.asyncio

Client = Callable[..., LLMClient]


@pytest.fixture(params=["transport", "httpx"])
def client(request: pytest.FixtureRequest) -> Client:
    """Clients of a provider, through its transport as it is and through httpx's client."""

    def make(provider: SimulatedProvider, kind: str = "openai", **options: Any) -> LLMClient:
        way = provider.transport()
        http = way if request.param == "transport" else httpx.AsyncClient(transport=way, trust_env=False)
        base_url = {"openai": "http://simulated/v1", "v2": "http://simulated/v2"}.get(
            kind, "http://simulated"
        )
        protocol = "anthropic" if kind == "anthropic" else "openai"
        return LLMClient("m", provider=protocol, base_url=base_url, api_key="", http=http, **options)

    return make


async def hour(client: Client) -> tuple[list[float], float]:
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


async def test_an_hour_in_moments_and_the_same_each_time(client: Client) -> None:
    """An hour of latencies, quotas and waits takes seconds, and two runs see the same to the microsecond."""
    started = time.perf_counter()
    first = await hour(client)
    assert time.perf_counter() - started < 20  # about one second on a quiet machine
    assert first == await hour(client)
    assert 1500 < first[1] < 1900 and first[0][-1] > 3590


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_faults_and_streams(client: Client, kind: str) -> None:
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
async def test_timeouts_on_virtual_time(
    client: Client, timeout: Timeouts | None, phase: str, until: float
) -> None:
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


async def test_leaving_a_stream_early(client: Client) -> None:
    """The exchange is over when its reader leaves."""
    provider = SimulatedProvider(latency=0)
    async with client(provider) as llm:
        async with llm.stream("x") as pieces:
            await anext(pieces)
            assert provider.statistics().running == 1
        assert provider.statistics().running == 0


async def test_another_address(client: Client) -> None:
    """What the provider does not have is not found."""
    async with client(SimulatedProvider(), "v2") as llm:
        with pytest.raises(errors.RequestRefusedError, match="no such address"):
            await llm.complete("x")


async def test_an_answer_that_is_too_large(client: Client) -> None:
    """A body above the client's measure is refused, as over a socket."""
    provider = SimulatedProvider(latency=0, reply=lambda asked: "x" * 1000)
    async with client(provider, retry=None) as llm:
        llm._http._max_body_size_bytes = 1000
        with pytest.raises(errors.AnswerTooLargeError):
            await llm.complete("x")


async def test_http_that_is_neither() -> None:
    """`http=` is a client of httpx's or a transport, told at once."""
    with pytest.raises(TypeError, match="an httpx transport"):
        LLMClient("m", base_url="http://simulated/v1", api_key="", http=5)


async def test_what_came_before_is_forgotten_in_the_end() -> None:
    """A request's number counts its like before it; as many as are remembered are not all there ever were."""
    seen = Seen(3)
    assert [seen.count(b"%d" % (number % 2)) for number in range(6)] == [0, 0, 1, 1, 2, 2]
    assert all(seen.count(b"new %d" % number) == 0 for number in range(1000))
    assert len(seen) <= 6 and seen.count(b"0") == 0 and seen.count(b"new 999") == 1
