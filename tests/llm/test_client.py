"""asyncflow/llm/client.py: one call to a model, done well."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from typing import Any

import pytest

from asyncflow import errors
from asyncflow.http import HTTPClient
from asyncflow.llm import LLMClient, Usage
from asyncflow.policy.retry import Retry
from asyncflow.testing import Asked, SimulatedProvider
from tests.http.raw import RawServer, answer, raw_server, replies

KEY = "sk-canary-0123456789abcdef"
FAST = Retry(attempts=3, wait=0.0)


def chat(text: str | None = "hello", **more: object) -> bytes:
    message = {"role": "assistant", "content": text}
    body = {"model": "m-1", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    body["usage"] = {"prompt_tokens": 7, "completion_tokens": 2}
    return json.dumps(body | more).encode()


def client(server: RawServer, **options: object) -> LLMClient:
    options = {"api_key": KEY, "retry": FAST} | options
    return LLMClient("m", base_url=server.url + "/v1", **options)  # type: ignore[arg-type]


@pytest.mark.asyncio
async def test_complete() -> None:
    """A prompt in, text, usage and why it ended out."""
    reply = answer(chat(), headers="x-request-id: req-9\r\n")
    async with raw_server(replies(reply)) as server, client(server) as llm:
        done = await llm.complete("Hi", system="Be short.", max_tokens=5, temperature=0.5, extra={"seed": 1})
        statistics = llm.statistics()
    assert (done.text, done.finish_reason, done.model, done.request_id) == ("hello", "stop", "m-1", "req-9")
    assert done.usage == Usage(7, 2) and done.parsed is None and done.cost is None
    assert (statistics.calls, statistics.attempts, statistics.usage) == (1, 1, Usage(7, 2))
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions ") and f"Bearer {KEY}".encode() in head
    assert json.loads(body) == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}],
        "max_tokens": 5,
        "temperature": 0.5,
        "seed": 1,
    }


@pytest.mark.asyncio
async def test_retries_keep_their_idempotency_key() -> None:
    """A server's failure is repeated; all attempts of one call carry one key, and each call its own."""
    answers = (answer(b"oops", "503 Busy"), answer(b"{", "200 OK"), answer(chat()), answer(chat()))
    async with raw_server(replies(*answers)) as server, client(server) as llm:
        assert (await llm.complete("Hi")).text == "hello"
        await llm.complete("Hi")
        assert llm.statistics().attempts == 4
    keys = [line for request in server.requests for line in request.split(b"\r\n") if b"idempotency" in line]
    assert len(keys) == 4 and len(set(keys)) == 2 and keys[0] == keys[2]


@pytest.mark.asyncio
async def test_attempts_used_up_say_so() -> None:
    """The error of a client that has tried often enough is one that a node does not repeat."""
    async with raw_server(replies(answer(b'{"error": {"message": "down"}}', "500 X"))) as server:
        async with client(server) as llm:
            with pytest.raises(errors.ServerError, match="500 X: down") as caught:
                await llm.complete("Hi")
    assert caught.value.exhausted and caught.value.attempts == len(server.requests) == 3
    assert not Retry(on=Exception).repeats(caught.value)


@pytest.mark.asyncio
async def test_without_retry_nothing_is_repeated() -> None:
    """`retry=None` leaves repeating to the caller, and the error says that it may be repeated."""
    async with raw_server(replies(answer(b"", "429 Slow"))) as server, client(server, retry=None) as llm:
        with pytest.raises(errors.RateLimitedError) as caught:
            await llm.complete("Hi")
    assert len(server.requests) == 1 and not caught.value.exhausted and Retry().repeats(caught.value)


@pytest.mark.asyncio
async def test_a_refusal_does_not_eat_attempts() -> None:
    """429 has a budget of its own: three of them leave a call with one attempt its answer."""
    refused = answer(b"{}", "429 Slow", "retry-after-ms: 1\r\n")
    async with raw_server(replies(*[refused] * 3, answer(chat()))) as server:
        async with client(server, retry=Retry(attempts=1)) as llm:
            assert (await llm.complete("Hi")).text == "hello"
            assert llm.statistics().refused == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 500])
@pytest.mark.asyncio
async def test_the_key_appears_nowhere(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """A server that repeats the key in its error does not get it into ours, nor into repr, pickle or logs."""
    caplog.set_level(logging.DEBUG)
    echo = json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}).encode()
    async with raw_server(replies(answer(echo, f"{status} No"))) as server, client(server) as llm:
        with pytest.raises(errors.HTTPError) as caught:
            await llm.complete("Hi")
        seen = repr(llm) + repr(llm.statistics()) + repr(llm.__dict__) + repr(vars(caught.value))
    seen += "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert KEY not in seen and KEY.encode() not in pickle.dumps(caught.value)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b'{"choices": []}', "no choices"),
        (b'{"choices": null}', "no choices"),
        (b"[]", "no choices"),
        (b'{"choices": [{"message": null}]}', "no message"),
        (chat(None), "no content"),
        (b"<html><body>Sign in to the proxy</body></html>", "Sign in to the proxy"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
    ],
)
@pytest.mark.asyncio
async def test_answers_that_are_none(body: bytes, why: str) -> None:
    """A good status with a body that is no answer is asked for again, then told."""
    async with raw_server(replies(answer(body))) as server, client(server) as llm:
        with pytest.raises(errors.BadAnswerError, match=why):
            await llm.complete("Hi")
    assert len(server.requests) == 3


