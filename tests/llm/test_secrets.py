"""Keys: sent to the provider, and found nowhere else, whatever happens and whoever writes it down."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from asyncflow import Failed, amap
from asyncflow.errors import HTTPError
from asyncflow.http import HTTPClient, SlotTransport
from asyncflow.llm import LLMClient
from asyncflow.policy import Limits
from asyncflow.policy.retry import Retry
from tests.http.raw import Conversation, Script, answer, raw_server, replies

KEY = "sk-canary-0123456789abcdef"

ECHO = json.dumps({"error": {"message": f"no such key: {KEY}", "code": KEY, "type": KEY}}).encode()
GOOD = {
    "choices": [{"message": {"content": "hello"}}],
    "content": [{"type": "text", "text": "hello"}],
}


async def cut(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + KEY.encode())


async def silent(talk: Conversation) -> None:
    await talk.request()
    await talk.server.hang(talk)


ENDS: dict[str, Script] = {
    "answered": replies(answer(json.dumps(GOOD).encode())),
    **{f"status {code}": replies(answer(ECHO, f"{code} X")) for code in (400, 401, 404, 429, 500)},
    "reason": replies(answer(b"", f"400 {KEY}")),
    "told in a 200": replies(answer(ECHO)),
    "request id": replies(answer(b"{}", "500 X", f"x-request-id: {KEY}\r\nrequest-id: {KEY}\r\n")),
    "html": replies(answer(f"<html>{KEY}</html>".encode())),
    "redirect": replies(answer(b"", "302 X", f"Location: http://{KEY}@127.0.0.1:1/{KEY}?{KEY}\r\n")),
    "bad status line": replies(f"HTTP/1.1 abc {KEY}\r\n\r\n".encode()),
    "bad header line": replies(f"HTTP/1.1 200 OK\r\nauth {KEY}\r\n\r\n".encode()),
    "redirect elsewhere": replies(answer(b"", "307 X", f"Location: http://127.0.0.1:1/{KEY}?{KEY}\r\n")),
    "redirect, then nothing": replies(answer(b"", "307 X", "Location: /again\r\n"), b"SSH-2.0\r\n\r\n"),
    "not HTTP": replies(b"SSH-2.0\r\n\r\n"),
    "cut": cut,
    "silent": silent,
}
SAID_IN_HEADERS = {
    *("reason", "request id", "redirect", "redirect elsewhere", "bad status line", "bad header line")
}
WIRES: dict[str, Callable[[], httpx.AsyncClient | None]] = {
    "aiohttp": lambda: None,
    "httpx": lambda: httpx.AsyncClient(trust_env=False),
    "slots": lambda: httpx.AsyncClient(transport=SlotTransport()),
}


@pytest.mark.parametrize(
    ("end", "kind", "wire"),
    [
        *((end, kind, "aiohttp") for end in ENDS for kind in ("openai", "anthropic")),
        *((end, "openai", wire) for end in ENDS for wire in ("httpx", "slots") if end not in SAID_IN_HEADERS),
    ],
)
@pytest.mark.asyncio
async def test_a_key_is_found_nowhere(
    end: str, kind: str, wire: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in errors, outcomes, pickles, events, statistics, `repr`, nor in anybody's log at its lowest level.

    The server says it wherever it can. What httpcore itself logs of an answer's first lines is not in our
    hands, so over httpx the server says it in bodies only.
    """
    caplog.set_level(logging.DEBUG)
    for name in ("asyncflow", "aiohttp", "httpx", "httpcore", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    asyncio.get_running_loop().set_debug(True)
    limits, own = Limits(), WIRES[wire]()
    seen: list[Any] = []
    async with raw_server(ENDS[end]) as server:
        retry = None if end == "status 429" else Retry(attempts=2, wait=0)
        async with LLMClient(
            "m",
            provider=kind,
            base_url=server.url,
            api_key=KEY,
            http=own,
            limits=limits,
            retry=retry,
            timeout=0.2,
        ) as llm:

            async def ask(text: str) -> str:
                return (await llm.complete(text)).text

            async def read(text: str) -> str:
                return "".join([piece async for piece in llm.stream(text)])

            for call in (ask, read):
                for outcome in await amap(call, ["x"], on_error="continue"):
                    seen.append(outcome)
                    if isinstance(outcome, Failed):
                        assert isinstance(outcome.error, HTTPError)
                        seen += [vars(outcome.error), traceback.format_exception(outcome.error)]
                        seen += [outcome.traceback, pickle.dumps(outcome.error), pickle.dumps(outcome)]
            seen += [llm, vars(llm), llm.statistics(), llm._http, vars(llm._http), vars(llm._http._wire)]
            seen += [limits, list(limits.events), limits.statistics(), pickle.dumps(list(limits.events))]
        if own is not None:
            await own.aclose()
        assert server.requests and all(KEY.encode() in request for request in server.requests)
    assert KEY not in repr(seen) and KEY not in caplog.text


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "end", ["bad status line", "bad header line", "redirect, then nothing", "cut", "silent"]
)
@pytest.mark.asyncio
async def test_locals(end: str, wire: str, kind: str) -> None:
    """Nor in the locals of the frames of an error and of its causes, which some tools print."""
    own, seen = WIRES[wire](), []
    async with raw_server(ENDS[end]) as server:
        client = LLMClient(
            "m", provider=kind, base_url=server.url, api_key=KEY, http=own, retry=None, timeout=0.2
        )
        async with client as llm:
            for call in (llm.complete("x"), anext(llm.stream("x"))):
                with pytest.raises(HTTPError) as caught:
                    await call
                error: BaseException | None = caught.value
                seen += traceback.format_exception(error)
                while error is not None:
                    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
                    seen += [repr(frame.f_locals) for frame in frames if frame.f_globals is not globals()]
                    error = error.__cause__ or error.__context__
        if own is not None:
            await own.aclose()
    assert len(seen) > 2 and KEY not in repr(seen)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("end", ["bad header line", "cut", "silent"])
@pytest.mark.asyncio
async def test_an_error_of_the_callers_own_is_left_alone(end: str, wire: str) -> None:
    """A call made while another error is dealt with fails for itself: that one keeps its words and frames."""
    own = WIRES[wire]()
    async with raw_server(ENDS[end]) as server:
        client = LLMClient("m", base_url=server.url, api_key=KEY, http=own, retry=None, timeout=0.2)
        async with client as llm:
            for said in ("mine", f"mine, which says {KEY}"):
                for call in (llm.complete("x"), anext(llm.stream("x"))):
                    try:
                        raise ValueError(said)
                    except ValueError as mine:
                        with pytest.raises(HTTPError):
                            await call
                        assert mine.__traceback__ is not None and str(mine) == said
        if own is not None:
            await own.aclose()


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "api-key", "Cookie", "X-Goog-Api-Key"])
@pytest.mark.asyncio
async def test_headers_of_any_endpoint(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """The same for `HTTPClient`, whichever header carries it, and for keys in addresses."""
    caplog.set_level(logging.DEBUG)
    async with raw_server(replies(answer(ECHO, "403 X"))) as server:
        url = server.url.replace("//", f"//me:{KEY}@") + f"/x?key={KEY}#{KEY}"
        limits = Limits()
        async with HTTPClient(headers={name: KEY}, limits=limits, base_url=url) as http:
            with pytest.raises(HTTPError) as caught:
                await http.get(url)
            seen = repr([http, caught.value, vars(caught.value), limits, list(limits.events)])
    assert KEY not in seen + caplog.text and KEY.encode() not in pickle.dumps(caught.value)
