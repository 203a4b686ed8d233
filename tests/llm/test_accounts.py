"""What streams and embeddings use of quotas and of money, however they end."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from asyncflow import Skipped, amap, errors
from asyncflow.http.body import encode_json
from asyncflow.llm import LLMClient, Price
from asyncflow.llm.spending import CallMeter
from asyncflow.policy import Limits
from asyncflow.testing import SimulatedProvider
from asyncflow.testing.asked import count_tokens

TEXT = "word " * 40
PROVIDERS = ["openai", "anthropic"]

pytestmark = pytest.mark.asyncio


def client(provider: SimulatedProvider, kind: str = "openai", **options: object) -> LLMClient:
    url = provider.base_url if kind == "openai" else provider.anthropic_base_url
    return LLMClient("m", provider=kind, base_url=url, api_key="", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_a_stream_is_settled_and_teaches(kind: str) -> None:
    """Read to its end it counts as its last event reports, and the next reservation rests on it."""
    limits = Limits(tokens_per_minute=100_000)
    async with SimulatedProvider(latency=0, reply=lambda asked: TEXT) as provider:
        async with client(provider, kind, limits=limits) as llm:
            async with llm.stream("say it", max_tokens=1000) as pieces:
                await anext(pieces)
                assert limits.statistics()[0].tokens_last_minute >= 1000
                rest = [text async for text in pieces]
            usage = pieces.completion.usage
            assert len(rest) > 10 and usage.reported and llm.statistics().usage == usage
            assert limits.statistics()[0].tokens_last_minute == usage.total_tokens < 100
            lane = llm._http.lane
    assert lane.estimate.output_tokens(1000) == pytest.approx(usage.output_tokens * 1.25, abs=1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("how", ["cut", "left", "cancelled", "let go"])
async def test_a_stream_that_does_not_end_counts_what_came(how: str, kind: str) -> None:
    """Left, cancelled or let go, it has used its prompt and what was received; the rest goes back.

    One that was cut has used what was reserved: its provider may have gone on.
    """
    limits = Limits(tokens_per_minute=100_000)
    script = ["cut"] if how == "cut" else []
    async with SimulatedProvider(
        latency=0, seconds_per_token=0.002, reply=lambda asked: TEXT, script=script
    ) as provider:
        async with client(provider, kind, limits=limits, price=Price(1.0, 1.0)) as llm:
            pieces = llm.stream("say it", max_tokens=1000)
            texts = []
            if how == "cut":
                with pytest.raises(errors.HTTPConnectionError):
                    async for text in pieces:
                        texts.append(text)
            elif how == "cancelled":
                with anyio.CancelScope() as scope:
                    async for text in pieces:
                        texts.append(text)
                        if len(texts) == 10:
                            scope.cancel()
            else:
                async for text in pieces:
                    texts.append(text)
                    if len(texts) == 10:
                        break
                if how == "left":
                    await pieces.aclose()
                del pieces
            with anyio.fail_after(5):
                while limits.statistics()[0].running:
                    await anyio.sleep(0.001)
            used = limits.statistics()[0].tokens_last_minute
            seen = llm.statistics()
    received = count_tokens("".join(texts))
    wrote = 1000 if how == "cut" else received
    assert wrote <= used <= wrote + 60  # the prompt comes on top, by its size
    assert seen.usage.total_tokens == used and not seen.usage.reported
    assert seen.cost == pytest.approx(used / 1e6) and seen.running == 0


async def test_a_stream_cancelled_before_its_answer_gives_all_back() -> None:
    """Nothing came, and nothing is charged."""
    limits = Limits(tokens_per_minute=100_000)
    async with SimulatedProvider(latency=60, spread=0) as provider:
        async with client(provider, limits=limits) as llm:
            with anyio.move_on_after(0.2):
                await anext(llm.stream("say it", max_tokens=1000))
            assert limits.statistics()[0].tokens_last_minute == 0 == limits.statistics()[0].running


async def test_streams_keep_to_the_budget() -> None:
    """Many at once never pass `max_cost`, and what is not started says so before anything is sent."""
    reply = "12345678" * 4
    async with SimulatedProvider(latency=0.005, reply=lambda asked: reply) as provider:
        async with client(provider, price=Price(0.0, 1e6), max_cost=100.0) as llm:
            stopped = 0

            async def one(number: int) -> None:
                nonlocal stopped
                try:
                    assert "".join([text async for text in llm.stream(f"{number}", max_tokens=12)]) == reply
                except errors.BudgetSpentError:
                    stopped += 1

            async with anyio.create_task_group() as group:
                for number in range(30):
                    group.start_soon(one, number)
            assert llm.statistics().cost == 96.0  # eight tokens each
        assert provider.statistics().asked == 12 == 30 - stopped


async def test_embeddings_keep_to_the_budget() -> None:
    """The same for requests of embeddings."""
    async with SimulatedProvider(latency=0.005) as provider:
        async with client(provider, price=Price(1e6, 0.0), max_cost=1000.0) as llm:
            stopped = []

            async def one(number: int) -> None:
                try:
                    await llm.embed([f"text {number} " * 20])
                except errors.BudgetSpentError as error:
                    stopped.append(error.reason)

            async with anyio.create_task_group() as group:
                for number in range(60):
                    group.start_soon(one, number)
            cost = llm.statistics().cost
        each = cost / provider.statistics().asked if cost else 0.0
        assert 1000.0 - 2 * each <= (cost or 0.0) <= 1000.0 + each
        assert stopped == ["budget"] * (60 - provider.statistics().asked)


@pytest.mark.parametrize("what", ["complete", "embed"])
async def test_a_provider_that_reports_no_usage_is_not_free(what: str) -> None:
    """Where answers tell no usage, the budget counts what calls probably cost; no other cost is told."""
    from tests.http.raw import answer, raw_server, replies

    body = b'{"choices": [{"message": {"content": "hello"}}], "data": [{"index": 0, "embedding": [1.0]}]}'
    price, most = (Price(0.0, 1e6), 30.0) if what == "complete" else (Price(1e6, 0.0), 100.0)
    seen: list[float | None] = []
    async with raw_server(replies(answer(body))) as server:
        async with LLMClient("m", base_url=server.url, api_key="", price=price, max_cost=most) as llm:
            with pytest.raises(errors.BudgetSpentError):
                for number in range(30):
                    if what == "complete":
                        seen.append((await llm.complete(f"{number}", max_tokens=9)).cost)
                    else:
                        seen.append((await llm.embed([f"{number}"])).cost)
            assert llm.statistics().cost is None
    assert 2 <= len(server.requests) == len(seen) <= 20 and set(seen) == {None}


async def test_what_the_budget_stops_is_skipped_and_not_failed() -> None:
    """Items that no money is left for come out of `amap` and `stream` as `Skipped("budget")`."""
    async with SimulatedProvider(latency=0.001, reply=lambda asked: "12345678") as provider:
        async with client(provider, price=Price(0.0, 1e6), max_cost=10.0) as llm:

            async def ask(number: int) -> str:
                return (await llm.complete(f"{number}", max_tokens=2)).text

            done = await amap(ask, range(20), concurrency=4, on_error="continue")
    skipped = [one for one in done if isinstance(one, Skipped)]
    assert len(skipped) == 15 and {one.reason for one in skipped} == {"budget"}
    assert sum(one == "12345678" for one in done) == 5


@pytest.mark.parametrize("fault", ["cut", "invalid_json", "stall", "reset", "html"])
@pytest.mark.parametrize("how", ["complete", "stream"])
async def test_answers_that_are_lost_are_paid_for(how: str, fault: str) -> None:
    """Cut off, too late, broken: what the provider wrote for them counts, and `max_cost` holds for it too."""
    wrote = 0

    def reply(asked: object) -> str:
        nonlocal wrote
        wrote += 100
        return "abcd" * 100

    async with SimulatedProvider(latency=0.005, reply=reply, faults={fault: 0.3}, seed=5) as provider:
        async with client(
            provider, price=Price(0.0, 1e6), max_cost=10_000, concurrency=16, timeout=0.5
        ) as llm:

            async def ask(number: int) -> None:
                if how == "complete":
                    await llm.complete(f"{number}", max_tokens=100)
                else:
                    async with llm.stream(f"{number}", max_tokens=100) as pieces:
                        [text async for text in pieces]

            done = await amap(ask, range(150), concurrency=16, on_error="continue")
            cost = llm.statistics().cost
    assert cost is not None and wrote <= cost <= 10_000
    assert sum(isinstance(one, Skipped) for one in done) >= 40


@pytest.mark.parametrize("how", ["complete", "stream"])
async def test_answers_of_unknown_length_keep_to_the_budget(how: str) -> None:
    """Without `max_tokens` the first answer is awaited alone: all pass it by one call's error at most."""
    reply = "abcd" * 20_000
    async with SimulatedProvider(latency=0.005, reply=lambda asked: reply) as provider:
        async with client(provider, price=Price(0.0, 1.0), max_cost=0.2, concurrency=32) as llm:

            async def ask(number: int) -> None:
                if how == "complete":
                    await llm.complete(f"{number}")
                else:
                    async with llm.stream(f"{number}") as pieces:
                        [text async for text in pieces]

            done = await amap(ask, range(40), concurrency=40, on_error="continue")
            assert llm.statistics().cost == pytest.approx(0.2, abs=0.021)
    assert sum(isinstance(one, Skipped) for one in done) >= 29


