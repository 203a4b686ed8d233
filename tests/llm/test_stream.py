"""Streaming: pieces as they come, and everything that can go wrong in between."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import warnings
from typing import Any

import anyio
import pytest
import trio

from asyncflow import errors
from asyncflow.events import LanePaused
from asyncflow.http import Timeouts
from asyncflow.http.sse import Event, EventDecoder
from asyncflow.llm import LLMClient, Price
from asyncflow.policy.limits import Limits
from asyncflow.policy.retry import Retry
from asyncflow.testing import SimulatedProvider
from tests.http.raw import Conversation, Script, answer, raw_server

PROVIDERS = ["openai", "anthropic"]
TEXT = "The quick brown fox jumps over the lazy dog, naïvely: 狐狸 🦊."


def client(provider: SimulatedProvider, kind: str, **options: Any) -> LLMClient:
    url = provider.base_url if kind == "openai" else provider.anthropic_base_url
    return LLMClient("m", provider=kind, base_url=url, api_key="", **options)


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.asyncio
async def test_pieces_and_the_whole(kind: str) -> None:
    """The pieces together are the text; afterwards usage and why it ended are known."""
    async with (
        SimulatedProvider(reply=lambda asked: TEXT, latency=0) as provider,
        client(provider, kind) as llm,
    ):
        async with llm.stream("say it") as pieces:
            with pytest.raises(RuntimeError, match="not been read to its end"):
                pieces.completion
            texts = [text async for text in pieces]
        whole = await llm.complete("say it")
        assert pieces.completion.usage == whole.usage and llm.statistics().usage == whole.usage + whole.usage
    assert len(texts) > 5 and "".join(texts) == TEXT == pieces.completion.text
    assert pieces.completion.finish_reason == "stop" and pieces.completion.request_id


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.asyncio
async def test_faults_before_the_first_piece_are_repeated(kind: str) -> None:
    """Statuses and connections that break before anything was given out."""
    script = [500, "reset", 429, None]
    async with SimulatedProvider(latency=0, script=script, reply=lambda asked: TEXT) as provider:
        async with client(provider, kind, retry=Retry(attempts=3, wait=0)) as llm:
            texts = [text async for text in llm.stream("say it")]
            assert llm.statistics().attempts == 4
    assert "".join(texts) == TEXT


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("cut", errors.HTTPConnectionError),
        ("no_end", errors.BadAnswerError),
        ("error_event", errors.ServerError),
    ],
)
@pytest.mark.asyncio
async def test_faults_after_the_first_piece_are_told(fault: str, error: Any, kind: str) -> None:
    """What was given out stays given out; the error follows, and nothing is asked twice."""
    async with SimulatedProvider(latency=0, script=[fault], reply=lambda asked: TEXT) as provider:
        async with client(provider, kind) as llm:
            texts = []
            with pytest.raises(error):
                async for text in llm.stream("say it"):
                    texts.append(text)
            assert llm.statistics().running == 0
        assert provider.statistics().asked == 1
    assert texts and TEXT.startswith("".join(texts))


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize("fault", ["refused_first", "overloaded_first"])
@pytest.mark.asyncio
async def test_a_refusal_before_the_first_piece_is_repeated(fault: str, kind: str) -> None:
    """Told with status 200, in the stream's first event: the reader sees whole text, which is paid once."""
    limits = Limits()
    async with SimulatedProvider(latency=0, script=[fault], reply=lambda asked: TEXT) as provider:
        async with client(provider, kind, limits=limits, retry=Retry(wait=0)) as llm:
            pieces = llm.stream("say it")
            assert "".join([text async for text in pieces]) == TEXT
            now = llm.statistics()
        assert provider.statistics().asked == 2
    assert (now.attempts, now.failed, now.usage) == (2, 0, pieces.completion.usage)
    pauses = [event for event in limits.events if isinstance(event, LanePaused)]
    if fault == "refused_first":
        assert now.refused == 1 and [round(pause.seconds, 1) for pause in pauses] == [0.0]
        assert pauses[0].seconds >= 0.02  # as long as the event asks
    else:
        assert now.refused == 0 and not pauses  # one failure is none of everybody's