@pytest.mark.asyncio
async def test_answers_out_of_the_ordinary() -> None:
    """Missing usage, a refusal, nothing but tools, half a surrogate pair, a failure told in a 200."""
    tool = {"id": "t1", "function": {"name": "f", "arguments": "{}"}}
    choices = (
        {"message": {"content": "a\ud83d"}},
        {"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"},
        {"message": {"content": None, "tool_calls": [tool]}, "finish_reason": "tool_calls"},
        {"message": {"content": None}, "finish_reason": "length"},
        {"message": {"content": [{"type": "text", "text": "part"}]}},
    )
    bodies = [answer(json.dumps({"choices": [choice]}).encode()) for choice in choices]
    bodies.append(answer(b'{"error": {"code": 403, "message": "no credit"}}'))
    async with raw_server(replies(*bodies)) as server, client(server) as llm:
        odd = await llm.complete("a\ud83d")
        assert odd.text == "a\ud83d" and not odd.usage.reported and odd.usage.input_tokens == 0
        refused = await llm.complete("x")
        assert (refused.text, refused.finish_reason) == ("I will not", "content_filter")
        tools = await llm.complete("x")
        assert tools.text == "" and tools.tool_calls[0].name == "f"
        assert (await llm.complete("x")).finish_reason == "length"
        assert (await llm.complete("x")).text == "part"
        with pytest.raises(errors.AccessDeniedError, match="no credit"):
            await llm.complete("x")


@pytest.mark.asyncio
async def test_concurrency_bounds_the_wire() -> None:
    """Never more than `concurrency` requests are with the provider."""
    running, most = 0, 0

    async def reply(asked: Asked) -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return asked.prompt

    async with SimulatedProvider(reply=reply, latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="", concurrency=3) as llm:
            done = await asyncio.gather(*(llm.complete(str(i)) for i in range(12)))
    assert [one.text for one in done] == [str(i) for i in range(12)] and most == 3


@pytest.mark.asyncio
async def test_cancelled_on_the_wire() -> None:
    """A cancelled call closes its connection, gives its slot back, and leaves the client as good as new."""
    hang = True

    async def script(talk) -> None:  # type: ignore[no-untyped-def]
        await talk.request()
        if hang:
            await talk.server.hang(talk)
        await talk.send(answer(chat()))

    async with raw_server(script) as server, client(server, concurrency=1) as llm:
        call = asyncio.create_task(llm.complete("Hi"))
        await server.reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await server.left.wait()
        hang = False
        assert (await llm.complete("Hi")).text == "hello"
        assert llm.statistics().running == 0 and llm.statistics().failed == 0


def test_key_and_place_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is read when the client is made, only where nothing was passed."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="no API key for https://api.openai.com/v1"):
        LLMClient("m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1/")
    assert LLMClient("m").base_url == "http://127.0.0.1:1/v1"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert KEY not in repr(LLMClient("m")) and "127.0.0.1:1" in repr(LLMClient("m"))
    assert LLMClient("m", base_url="http://x/v1").base_url == "http://x/v1"


@pytest.mark.asyncio
async def test_a_base_url_with_a_query_and_a_password() -> None:
    """A query stays behind the path of each call, and neither it nor a password is shown."""
    body = b'{"choices": [{"message": {"content": "hi"}}], "data": [{"index": 0, "embedding": [1.0]}]}'
    async with raw_server(replies(answer(body))) as server:
        url = server.url.replace("http://", "http://me:SECRET@") + "/openai/?key=SECRET"
        async with LLMClient("m", base_url=url, api_key="") as llm:
            await llm.complete("x")
            await llm.embed(["x"])
            assert llm.base_url == f"{server.url}/openai" and "SECRET" not in repr(llm)
    asked = [request.split(b" ", 2)[1] for request in server.requests]
    assert asked == [b"/openai/chat/completions?key=SECRET", b"/openai/embeddings?key=SECRET"]