@pytest.mark.parametrize("extra", [{"max_tokens": 2}, {"max_completion_tokens": 2}])
async def test_a_longest_answer_in_extra_counts(extra: dict[str, int]) -> None:
    """`max_tokens` that comes by `extra` is what a call may write, for the budget too."""
    async with SimulatedProvider(latency=0.005, reply=lambda asked: "12345678") as provider:
        async with client(provider, price=Price(0.0, 1e6), max_cost=20.0, concurrency=32) as llm:
            await amap(lambda number: llm.complete(f"{number}", extra=extra), range(10), concurrency=10)
            assert llm.statistics().cost == 20.0
        assert provider.statistics().most_at_once > 1


async def test_a_budget_below_the_first_guess_lets_a_first_call_start() -> None:
    """How long answers are is not known yet, so one is asked; afterwards it is, and the rest keeps to it."""
    async with SimulatedProvider(latency=0.001, reply=lambda asked: "12345678" * 4) as provider:
        async with client(provider, price=Price(0.0, 10.0), max_cost=0.0005) as llm:
            done = await amap(lambda number: llm.complete(f"{number}"), range(20), on_error="continue")
            assert llm.statistics().cost == pytest.approx(0.00048)
        assert sum(isinstance(one, Skipped) for one in done) == 14
        for price, most in ((Price(1.0, 1.0), 0.0), (Price(1e6, 1.0), 0.01)):
            async with client(provider, limits=Limits(), price=price, max_cost=most) as llm:
                with pytest.raises(errors.BudgetSpentError):
                    await llm.complete("its prompt alone is too much")


