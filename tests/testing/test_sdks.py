"""OpenAI's and Anthropic's own SDKs work against the simulated provider (where they are installed)."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from asyncflow.llm import ToolCall
from asyncflow.testing import SimulatedProvider

pytestmark = pytest.mark.asyncio


class Point(BaseModel):
    x: int
    y: int


async def test_openai() -> None:
    """Chat, streamed chat, embeddings, faults, errors."""
    import openai

    script = [429, "reset", 500]
    async with SimulatedProvider(reply=lambda asked: "hello there", latency=0, script=script) as provider:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=5) as client:
            ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            done = await client.chat.completions.create(**ask)
            stream = await client.chat.completions.create(**ask, stream=True)
            texts = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
            vectors = await client.embeddings.create(model="m", input=["a", "b"])
            with pytest.raises(openai.BadRequestError, match="empty"):
                await client.chat.completions.create(model="m", messages=[])
        assert provider.statistics().faults == {429: 1, "reset": 1, 500: 1}
    assert done.choices[0].message.content == "hello there" == "".join(texts)
    assert done.usage.total_tokens == 7 and len(vectors.data) == 2 and len(vectors.data[0].embedding) == 64


async def test_openai_structured() -> None:
    """Its parse helper gets JSON that fits."""
    import openai

    async with SimulatedProvider(latency=0) as provider:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k") as client:
            done = await client.chat.completions.parse(
                model="m", messages=[{"role": "user", "content": "Hi"}], response_format=Point
            )
    assert isinstance(done.choices[0].message.parsed, Point)


async def test_anthropic() -> None:
    """Messages, streamed messages, errors."""
    import anthropic

    async with SimulatedProvider(reply=lambda asked: "hello there", latency=0, script=[529]) as provider:
        async with anthropic.AsyncAnthropic(base_url=provider.anthropic_base_url, api_key="k") as client:
            ask = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            done = await client.messages.create(**ask)
            async with client.messages.stream(**ask) as stream:
                text = "".join([piece async for piece in stream.text_stream])
                final = await stream.get_final_message()
            with pytest.raises(anthropic.BadRequestError):
                await client.messages.create(model="m", max_tokens=5, messages=[])
    assert done.content[0].text == "hello there" == text and final.usage.output_tokens == 3


WEATHER = ToolCall("call-1", "weather", '{"city": "Rome"}')


async def test_openai_tools_and_headers() -> None:
    """Tools, whole and streamed; rate-limit headers; a refusal that no retry helps against."""
    import openai

    script = ["no_credit"]
    async with SimulatedProvider(
        reply=lambda asked: WEATHER, latency=0, script=script, requests_per_minute=600
    ) as provider:
        async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as client:
            ask = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**ask)
            assert caught.value.code == "insufficient_quota"
            raw = await client.chat.completions.with_raw_response.create(**ask)
            async with client.chat.completions.stream(**ask) as stream:
                streamed = (await stream.get_final_completion()).choices[0].message.tool_calls[0].function
    function = raw.parse().choices[0].message.tool_calls[0].function
    assert function.name == streamed.name == "weather"
    assert function.arguments == streamed.arguments == WEATHER.arguments
    assert raw.headers["x-ratelimit-limit-requests"] == "600"


async def test_anthropic_tools_and_structured() -> None:
    """Tools, whole and streamed; its parse helper gets JSON that fits."""
    import anthropic

    async with SimulatedProvider(reply=lambda asked: WEATHER, latency=0) as provider:
        async with anthropic.AsyncAnthropic(base_url=provider.anthropic_base_url, api_key="k") as client:
            ask = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            done = await client.messages.create(**ask)
            async with client.messages.stream(**ask) as stream:
                streamed = await stream.get_final_message()
    assert done.stop_reason == streamed.stop_reason == "tool_use"
    assert done.content[0].input == streamed.content[0].input == {"city": "Rome"}
    async with SimulatedProvider(latency=0) as provider:
        async with anthropic.AsyncAnthropic(base_url=provider.anthropic_base_url, api_key="k") as client:
            parsed = await client.messages.parse(**ask, output_format=Point)
    assert isinstance(parsed.parsed_output, Point)