@pytest.mark.parametrize("kind", PROVIDERS)
@pytest.mark.parametrize(
    ("fault", "error", "pauses"),
    [("refused_event", errors.RateLimitedError, 1), ("overloaded_event", errors.ServerError, 0)],
)
@pytest.mark.asyncio
async def test_a_refusal_after_text_is_told(fault: str, error: Any, pauses: int, kind: str) -> None:
    """The reader has text, then an error that says how much came; the lane is paused; nothing is repeated."""
    limits, texts = Limits(), []
    async with SimulatedProvider(latency=0, script=[fault], reply=lambda asked: TEXT) as provider:
        async with client(provider, kind, limits=limits) as llm:
            pieces = llm.stream("say it")
            with pytest.raises(error) as caught:
                async for text in pieces:
                    texts.append(text)
            assert [text async for text in pieces] == []  # it has ended
            assert provider.statistics().asked == 1 and llm.statistics().running == 0
            assert llm.statistics().refused == pauses
            assert (await llm.complete("say it")).text == TEXT  # after the pause
    came = len("".join(texts))
    assert 0 < came < len(TEXT) and f"after {came} characters of the answer" in str(caught.value)
    assert sum(isinstance(event, LanePaused) for event in limits.events) == pauses
    assert caught.value.retry_after == (0.02 if pauses else None)
    assert not caught.value.exhausted  # whoever asks for the whole again may be served
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.asyncio
async def test_a_refusal_after_the_frame_of_an_answer() -> None:
    """What Anthropic sends before the text counts as nothing given out, and as nothing paid."""
    frame = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 9}}}
    busy = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    delta = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "ok"}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}}
    refused, good = events(frame, busy), events(frame, delta, end, {"type": "message_stop"})

    async def script(talk: Conversation) -> None:
        await (refused if talk.number == 1 else good)(talk)

    async with raw_server(script) as server:
        url = server.url.removesuffix("/v1")
        async with LLMClient("m", provider="anthropic", base_url=url, api_key="", retry=Retry(wait=0)) as llm:
            assert [text async for text in llm.stream("x")] == ["ok"]
            assert (llm.statistics().usage.input_tokens, llm.statistics().attempts) == (9, 2)


@pytest.mark.asyncio
async def test_a_stream_that_is_let_go_is_closed() -> None:
    """A `break` without `async with` closes the connection soon, and gives the only slot back."""
    async with SimulatedProvider(latency=0, seconds_per_token=0.001) as provider:
        async with client(provider, "openai", concurrency=1) as llm:
            for _ in range(3):
                async for _text in llm.stream("x"):
                    break
            assert (await llm.complete("x")).text
            assert llm.statistics().running == 0


@pytest.mark.asyncio
async def test_leaving_early_stops_the_provider() -> None:
    """The connection is closed and the slot is free again."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        chunk = {"choices": [{"delta": {"content": "one "}}]}
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await talk.send(f"data: {json.dumps(chunk)}\n\n".encode())
        await talk.server.hang(talk)

    async with raw_server(script) as server:
        async with LLMClient("m", base_url=server.url, api_key="", concurrency=1) as llm:
            for _ in range(2):
                async with llm.stream("x") as pieces:
                    assert await anext(pieces) == "one "
                    assert llm.statistics().running == 1
                assert llm.statistics().running == 0
                await server.left.wait()
                server.left.clear()
            reading = asyncio.create_task(anext(llm.stream("x")))
            assert await reading == "one "


def events(*data: Any, end: bytes = b"") -> Script:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n")
        for one in data:
            text = one if isinstance(one, str) else json.dumps(one)
            await talk.send(f"data: {text}\n\n".encode())
        await talk.send(end)

    return script


def piece(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("script", "result"),
    [
        (events(piece("a"), piece("b", "stop")), "ab"),  # [DONE] is missing, but the answer has ended
        (events(piece("a"), "[DONE]"), "a"),
        (events({"choices": []}, piece("a", "length"), {"choices": [], "usage": {}}, "[DONE]"), "a"),
        (events(piece("", "stop"), "[DONE]"), ""),
        (
            events({"choices": [{"index": 1, "delta": {"content": "other"}}]}, piece("a", "stop"), "[DONE]"),
            "a",
        ),
        (events("[DONE]"), errors.BadAnswerError),
        (events(piece("a")), errors.BadAnswerError),
        (events(), errors.BadAnswerError),
        (events("{not json"), errors.BadAnswerError),
        (events("[1]"), errors.BadAnswerError),
        (events({"error": {"message": "no credit", "code": 402}}), errors.AccessDeniedError),
        (events(piece("a"), end=b"data: " + b"x" * 70_000_000), errors.AnswerTooLargeError),
    ],
)
@pytest.mark.asyncio
async def test_odd_streams(script: Script, result: Any) -> None:
    """Ends that are missing, empty answers, events that are none."""
    async with raw_server(script) as server:
        async with LLMClient("m", base_url=server.url, api_key="", retry=None) as llm:
            stream = llm.stream("x")
            if isinstance(result, str):
                assert "".join([text async for text in stream]) == result == stream.completion.text
            else:
                with pytest.raises(result):
                    async for _ in stream:
                        pass


@pytest.mark.asyncio
async def test_a_refusal_is_told_as_in_a_whole_answer() -> None:
    """Why the model does not answer comes as text, and the finish reason says that it is no answer."""
    refusal = {"choices": [{"delta": {"refusal": "I cannot."}, "finish_reason": None}]}
    async with raw_server(events(refusal, piece("", "stop"), "[DONE]")) as server:
        async with LLMClient("m", base_url=server.url, api_key="") as llm:
            async with llm.stream("x") as pieces:
                assert [text async for text in pieces] == ["I cannot."]
            assert pieces.completion.finish_reason == "content_filter"


@pytest.mark.asyncio
async def test_an_event_that_is_called_an_error() -> None:
    """Some servers name the event, and have no `error` in its data."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await talk.send(b'event: error\ndata: {"message": "boom"}\n\ndata: [DONE]\n\n')

    async with raw_server(script) as server:
        async with LLMClient("m", base_url=server.url, api_key="", retry=None) as llm:
            with pytest.raises(errors.ServerError, match="boom"):
                await anext(llm.stream("x"))