BASE64 = "A" * 1_000_000
PARTS: dict[str, tuple[dict[str, Any], int]] = {
    "image": ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}}, 1600),
    "image by its address": ({"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}, 1600),
    "image of Anthropic's": ({"type": "image", "source": {"type": "base64", "data": BASE64}}, 1600),
    "sound": ({"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}, 1000),
    "file": ({"type": "file", "file": {"file_data": BASE64}}, 40_000),
    "file by its name": ({"type": "file", "file": {"file_id": "file-1"}}, 3000),
    "result of a tool": (
        {"type": "tool_result", "content": [{"type": "image", "source": {"data": BASE64}}]},
        1600,
    ),
    "text of Anthropic's": (
        {"type": "document", "source": {"type": "text", "data": BASE64[:4000]}},
        1000,
    ),
}


@pytest.mark.parametrize("part", PARTS)
async def test_what_is_no_text_is_not_counted_by_its_length(part: str) -> None:
    """An image of a megabyte is no 250,000 tokens: for money and for tokens a minute it counts as a guess."""
    content, worth = PARTS[part]
    messages = [{"role": "user", "content": [content]}]
    async with SimulatedProvider(latency=0, reply=lambda asked: "ok") as provider:
        limits = Limits(tokens_per_minute=1_000_000)
        async with client(provider, limits=limits, price=Price(1.0, 1.0), max_cost=0.5) as llm:
            meter = llm._asking._meter(CallMeter, body := {"messages": messages}, 10)
            assert meter.reserve(len(encode_json(body))) == pytest.approx(worth, abs=60)
            assert meter.money is not None and meter.money.probably == pytest.approx(worth / 1e6, abs=6e-5)
            assert (await llm.complete(messages, max_tokens=10)).text == "ok"


USAGES = [
    {},
    {"prompt_tokens": None, "completion_tokens": None},
    {"prompt_tokens": 0, "completion_tokens": 0},
]


@pytest.mark.parametrize("usage", USAGES)
async def test_usage_without_a_number_is_not_reported(usage: dict[str, object]) -> None:
    """Zeros and nulls are no usage of a call: its cost is unknown, and so is what a job would cost."""
    from tests.http.raw import answer, raw_server, replies

    body = json.dumps({"choices": [{"message": {"content": "hello"}}], "usage": usage}).encode()
    async with raw_server(replies(answer(body))) as server:
        async with LLMClient("m", base_url=server.url, api_key="", price=Price(1.0, 1.0)) as llm:
            done = await llm.complete("x")
            assert not done.usage.reported and done.cost is None
            estimate = await llm.estimate(["a", "b", "c"], sample=2)
            assert estimate.cost is None and not estimate.spent.reported


async def test_tokens_written_as_floats_count() -> None:
    """Some gateways write `12.0`."""
    from tests.http.raw import answer, raw_server, replies

    usage = {"prompt_tokens": 12.0, "completion_tokens": 3.0}
    body = json.dumps({"choices": [{"message": {"content": "hello"}}], "usage": usage}).encode()
    async with raw_server(replies(answer(body))) as server:
        async with LLMClient("m", base_url=server.url, api_key="", price=Price(1e6, 1e6)) as llm:
            assert (await llm.complete("x")).cost == 15.0
