"""The cache beneath a client: what is kept, under which key, and that a hit is free."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, Field

from asyncflow.durability import MemoryStore, ResponseCache
from asyncflow.errors import BudgetSpentError, HTTPError, ModelOutputError, StoreFormatError
from asyncflow.llm import LLMClient, Price, Usage
from asyncflow.llm.completion import Completion, ToolCall
from asyncflow.llm.kept import is_good, key_for
from asyncflow.testing import Asked, MemoryCache, SimulatedProvider


class Answer(BaseModel):
    n: int


def client(provider: SimulatedProvider, name: str = "openai", **settings: Any) -> LLMClient:
    url = provider.base_url if name == "openai" else provider.anthropic_base_url
    return LLMClient("m", provider=name, base_url=url, **{"api_key": "sk-not-in-the-file"} | settings)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_path_is_enough(run: Any, tmp_path: Path, name: str) -> None:
    """The next client is given the same answers, parsed again, for nothing, and says so."""
    path = tmp_path / "responses.db"
    told: list[Any] = []

    async def main() -> None:
        for _ in range(2):
            async with client(provider, name, cache=str(path), price=Price(1.0, 1.0)) as llm:
                text = await llm.complete("A question", system="Be brief", temperature=0.5)
                form = await llm.complete("A number", schema=Answer)
                told.append((text, form, llm.statistics()))

    with SimulatedProvider(latency=0) as provider:
        run(main)
        assert provider.statistics().asked == 2
    (text, form, first), (text_again, form_again, again) = told
    assert (text_again.text, form_again.parsed) == (text.text, form.parsed) and text.usage.total_tokens
    assert text_again.cached and text_again.reused and not text.cached
    assert (text_again.usage, text_again.cost) == (Usage(), 0.0) and isinstance(form_again.parsed, Answer)
    assert (first.calls, first.cached, first.cache_misses) == (2, 0, 2)
    assert (again.calls, again.attempts, again.cached, again.reused, again.cost) == (0, 0, 2, 2, 0.0)
    for file in tmp_path.iterdir():
        assert not any(word in file.read_bytes() for word in (b"sk-not-in", b"Be brief"))


@pytest.mark.asyncio
async def test_samples() -> None:
    """Without `sample` all later ones are one answer; with it each has its own, and nothing of it is sent."""
    numbers = iter(range(100))
    async with SimulatedProvider(latency=0, reply=lambda asked: f"{next(numbers)}") as provider:
        cache = ResponseCache(MemoryStore())
        for coalesce in (False, True):
            async with client(provider, cache=cache, coalesce=coalesce) as llm:
                texts: set[str] = set()

                async def ask(llm: LLMClient, prompt: str, n: int, texts: set[str]) -> None:
                    texts.add((await llm.complete(prompt, sample=n)).text)

                async with anyio.create_task_group() as group:
                    for n in range(10):
                        group.start_soon(ask, llm, f"x {coalesce}", n, texts)
                again = {(await llm.complete(f"x {coalesce}", sample=n)).text for n in range(10)}
                assert len(texts) == 10 and again == texts
        assert provider.statistics().asked == 20
        assert all("sample" not in asked.body for asked in provider.log)


@pytest.mark.parametrize(
    ("completion", "good"),
    [
        (Completion("yes"), True),
        (Completion("", finish_reason="tool_calls", tool_calls=(ToolCall("1", "f", "{}"),)), True),
        (Completion("cut", finish_reason="length"), False),
        (Completion("no", finish_reason="content_filter"), False),
        (Completion("half", finish_reason="error"), False),
        (Completion(""), False),
    ],
)
def test_what_is_good(completion: Completion, good: bool) -> None:
    """An answer that ended by itself and says something."""
    assert is_good(completion) is good


@pytest.mark.asyncio
async def test_what_is_not_kept() -> None:
    """Cut answers, refusals, errors, answers of the wrong form, streams and embeddings."""
    cache = MemoryCache()
    async with SimulatedProvider(
        latency=0, script=[None, 500], reply=lambda asked: "not JSON at all"
    ) as provider:
        async with client(provider, cache=cache, retry=None) as llm:
            assert (await llm.complete("x", max_tokens=1)).finish_reason == "length"
            with pytest.raises(HTTPError):
                await llm.complete("x")
            with pytest.raises(ModelOutputError):
                await llm.complete("x", schema=Answer, reasks=0)
            async with llm.stream("x") as pieces:
                assert [text async for text in pieces]
            await llm.embed(["x"])
            assert cache.values == {}
            await llm.complete("x")
            assert len(cache.values) == 1


def test_the_key() -> None:
    """Whatever decides the answer is in it: each change is another key, the order of fields is not."""

    class Small(BaseModel):
        n: int = Field(le=3)

    from asyncflow.llm.form import Form

    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 0.5}
    same = key_for("openai", "http://h/v1", dict(reversed(body.items())), None, 0)
    keys = [
        key_for("openai", "http://h/v1", body, None, 0),
        key_for("anthropic", "http://h/v1", body, None, 0),
        key_for("openai", "http://other/v1", body, None, 0),
        key_for("openai", "http://h/v1", body | {"model": "n"}, None, 0),
        key_for("openai", "http://h/v1", body | {"temperature": 0.6}, None, 0),
        key_for("openai", "http://h/v1", body | {"tools": [{"name": "f"}]}, None, 0),
        key_for("openai", "http://h/v1", body, Form(Answer), 0),
        key_for("openai", "http://h/v1", body, Form(Small), 0),
        key_for("openai", "http://h/v1", body, None, 1),
    ]
    assert keys[0] == same and len(set(keys)) == len(keys)


@pytest.mark.asyncio
async def test_the_key_of_the_provider_does_not_count() -> None:
    """Another API key is given what the first one paid for."""
    cache = MemoryCache()
    async with SimulatedProvider(latency=0) as provider:
        for key in ("one", "two"):
            async with client(provider, cache=cache, api_key=key) as llm:
                await llm.complete("x")
        assert provider.statistics().asked == 1


@pytest.mark.asyncio
async def test_a_hit_takes_nothing() -> None:
    """It passes a full lane, and a budget that is spent."""
    started, go = anyio.Event(), anyio.Event()

    async def reply(asked: Asked) -> str:
        if asked.prompt == "slow":
            started.set()
            await go.wait()
        return asked.prompt

    async with SimulatedProvider(latency=0, reply=reply) as provider:
        settings: dict[str, Any] = {"concurrency": 1, "price": Price(1e6, 1e6), "max_cost": 30.0}
        async with client(provider, cache=MemoryCache(), **settings) as llm:
            await llm.complete("x", max_tokens=1, stop="never")
            await llm.complete("quick", max_tokens=5)
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: llm.complete("slow", max_tokens=2))
                await started.wait()
                assert (await llm.complete("quick", max_tokens=5)).cached
                go.set()
            with pytest.raises(BudgetSpentError):
                for n in range(50):
                    await llm.complete(f"more {n}", max_tokens=5)
            assert (await llm.complete("quick", max_tokens=5)).cost == 0.0


@pytest.mark.asyncio
async def test_a_cache_that_is_no_store_is_told_before_anything_is_paid(tmp_path: Path) -> None:
    """At `async with`; and at the first call where there was none."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes " * 100)
    async with SimulatedProvider(latency=0) as provider:
        with pytest.raises(StoreFormatError, match="left as it was|left as it is"):
            await client(provider, cache=path).__aenter__()
        llm = client(provider, cache=path)
        with pytest.raises(StoreFormatError):
            await llm.complete("x")
        await llm.aclose()
        assert provider.statistics().asked == 0


