"""Structured output through the client: modes, re-asks, and giving up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from asyncflow.errors import ModelOutputError, RequestRefusedError
from asyncflow.llm import LLMClient, Price, ToolCall
from asyncflow.policy.retry import Retry
from asyncflow.testing import Asked, SimulatedProvider
from tests.http.raw import Conversation, answer, raw_server, replies

pytestmark = pytest.mark.asyncio
PROVIDERS = ["openai", "anthropic"]


class Point(BaseModel):
    x: int
    y: int


def client(provider: SimulatedProvider, kind: str, **options: Any) -> LLMClient:
    url = provider.base_url if kind == "openai" else provider.anthropic_base_url
    return LLMClient("m", provider=kind, base_url=url, api_key="", **options)


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_a_model_class(kind: str) -> None:
    """The provider's own mode is used, and parsed is the model."""
    async with SimulatedProvider(latency=0) as provider, client(provider, kind) as llm:
        done = await llm.complete("a point", schema=Point)
        sent = provider.log[0].body
    assert isinstance(done.parsed, Point) and json.loads(done.text) == done.parsed.model_dump()
    if kind == "openai":
        form = sent["response_format"]["json_schema"]
        assert form["name"] == "Point" and form["strict"] is True
        schema = form["schema"]
    else:
        schema = sent["output_config"]["format"]["schema"]
    assert schema["additionalProperties"] is False and schema["required"] == ["x", "y"]


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_a_json_schema(kind: str) -> None:
    """parsed is the JSON."""
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 5}}, "required": ["n"]}
    async with SimulatedProvider(latency=0) as provider, client(provider, kind) as llm:
        done = await llm.complete("a number", schema=schema)
    assert done.parsed["n"] >= 5


def answers(*texts: str) -> Callable[[Asked], str]:
    rest = list(texts)
    return lambda asked: rest.pop(0)


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_a_wrong_answer_is_shown_what_is_wrong(kind: str) -> None:
    """The model sees its answer and the problems; tokens and cost of both answers count."""
    reply = answers('{"x": 1}', '{"x": 1, "y": 2}')
    async with SimulatedProvider(reply=reply, latency=0) as provider:
        async with client(provider, kind, price=Price(1.0, 2.0)) as llm:
            done = await llm.complete("a point", schema=Point)
            statistics = llm.statistics()
        first, second = provider.log
    assert done.parsed == Point(x=1, y=2) and statistics.reasked == 1
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2] == {"role": "assistant", "content": '{"x": 1}'}
    assert "$.y: Field required" in second.messages[-1]["content"]
    assert done.usage == statistics.usage and done.cost == statistics.cost
    assert done.usage.output_tokens == 2 + 4


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_giving_up(kind: str) -> None:
    """After the re-asks the error has the last text, the problems and the tokens, and is not multiplied."""
    async with (
        SimulatedProvider(reply=lambda asked: "no", latency=0) as provider,
        client(provider, kind) as llm,
    ):
        with pytest.raises(ModelOutputError, match="in 2 answers: .*no JSON") as caught:
            await llm.complete("a point", schema=Point, reasks=1)
        assert provider.statistics().asked == 2
    error = caught.value
    assert error.text == "no" and error.usage.output_tokens == 2 and not Retry(on=Exception).repeats(error)


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_an_answer_that_was_cut_is_not_asked_for_again(kind: str) -> None:
    """The same question would be cut in the same place."""
    async with SimulatedProvider(reply=lambda asked: '{"x": 1, "y": 2}', latency=0) as provider:
        async with client(provider, kind) as llm:
            with pytest.raises(ModelOutputError, match="in 1 answer: .*cut at max_tokens: allow more"):
                await llm.complete("a point", schema=Point, max_tokens=2)


@pytest.mark.parametrize("kind", PROVIDERS)
async def test_tools_before_the_answer(kind: str) -> None:
    """A model that wants a tool called is not asked again for the form: `parsed` is None until it answers."""
    replies: list[Any] = [ToolCall("call-1", "look", "{}"), '{"x": 1, "y": 2}']
    async with (
        SimulatedProvider(reply=lambda asked: replies.pop(0), latency=0) as provider,
        client(provider, kind) as llm,
    ):
        wants = await llm.complete("a point", schema=Point, tools=[{"name": "look"}])
        assert wants.parsed is None and wants.tool_calls[0].name == "look" and llm.statistics().reasked == 0
        assert (await llm.complete("a point", schema=Point)).parsed == Point(x=1, y=2)


REFUSALS = [
    (
        400,
        {
            "error": {
                "message": "This response_format type is unavailable now",
                "type": "invalid_request_error",
            }
        },
    ),
    (400, {"error": {"message": "This model does not support response format `json_schema`"}}),
    (422, {"error": "response_format.type: unknown variant `json_schema`, expected `text` or `json_object`"}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
async def test_a_server_without_a_mode_is_told_in_words(status: int, body: dict[str, Any]) -> None:
    """Refused once, the schema goes into the system text from then on, re-asks included."""
    texts = ['{"x": 1}', '{"x": 1, "y": 2}', '{"x": 3, "y": 4}']
    refused: list[bytes] = []

    async def script(talk: Conversation) -> None:
        while True:
            if b"response_format" in (asked := await talk.request()):
                refused.append(asked)
                await talk.send(answer(json.dumps(body).encode(), f"{status} No"))
            else:
                said = {"choices": [{"message": {"content": texts.pop(0)}}]}
                await talk.send(answer(json.dumps(said).encode()))

    async with raw_server(script) as server:
        async with LLMClient("m", base_url=server.url, api_key="") as llm:
            first = await llm.complete("a point", system="Be kind.", schema=Point)
            second = await llm.complete("another", schema=Point)
    assert (first.parsed, second.parsed) == (Point(x=1, y=2), Point(x=3, y=4)) and len(refused) == 1
    sent = json.loads(server.requests[1].partition(b"\r\n\r\n")[2])
    system = sent["messages"][0]["content"]
    assert system.startswith("Be kind.\n\n") and '"required": ["x", "y"]' in system


async def test_a_schema_that_a_mode_refuses_is_told() -> None:
    """A server that has the mode and refuses this schema is not asked in words instead."""
    wrong = {"error": {"message": "Invalid schema for response_format 'Point': 'x' is not permitted."}}
    async with raw_server(replies(answer(json.dumps(wrong).encode(), "400 No"))) as server:
        async with LLMClient("m", base_url=server.url, api_key="") as llm:
            with pytest.raises(RequestRefusedError, match="Invalid schema"):
                await llm.complete("a point", schema=Point)
    assert len(server.requests) == 1
