"""Anthropic's dialect, embeddings, cost, the cache, and identical calls in flight."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

from asyncflow import errors
from asyncflow.llm import LLMClient, Price, Usage
from asyncflow.llm.anthropic import Anthropic
from asyncflow.llm.ask import Ask
from asyncflow.llm.embeddings import vectors_of
from asyncflow.llm.openai import usage_of
from asyncflow.policy.retry import Retry
from asyncflow.testing import Asked, MemoryCache, SimulatedProvider


def openai(provider: SimulatedProvider, **options: Any) -> LLMClient:
    return LLMClient("m", base_url=provider.base_url, api_key="", **options)


@pytest.mark.asyncio
async def test_anthropic() -> None:
    """The Messages protocol: its path, its key header, its words for the end."""
    async with SimulatedProvider(
        reply=lambda asked: f"{asked.system}: {asked.prompt}", latency=0
    ) as provider:
        url = provider.anthropic_base_url
        async with LLMClient("m", provider="anthropic", base_url=url, api_key="sk-ant-canary") as llm:
            done = await llm.complete("Hi", system="Be kind", temperature=1, stop="x", extra={"top_k": 3})
            cut = await llm.complete("Hi there", max_tokens=1)
            assert "canary" not in repr(llm)
        sent = provider.log[0]
    assert done.text == "Be kind: Hi" and done.finish_reason == "stop" and cut.finish_reason == "length"
    assert done.usage == Usage(3 + 1 + 2, 3) and done.request_id
    assert sent.headers["anthropic-version"] == "2023-06-01"
    body = {"top_k": 3, "stop_sequences": ["x"], "temperature": 1, "max_tokens": 4096, "system": "Be kind"}
    assert body.items() <= sent.body.items()


def test_anthropic_translation() -> None:
    """Cached tokens, tools, thinking and refusals; system messages move to where they belong."""
    answer = {
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "text", "text": "A"},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": "é"}},
        ],
        "stop_reason": "tool_use",
        "usage": {
            "input_tokens": 5,
            "cache_read_input_tokens": 90,
            "cache_creation_input_tokens": 5,
            "output_tokens": 7,
        },
    }
    done = Anthropic().completion(answer)
    assert (
        done.usage == Usage(100, 7, 90, cache_write_input_tokens=5)
        and done.text == "A"
        and done.finish_reason == "tool_calls"
    )
    assert done.tool_calls[0].arguments == '{"a": "é"}'
    refused = Anthropic().completion({"content": [], "stop_reason": "refusal"})
    assert refused.finish_reason == "content_filter" and not refused.usage.reported
    messages = ({"role": "system", "content": "B"}, {"role": "user", "content": "C"})
    body = Anthropic().body(Ask("m", messages, system="A"), "")
    assert body["system"] == "A\n\nB" and body["messages"] == [{"role": "user", "content": "C"}]


@pytest.mark.asyncio
async def test_anthropic_errors() -> None:
    """Its error words become our classes; an overload is repeated."""
    async with SimulatedProvider(latency=0, script=[529, 401]) as provider:
        url = provider.anthropic_base_url
        async with LLMClient("m", provider="anthropic", base_url=url, api_key="", retry=Retry(wait=0)) as llm:
            with pytest.raises(errors.AccessDeniedError) as caught:
                await llm.complete("Hi")
            assert caught.value.code == "authentication_error" and caught.value.attempts == 2
            with pytest.raises(errors.NotSupportedError, match="no embeddings"):
                await llm.embed(["a"])


@pytest.mark.parametrize("form", ["base64", "float"])
@pytest.mark.asyncio
async def test_embeddings(form: str) -> None:
    """Rows in the order of the texts, however many requests they take, as base64 or as numbers."""
    texts = [f"text {number}" for number in range(7)]
    async with SimulatedProvider(latency=0) as provider, openai(provider, price=Price(1e6, 0.0)) as llm:
        extra = {"encoding_format": form}
        done = await llm.embed(texts, dimensions=16, batch_size=3, extra=extra)
        alone = await llm.embed([texts[4]], dimensions=16)
        assert provider.statistics().asked == 4
    assert done.vectors.shape == (7, 16) and done.vectors.dtype == np.float32
    np.testing.assert_allclose(done.vectors[4], alone.vectors[0], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(done.vectors, axis=1), 1, rtol=1e-5)
    assert done.usage == Usage(14, 0) and done.cost == 14.0


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"data": []},
        {"data": [{"embedding": [1.0]}]},
        {"data": [{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 0}]},
        {"data": [{"embedding": [1.0], "index": 0}, {"embedding": [2.0], "index": 2}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]},
        {"data": [{"embedding": "!!"}, {"embedding": "!!"}]},
        {"data": [{"embedding": []}, {"embedding": []}]},
        {"data": [{"embedding": {"a": 1}}, {"embedding": None}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [math.nan]}]},
        {"data": [{"embedding": [1.0]}, {"embedding": [1e39]}]},
        {"data": [{"embedding": "AACAPw=="}, {"embedding": "AADAfw=="}]},
    ],
)
def test_embeddings_that_are_none(answer: Any) -> None:
    """Too few, numbered wrongly, of two lengths, no numbers, not finite: unusable, never a wrong array."""
    with pytest.raises(ValueError, match=r"embedding|numbered"):
        vectors_of(answer, 2)


@pytest.mark.parametrize("script", [[None, None, 400], [400]])
@pytest.mark.asyncio
async def test_embeddings_that_were_paid_for_are_kept(script: list[Any]) -> None:
    """Where a later request fails, its error has what came before, and says which texts it is about."""
    texts = [f"text {number}" for number in range(10)]
    async with SimulatedProvider(latency=0, script=script) as provider:
        async with openai(provider, retry=None) as llm:
            with pytest.raises(errors.RequestRefusedError) as caught:
                await llm.embed(texts, batch_size=3)
            error = pickle.loads(pickle.dumps(caught.value))
            if script == [400]:
                assert error.partial is None and error.__notes__ == ["in texts 0 to 2 of 10, counted from 0"]
                return
            assert error.__notes__ == ["in texts 6 to 8 of 10, counted from 0"]
            rest = await llm.embed(texts[len(error.partial.vectors) :], batch_size=3)
            whole = await llm.embed(texts)
    assert np.allclose(np.concatenate([error.partial.vectors, rest.vectors]), whole.vectors)
    assert error.partial.usage.total_tokens + rest.usage.total_tokens == whole.usage.total_tokens


def test_embeddings_come_in_any_order() -> None:
    """Their index counts."""
    rows = [{"embedding": [2.0], "index": 1}, {"embedding": [1.0], "index": 0}]
    assert vectors_of({"data": rows}, 2).tolist() == [[1.0], [2.0]]


@pytest.mark.asyncio
async def test_cost_counts_everything_paid() -> None:
    """Cached tokens at their price; a paid answer that is unusable counts in the statistics."""
    assert Price(2.0, 8.0, 0.5).of(Usage(1_000_000, 500_000, 400_000)) == 1.2 + 0.2 + 4.0
    assert Price(2.0, 8.0, 0.5).of(Usage(300, 0, 100, True, 100)) == pytest.approx(450e-6)
    assert Price(2.0, 8.0, 0.5, 2.5).of(Usage(300, 0, 100, True, 100)) == pytest.approx(500e-6)
    with pytest.raises(ValueError, match="finite amount"):
        Price(-1.0, 0.0)
    async with SimulatedProvider(latency=0, script=["no_answer"], reply=lambda asked: "abcd") as provider:
        async with openai(provider, price=Price(1e6, 1e6), retry=Retry(wait=0)) as llm:
            done = await llm.complete("abcd")
            statistics = llm.statistics()
    assert done.cost == 5.0 == statistics.cost and (statistics.calls, statistics.attempts) == (1, 2)


class Answer(BaseModel):
    n: int


@pytest.mark.asyncio
async def test_cache() -> None:
    """An answer kept costs nothing; what differs is another question; cut answers are not kept."""
    cache = MemoryCache()
    reply = iter(["first", "second", "cut short", '{"n": 1}']).__next__
    async with SimulatedProvider(latency=0, reply=lambda asked: reply()) as provider:
        async with openai(provider, cache=cache, price=Price(1.0, 1.0)) as llm:
            one = await llm.complete("x")
            two = await llm.complete("x")
            three = await llm.complete("x", temperature=0.5)
            await llm.complete("y", max_tokens=1)
            form = await llm.complete("z", schema=Answer)
        async with openai(provider, cache=cache) as llm:
            kept = await llm.complete("z", schema=Answer)
            assert llm.statistics().reused == 1
        assert provider.statistics().asked == 4
    assert (one.text, two.text, three.text) == ("first", "first", "second")
    assert two.reused and two.usage == Usage() and two.cost == 0.0 and not one.reused
    assert kept.parsed == Answer(n=1) == form.parsed and len(cache.values) == 3


@pytest.mark.asyncio
async def test_a_cache_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    """An answer that was paid for reaches the caller though it could not be kept."""

    class Full(MemoryCache):
        async def put(self, key: str, value: Any) -> None:
            raise OSError("no space left")

    async with SimulatedProvider(latency=0) as provider, openai(provider, cache=Full()) as llm:
        assert (await llm.complete("x")).text
    assert "no space left" in caplog.text


@pytest.mark.asyncio
async def test_coalescing() -> None:
    """Identical calls in flight become one; without it, ten samples of one prompt stay ten."""
    go = asyncio.Event()

    async def reply(asked: Asked) -> str:
        await go.wait()
        return asked.prompt

    for coalesce, asked in ((True, 2), (False, 11)):
        go.clear()
        async with SimulatedProvider(latency=0, reply=reply) as provider:
            async with openai(provider, coalesce=coalesce) as llm:
                calls = [asyncio.create_task(llm.complete("same")) for _ in range(10)]
                calls.append(asyncio.create_task(llm.complete("other")))
                while provider.statistics().running < asked:
                    await asyncio.sleep(0.001)
                go.set()
                done = await asyncio.gather(*calls)
            assert provider.statistics().asked == asked
        assert {one.text for one in done[:10]} == {"same"} and done[10].text == "other"
        assert sum(one.reused for one in done) == (9 if coalesce else 0)


@pytest.mark.asyncio
async def test_callers_of_one_call_share_no_value() -> None:
    """What one of them does to its `parsed` is not seen by the others."""
    schema = {"type": "object", "properties": {"tags": {"type": "array"}}, "required": ["tags"]}
    go = asyncio.Event()

    async def reply(asked: Asked) -> str:
        await go.wait()
        return '{"tags": ["a"]}'

    async def one(llm: LLMClient, number: int) -> list[Any]:
        done = await llm.complete("same", schema=schema)
        done.parsed["tags"].append(number)
        return list(done.parsed["tags"])

    async with SimulatedProvider(latency=0, reply=reply) as provider, openai(provider, coalesce=True) as llm:
        calls = [asyncio.create_task(one(llm, number)) for number in range(3)]
        while not provider.statistics().running:
            await asyncio.sleep(0.001)
        go.set()
        assert await asyncio.gather(*calls) == [["a", 0], ["a", 1], ["a", 2]]
        assert provider.statistics().asked == 1


def test_no_more_is_cached_than_was_read() -> None:
    """A server that counts otherwise does not make a call cheaper than nothing."""
    told = {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}
    assert usage_of(told) == Usage(5, 1, 5)


@pytest.mark.parametrize("how", ["fails", "cancelled"])
@pytest.mark.asyncio
async def test_the_leaders_failure_is_its_own(how: str) -> None:
    """The next of the followers asks again, and all others get its answer."""
    go = asyncio.Event()

    async def reply(asked: Asked) -> str:
        if asked.index == 0:
            await go.wait()
        return "good"

    script = [400] if how == "fails" else []
    async with SimulatedProvider(latency=0, reply=reply, script=script) as provider:
        if how == "fails":
            go.set()
        async with openai(provider, coalesce=True, retry=None) as llm:
            leader = asyncio.create_task(llm.complete("same"))
            await asyncio.sleep(0)
            followers = [asyncio.create_task(llm.complete("same")) for _ in range(3)]
            if how == "cancelled":
                while provider.statistics().running < 1:
                    await asyncio.sleep(0.001)
                leader.cancel()
            with pytest.raises((asyncio.CancelledError, errors.RequestRefusedError)):
                await leader
            done = await asyncio.gather(*followers)
        assert provider.statistics().asked == 2
    assert [one.text for one in done] == ["good"] * 3 and sum(one.reused for one in done) == 2


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.asyncio
async def test_parts_and_tools_pass_through(kind: str) -> None:
    """Images and tools travel in the provider's own form, as they were given."""
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "A"}]
    messages.append({"role": "user", "content": "Sure?"})
    async with SimulatedProvider(latency=0) as provider:
        url = provider.base_url if kind == "openai" else provider.anthropic_base_url
        async with LLMClient("m", provider=kind, base_url=url, api_key="") as llm:
            await llm.complete(messages, tools=tools, extra={"tool_choice": "auto"})
        sent = provider.log[0].body
    assert sent["messages"] == messages and sent["tools"] == tools and sent["tool_choice"] == "auto"