@pytest.mark.asyncio
async def test_an_estimate_is_of_real_calls() -> None:
    """It asks though the cache has the answers, so that it is not of nothing; what it paid for is kept."""
    async with SimulatedProvider(latency=0) as provider:
        async with client(provider, cache=MemoryCache(), price=Price(1.0, 1.0)) as llm:
            first = await llm.estimate(["a", "b"], sample=2)
            again = await llm.estimate(["a", "b"], sample=2)
            assert first.cost == again.cost and again.cost is not None and again.cost.expected > 0
            assert (await llm.complete("a")).cached and provider.statistics().asked == 4


@pytest.mark.asyncio
async def test_without_async_with(tmp_path: Path) -> None:
    """The cache is opened by the first call, and closed by `aclose`; then it is not looked at."""
    async with SimulatedProvider(latency=0) as provider:
        for _ in range(2):
            llm = client(provider, cache=tmp_path / "r.db")
            await llm.complete("x")
            await llm.aclose()
            with pytest.raises(RuntimeError, match="closed"):
                await llm.complete("x")
            assert llm.statistics().cache_failures == 0 and provider.statistics().asked == 1
        async with llm:
            assert (await llm.complete("x")).cached


@pytest.mark.asyncio
async def test_a_cache_that_fails_never_fails_a_call(caplog: pytest.LogCaptureFixture) -> None:
    """What cannot be read is asked for; one warning, and a count."""

    class Broken(MemoryCache):
        async def get(self, key: str) -> Any:
            raise OSError("the disk is gone")

        async def put(self, key: str, value: Any) -> None:
            raise OSError("the disk is gone")

    async with SimulatedProvider(latency=0) as provider, client(provider, cache=Broken()) as llm:
        for n in range(3):
            assert (await llm.complete(f"{n}")).text
        assert (llm.statistics().cache_failures, llm.statistics().cached) == (6, 0)
    assert caplog.text.count("OSError: the disk is gone") == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("damaged", [None, [], {"choices": []}, {"choices": [{"message": {}}]}, "text"])
async def test_what_is_no_answer_any_more_is_asked_for_again(damaged: Any) -> None:
    """And what comes takes its place."""
    cache = MemoryCache()
    async with SimulatedProvider(latency=0) as provider, client(provider, cache=cache) as llm:
        first = await llm.complete("x")
        (key,) = cache.values
        cache.values[key] = damaged
        assert (await llm.complete("x")).text == first.text
        assert (await llm.complete("x")).cached and provider.statistics().asked == 2


@pytest.mark.asyncio
async def test_with_coalescing() -> None:
    """Identical calls look in the cache once, and ask once."""
    cache = ResponseCache(MemoryStore())
    async with SimulatedProvider(latency=0) as provider:
        for hits, misses in ((0, 1), (1, 1)):
            async with client(provider, cache=cache, coalesce=True) as llm:
                async with anyio.create_task_group() as group:
                    for _ in range(10):
                        group.start_soon(llm.complete, "x")
            assert (cache.statistics().hits, cache.statistics().misses) == (hits, misses)
        assert provider.statistics().asked == 1
