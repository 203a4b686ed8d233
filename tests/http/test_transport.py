"""asyncflow/http/transport.py: httpx's types over aiohttp's connections."""

from __future__ import annotations

import asyncio
import gzip
import json
import traceback

import httpx
import pytest

from asyncflow import errors
from asyncflow.http import AiohttpTransport, HTTPClient
from tests.http.raw import Conversation, answer, raw_server, replies

#: Said once, so that no line of source in a traceback holds it.
SECRET = "hidden"


@pytest.mark.asyncio
async def test_serves_an_httpx_client() -> None:
    """A user's own httpx client works over it: methods, headers, bodies, streams."""
    async with raw_server(replies(answer(b'{"a": 1}'))) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            response = await client.post(server.url + "/x?y=%2F", json={"b": 2}, headers={"X-One": "1"})
            assert response.json() == {"a": 1}
            async with client.stream("GET", server.url) as stream:
                assert await stream.aread() == b'{"a": 1}'
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x?y=%2F HTTP/1.1\r\n")
    assert b"\r\nx-one: 1" in head.lower() and json.loads(body) == {"b": 2}
    assert head.lower().count(b"\r\nhost:") == head.lower().count(b"\r\ncontent-length:") == 1


@pytest.mark.asyncio
async def test_keeps_the_connection() -> None:
    """Answers read to their end give their connection back."""
    async with raw_server(replies(answer())) as server:
        transport = AiohttpTransport()
        async with httpx.AsyncClient(transport=transport) as client:
            for _ in range(5):
                await client.get(server.url)
        assert server.connections == 1


@pytest.mark.asyncio
async def test_a_stream_left_early_closes_its_connection() -> None:
    """An answer that is not read to its end takes its connection with it, so nobody reads its rest."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345")
        await talk.server.hang(talk)

    async with raw_server(script) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            async with client.stream("GET", server.url) as stream:
                async for piece in stream.aiter_raw():
                    assert piece == b"12345"
                    break
            await server.left.wait()


@pytest.mark.asyncio
async def test_compressed_answers_are_decompressed_once() -> None:
    """gzip is undone below httpx, which must not see its header any more."""
    packed = gzip.compress(b"text " * 1000)
    reply = answer(packed, headers="Content-Encoding: gzip\r\nContent-Type: text/plain\r\n")
    async with raw_server(replies(reply)) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            assert (await client.get(server.url)).text == "text " * 1000


@pytest.mark.asyncio
async def test_a_stream_of_the_users_is_sent() -> None:
    """A body that comes in pieces goes out in chunks."""

    async def pieces():  # type: ignore[no-untyped-def]
        yield b"one"
        yield b"two"

    async def script(talk: Conversation) -> None:
        await talk.reader.readuntil(b"\r\n\r\n")
        talk.server.requests.append(await talk.reader.readuntil(b"0\r\n\r\n"))
        await talk.send(answer())

    async with raw_server(script) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport()) as client:
            await client.post(server.url, content=pieces())
    assert b"one" in server.requests[0] and b"two" in server.requests[0]


@pytest.mark.asyncio
async def test_cookies_are_not_kept() -> None:
    """No state travels from one call to the next."""
    reply = answer(headers="Set-Cookie: a=b\r\n")
    async with raw_server(replies(reply)) as server:
        transport = AiohttpTransport()
        for _ in range(2):
            await transport.handle_async_request(httpx.Request("GET", server.url))
        await transport.aclose()
    assert b"cookie" not in server.requests[-1].lower()


def test_a_second_event_loop_is_told() -> None:
    """Connections belong to a loop, so another one is an error with a clear text, not a hang."""
    transport = AiohttpTransport()

    async def open_here() -> None:
        with pytest.raises(httpx.ConnectError):
            await transport.handle_async_request(httpx.Request("GET", "http://127.0.0.1:1"))

    asyncio.run(open_here())
    with pytest.raises(RuntimeError, match="one client per loop"):
        asyncio.run(open_here())
    asyncio.run(transport.aclose())


@pytest.mark.asyncio
async def test_many_at_once() -> None:
    """There is no pool limit of its own: all of 200 calls are on the wire at once."""
    arrived = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        if len(talk.server.requests) == 200:
            arrived.set()
        await arrived.wait()
        await talk.send(answer())

    async with raw_server(script) as server:
        async with httpx.AsyncClient(
            transport=AiohttpTransport(), limits=httpx.Limits(max_connections=1)
        ) as client:
            done = await asyncio.gather(*(client.get(server.url) for _ in range(200)))
    assert {response.status_code for response in done} == {200}


@pytest.mark.parametrize("size_bytes", [1, 100_000])
@pytest.mark.asyncio
async def test_no_address_in_errors_texts(size_bytes: int) -> None:
    """A key in the address is not in the error's text, nor in its traceback, whichever way the call went."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"NOT HTTP\r\n\r\n")

    async with raw_server(script) as server:
        async with HTTPClient(retry=None) as http:
            with pytest.raises(errors.HTTPError) as caught:
                await http.post(f"{server.url}/v1?key={SECRET}", content=b"x" * size_bytes)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.asyncio
async def test_no_password_of_a_proxy_in_errors_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that refuses its user is told of without the password."""
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with raw_server(replies(answer(b"", "407 Who"))) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:{SECRET}@127.0.0.1:{server.port}")
        async with HTTPClient(retry=None) as http:
            with pytest.raises(errors.HTTPError, match="407") as caught:
                await http.get(f"https://a.test/v1?key={SECRET}")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