@pytest.mark.asyncio
async def test_a_server_that_does_not_stream() -> None:
    """A whole answer comes as one piece."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(answer(json.dumps({"choices": [{"message": {"content": "all of it"}}]}).encode()))

    async with raw_server(script) as server:
        async with LLMClient("m", base_url=server.url, api_key="") as llm:
            assert [text async for text in llm.stream("x")] == ["all of it"]


@pytest.mark.asyncio
async def test_silence_in_the_middle() -> None:
    """Silence ends at the read timeout or at the total; comments that keep alive do not put the total off."""

    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await talk.server.hang(talk)

    async def comments(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            await talk.send(b": keep-alive\n\n")
            await asyncio.sleep(0.02)

    for script, phase, read in ((silent, "read", 0.1), (silent, "total", 60), (comments, "total", 0.1)):
        async with raw_server(script) as server:
            timeout = Timeouts(connect=5, read=read, total=0.2)
            async with LLMClient("m", base_url=server.url, api_key="", retry=None, timeout=timeout) as llm:
                with pytest.raises(errors.HTTPTimeoutError) as caught:
                    await anext(llm.stream("x"))
                assert caught.value.phase == phase


@pytest.mark.parametrize(
    "options",
    [{"concurrency": 1}, {"price": Price(0.0, 1.0), "max_cost": 1e-4}, {"concurrency": 2}, {}],
)
@pytest.mark.asyncio
async def test_a_call_inside_an_open_stream(
    options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Where it waits for the stream that its own task holds, which would be for ever, a warning says so."""
    waits = options.get("concurrency") == 1 or "max_cost" in options
    async with SimulatedProvider(latency=0, reply=lambda asked: TEXT) as provider:
        async with client(provider, "openai", limits=Limits(), **options) as llm:
            async with llm.stream("outer", max_tokens=60) as pieces:
                await anext(pieces)
                inner = asyncio.create_task(llm.complete("another task's", max_tokens=60))
                if not waits:
                    await inner
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not caplog.records
                with anyio.move_on_after(0.02 if waits else None) as scope:
                    await llm.complete("inner", max_tokens=60)
                assert scope.cancelled_caught == waits
            assert (await inner).text and (await llm.complete("after", max_tokens=60)).text
    assert [record.message.count("its own task holds open") for record in caplog.records] == [1] * waits


def test_on_trio() -> None:
    """The same on trio."""

    async def main(url: str) -> str:
        async with LLMClient("m", base_url=url, api_key="") as llm:
            return "".join([text async for text in llm.stream("x")])

    with SimulatedProvider(latency=0, reply=lambda asked: TEXT) as provider:
        assert trio.run(main, provider.base_url) == TEXT


@pytest.mark.parametrize("how", ["left", "cancelled"])
def test_left_early_on_trio(how: str) -> None:
    """Nothing is left to the garbage collector, for which trio would warn."""

    async def main(url: str) -> None:
        async with LLMClient("m", base_url=url, api_key="") as llm:
            pieces = llm.stream("x")
            with trio.CancelScope() as scope:
                async with pieces:
                    async for _ in pieces:
                        if how == "cancelled":
                            scope.cancel()
                        else:
                            break
            del pieces
            gc.collect()

    with SimulatedProvider(latency=0, seconds_per_token=0.001, reply=lambda asked: TEXT) as provider:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            trio.run(main, provider.base_url)
    assert [str(one.message) for one in seen] == []


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_events_wherever_they_are_cut(size: int) -> None:
    """All three line ends, comments, several data lines, names, ids, a byte order mark, multi-byte text."""
    body = (
        "\ufeff: hi\r\ndata: a\r\ndata:b\r\n\r\nevent: x\ndata: 狐狸\n\nid: 1\rretry: 5\rdata\r\r"
        "event: nothing\n\ndata: [DONE]\n\ndata: unfinished"
    ).encode()
    decoder = EventDecoder()
    found = [one for start in range(0, len(body), size) for one in decoder.feed(body[start : start + size])]
    assert found == [
        Event("message", "a\nb"),
        Event("x", "狐狸"),
        Event("message", ""),
        Event("message", "[DONE]"),
    ]