def test_wrong_arguments() -> None:
    """Told when the client is made, before a call is paid."""
    with pytest.raises(ValueError, match="'openai'"):
        LLMClient("m", provider="nobody", api_key="")
    for key in ("sk-canary…", "sk-\ncanary"):
        with pytest.raises(ValueError, match="api_key holds") as caught:
            LLMClient("m", api_key=key)
        assert "canary" not in repr(caught.value) and caught.value.__context__ is None
    with pytest.raises(ValueError, match="at least 1"):
        LLMClient("m", api_key="", concurrency=0)
    with pytest.raises(TypeError, match="auto"):
        LLMClient("m", api_key="", base_url="http://x", concurrency="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="price"):
        LLMClient("m", api_key="", base_url="http://x", max_cost=1.0)
    with pytest.raises(ValueError, match="above 0"):
        LLMClient("m", api_key="", timeout=0)


@pytest.mark.asyncio
async def test_wrong_prompts() -> None:
    """A prompt that is none is told at once."""
    async with LLMClient("m", base_url="http://127.0.0.1:1", api_key="") as llm:
        for prompt in (None, 3, {"role": "user"}, ["text"]):
            with pytest.raises(TypeError, match="message"):
                await llm.complete(prompt)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="at least one"):
            await llm.complete([])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_tokens": 0}, "max_tokens=0: at least 1"),
        ({"max_tokens": "5"}, "max_tokens='5': a whole number"),
        ({"temperature": "hot"}, "temperature='hot': a number"),
        ({"stop": 5}, "stop=5: a text or a list"),
        ({"tools": {"name": "x"}}, "tools=.*a list of tools"),
        ({"extra": [1]}, "extra=.*a dict"),
        ({"schema": object()}, "a class, not an instance"),
        ({"schema": {"type": "text"}}, "'text' is no type"),
    ],
)
@pytest.mark.asyncio
async def test_options_that_no_provider_can_mean(options: dict[str, Any], says: str) -> None:
    """Told before a call is paid, and what is wrong with them."""
    async with SimulatedProvider(latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            with pytest.raises((TypeError, ValueError), match=says):
                await llm.complete("x", **options)
    assert not provider.log


@pytest.mark.parametrize(
    ("kind", "path", "hint"),
    [("openai", "", "it mostly ends in /v1"), ("anthropic", "/v1", "no /v1 at its end")],
)
@pytest.mark.asyncio
async def test_a_wrong_base_url(kind: str, path: str, hint: str) -> None:
    """The 404 of a forgotten /v1, or of one too many, says what to look at; a call's own path is refused."""
    async with SimulatedProvider(latency=0) as provider:
        url = provider.anthropic_base_url + path
        async with LLMClient("m", provider=kind, base_url=url, api_key="") as llm:
            with pytest.raises(errors.RequestRefusedError, match=f"404.*model's name, and base_url.*{hint}"):
                await llm.complete("x")
            with pytest.raises(errors.RequestRefusedError, match=hint):
                await anext(llm.stream("x"))
    with pytest.raises(ValueError, match="leave '/chat/completions' out"):
        LLMClient("m", base_url="http://h/v1/chat/completions", api_key="")


@pytest.mark.asyncio
async def test_texts_to_embed() -> None:
    """Anything that yields texts; one text alone, nothing, and what is no text are told before a call."""
    async with SimulatedProvider(latency=0) as provider:
        async with LLMClient("m", base_url=provider.base_url, api_key="") as llm:
            assert len((await llm.embed(str(number) for number in range(3))).vectors) == 3
            for texts in ("one", [], [None], iter(())):
                with pytest.raises(ValueError, match="a list of texts"):
                    await llm.embed(texts)  # type: ignore[arg-type]
    assert len(provider.log) == 1


def test_a_second_event_loop_is_told() -> None:
    """A client that was used in one event loop says so in the next, instead of hanging."""
    provider = SimulatedProvider(latency=0)
    with provider:
        llm = LLMClient("m", base_url=provider.base_url, api_key="")

        async def ask() -> str:
            return (await llm.complete("x")).text

        with asyncio.Runner() as first:
            assert first.run(ask())
            with pytest.raises(RuntimeError, match="event loop"), asyncio.Runner() as second:
                second.run(ask())
            assert first.run(ask())
            first.run(llm.aclose())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"retry": 3}, "retry=3: give a Retry"),
        ({"price": (0.25, 2.0)}, r"price=\(0.25, 2.0\): give a Price"),
        ({"limits": 600}, "limits=600: give a Limits"),
        ({"model": None}, "model=None: the model's name"),
    ],
)
def test_what_would_only_fail_in_a_paid_call_is_refused_at_once(option: Any, said: str) -> None:
    """A number where a Retry, a Price or a Limits belongs is told before anything is sent."""
    with pytest.raises(TypeError, match=said):
        LLMClient(**{"model": "m", "base_url": "http://127.0.0.1:1/v1", "api_key": ""} | option)
    if option.keys() & {"retry", "limits"}:
        with pytest.raises(TypeError, match=said):
            HTTPClient(**option)
