"""asyncflow/llm/estimate.py: what all of it will cost, from a sample of it."""

from __future__ import annotations

import random

import pytest

from asyncflow import errors
from asyncflow.llm import Completion, LLMClient, Price, Range, Usage
from asyncflow.llm.estimate import estimate_of
from asyncflow.testing import SimulatedProvider

PRICE = Price(1.0, 10.0)


def test_the_range_holds_nine_times_in_ten() -> None:
    """On 300 skewed jobs with samples of 30, the true total lies in the range about as often as it should."""
    rng = random.Random(5)
    held, close = 0, 0
    for _ in range(300):
        usages = [Usage(rng.randrange(50, 150), int(rng.lognormvariate(5, 0.5))) for _ in range(1000)]
        true = sum(PRICE.of(usage) for usage in usages)
        sample = [(Completion("", usage), 1.0) for usage in rng.sample(usages, 30)]
        cost = estimate_of(sample, 1000, 0, PRICE).cost
        assert cost is not None
        held += cost.low <= true <= cost.high
        close += abs(cost.expected - true) < 0.2 * true
    assert 0.84 < held / 300 < 0.97 and close / 300 > 0.9


def test_edges() -> None:
    """All of it leaves no doubt; one of many leaves all of it; without a price there is no cost."""
    one = (Completion("", Usage(10, 5)), 2.0)
    whole = estimate_of([one, one], 2, 0, None)
    assert whole.output_tokens == Range(10.0, 10.0, 10.0) and whole.cost is None
    assert estimate_of([one], 1, 0, None).input_tokens == Range(10.0, 10.0, 10.0)
    alone = estimate_of([one], 100, 3, PRICE)
    assert alone.output_tokens.low == 0 and alone.output_tokens.high == float("inf")
    assert (alone.sampled, alone.failed) == (4, 3)
    assert (
        whole.seconds(2).expected == 2.0
        and estimate_of([one, one], 100, 0, None).seconds(10).expected == 20.0
    )


def test_seconds_of_a_limit_that_finds_itself() -> None:
    """`"auto"` doubles once a call's time: few items take as long as it takes to begin, many as at 1,000."""
    one = (Completion("", Usage(10, 5)), 2.0)
    seconds = [estimate_of([one, one], items, 0, None).seconds().expected for items in (1, 16, 48, 1_000_000)]
    assert seconds[:3] == [2.0, 2.0, 4.0]
    assert 2000 < seconds[3] < 2020
    quota = estimate_of([one, one], 48, 0, None, requests_per_minute=48)
    assert quota.seconds("auto").expected == 60.0


@pytest.mark.asyncio
async def test_over_the_wire() -> None:
    """A few are asked, failures are counted, and all failing is the failure itself."""
    script = [None, 400]
    async with SimulatedProvider(latency=0, script=script, reply=lambda asked: "abcd" * 3) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", price=PRICE) as llm:
            estimate = await llm.estimate([f"{number:04}" for number in range(50)], sample=5, system="abcd")
            assert provider.statistics().asked == 5
            with pytest.raises(ValueError, match="at least one prompt"):
                await llm.estimate([])
    assert (estimate.items, estimate.sampled, estimate.failed) == (50, 5, 1)
    assert estimate.output_tokens == Range(150.0, 150.0, 150.0) and estimate.spent == Usage(32, 12)
    assert estimate.cost is not None and estimate.cost.expected == pytest.approx(50 * (8 + 30) / 1e6)
    async with SimulatedProvider(latency=0, faults={401: 1.0}) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            with pytest.raises(errors.AccessDeniedError):
                await llm.estimate(["a", "b"])


def test_quotas_take_their_time() -> None:
    """However many at once, a job takes as long as its quota of requests, or of tokens, needs."""
    sample = [(Completion("", Usage(100, 50)), 2.0)] * 20
    free = estimate_of(sample, 6000, 0, None)
    requests = estimate_of(sample, 6000, 0, None, requests_per_minute=60)
    tokens = estimate_of(sample, 6000, 0, None, requests_per_minute=6000, tokens_per_minute=100_000)
    found = [one.seconds(100).expected for one in (free, requests, tokens)]
    assert found == [120.0, 6000.0, 540.0]
    assert requests.seconds(1).expected == 12_000.0  # where calls in turn take longer than the quota


@pytest.mark.asyncio
async def test_quotas_come_from_the_lane() -> None:
    """Those that were given, and those that the provider reports, where that is stricter."""
    async with SimulatedProvider(latency=0, requests_per_minute=600) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", tokens_per_minute=9000) as llm:
            estimate = await llm.estimate(["a"] * 6000, sample=1)
    assert (estimate.requests_per_minute, estimate.tokens_per_minute) == (600, 9000)
    assert estimate.seconds(500).expected >= 600
