"""asyncflow/http/direct.py: bytes out, a whole answer in, without a session between."""

from __future__ import annotations

import asyncio
import gzip
import pickle

import aiohttp
import httpx
import pytest

from asyncflow import errors
from asyncflow.http import AiohttpTransport, HTTPClient
from asyncflow.http.answer import Answer, Flow
from asyncflow.http.call import Call, Target
from asyncflow.http.direct import head_of
from asyncflow.http.exchange import Exchange
from asyncflow.http.turns import Turns
from tests.http.raw import Conversation, answer, raw_server, replies


@pytest.mark.parametrize(
    ("method", "size_bytes", "length"), [("GET", 0, None), ("POST", 0, b"0"), ("PUT", 7, b"7")]
)
def test_the_head(method: str, size_bytes: int, length: bytes | None) -> None:
    """Host and Content-Length are written here, once, whatever the caller's headers say."""
    mine = {"Host": "other", "content-length": "99", "Transfer-Encoding": "chunked", "X-One": "ü"}
    target = Target(method, httpx.URL("http://a.b:81/x%2Fy?z=ü"), httpx.Headers(mine, encoding="utf-8"))
    for _ in range(2):  # what the target keeps is good for the next call
        head = head_of(Call(target, b"x" * size_bytes, {"x-two": "2", "Connection": "close"}))
    first, *lines = head.split(b"\r\n")
    assert first == method.encode() + b" /x%2Fy?z=%C3%BC HTTP/1.1"
    assert lines == [
        b"Host: a.b:81",
        b"X-One: " + "ü".encode(),
        b"x-two: 2",
        *([] if length is None else [b"Content-Length: " + length]),
        b"",
        b"",
    ]


def test_a_call_replaces_its_targets_headers() -> None:
    """Of a header that both have the call's counts, and the next call has the target's again."""
    target = Target("GET", httpx.URL("http://a.b"), httpx.Headers({"accept": "*/*"}))
    assert (
        b"\r\naccept: text/plain\r\n\r\n" in head_of(Call(target, headers={"Accept": "text/plain"})).lower()
    )
    assert b"\r\naccept: */*\r\n\r\n" in head_of(Call(target)).lower()


@pytest.mark.parametrize("name", ["x", "x-two"])
@pytest.mark.parametrize("value", ["a\r\nx-evil: 1", "a\nb", "a\rb", "a\0b"])
@pytest.mark.asyncio
async def test_a_header_is_one_line(name: str, value: str) -> None:
    """A value that would begin another header is refused, not repeated, and nothing is sent."""
    async with raw_server(replies(answer())) as server:
        async with HTTPClient() as http:
            with pytest.raises(errors.RequestRefusedError, match="line break") as caught:
                await http.get(server.url, headers={name: value})
    assert not caught.value.sent and not server.requests


@pytest.mark.parametrize("address", ["ftp://127.0.0.1/x", "http:///x"])
@pytest.mark.asyncio
async def test_addresses_that_are_none(address: str) -> None:
    """A scheme that is not HTTP, or no host, told by the transport itself: clients look before."""
    transport = AiohttpTransport()
    call = Call(Target("GET", httpx.URL(address), httpx.Headers()))
    direct = transport.direct(call)
    assert direct is not None
    with pytest.raises(httpx.UnsupportedProtocol, match="http or https"):
        await direct.exchange(call, 1000)
    await transport.aclose()


@pytest.mark.asyncio
async def test_signs_of_life_are_passed_over() -> None:
    """Answers below 200 are not the answer."""
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + b"HTTP/1.1 100 Continue\r\n\r\n"
    async with raw_server(replies(early + answer(b"done"))) as server:
        async with HTTPClient() as http:
            assert (await http.get(server.url)).content == b"done"


@pytest.mark.asyncio
async def test_connections_are_shared_with_streams() -> None:
    """Whole answers and streams use one pool."""
    async with raw_server(replies(answer())) as server:
        async with HTTPClient() as http:
            for _ in range(2):
                await http.get(server.url)
                assert http._wire._transport is not None
                request = httpx.Request("GET", server.url)
                response = await http._wire._transport.handle_async_request(request)
                assert await response.aread() is not None
    assert server.connections == 1


@pytest.mark.asyncio
async def test_an_answer_is_a_response() -> None:
    """What comes back knows its request, and survives pickle, as any response of httpx that was read."""
    async with raw_server(replies(answer(b'{"a": 1}'))) as server:
        async with HTTPClient(headers={"x-one": "1"}) as http:
            response = await http.post(server.url, json=[1], headers={"x-two": "2"})
    for one in (response, pickle.loads(pickle.dumps(response))):
        assert one.json() == {"a": 1} and one.is_success
        request = one.request
        assert (request.method, str(request.url), request.content) == ("POST", server.url, b"[1]")
        assert (request.headers["x-one"], request.headers["x-two"]) == ("1", "2")


@pytest.mark.parametrize("way", ["direct", "large body", "stream"])
@pytest.mark.asyncio
async def test_an_unasked_answer_is_nobodys(way: str) -> None:
    """What comes on an idle connection is not taken for the next call's answer, whichever way that goes."""
    asked = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(answer(b"first"))
        await asked.wait()
        await talk.send(answer(b"unasked"))
        await talk.request()
        await talk.send(answer(b"second"))

    async with raw_server(script) as server:
        async with HTTPClient(retry=None) as http:
            assert (await http.get(server.url)).content == b"first"
            transport = http._wire._transport
            assert isinstance(transport, AiohttpTransport) and transport._session is not None
            connector = transport._session.connector
            assert isinstance(connector, aiohttp.TCPConnector)
            [[(protocol, _)]] = connector._conns.values()
            asked.set()
            while not protocol.should_close:
                await asyncio.sleep(0)
            if way == "stream":
                response = await transport.handle_async_request(httpx.Request("GET", server.url))
                assert await response.aread() == b"first"
            else:
                content = b"x" * (100_000 if way == "large body" else 1)
                assert (await http.post(server.url, content=content)).content == b"first"
            assert http.statistics().failed == 0
    assert server.connections == 2


CALL = Call(Target("GET", httpx.URL("http://a.b"), httpx.Headers()))


def _answer() -> Answer:
    loop = asyncio.get_running_loop()
    return Answer(Flow(loop), loop, no_body=False, max_size_bytes=1000)


@pytest.mark.asyncio
async def test_an_answer_that_comes_as_the_time_ends() -> None:
    """The call is over, also where the answer was there before anyone was told."""
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop.time(), 300.0, loop, Turns(loop))
    waiting = exchange.more()
    exchange.received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    exchange.expire()
    await waiting
    with pytest.raises(TimeoutError, match="total"):
        exchange.take(_answer())


@pytest.mark.asyncio
async def test_what_came_before_the_connection_broke() -> None:
    """An answer that is whole counts, though its connection broke in the same turn; a part does not."""
    loop = asyncio.get_running_loop()
    for body, is_whole in ((b"done", True), (b"do", False)):
        exchange = Exchange(loop.time() + 300.0, 300.0, loop, Turns(loop))
        exchange.received(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body)
        exchange.lost(ConnectionResetError(104, "reset"))
        await exchange.more()
        one = _answer()
        if is_whole:
            exchange.take(one)
            assert one.is_whole and one.response(CALL).content == b"done"
        else:
            with pytest.raises(aiohttp.ClientOSError):
                exchange.take(one)


@pytest.mark.asyncio
async def test_a_body_without_length_whose_connection_breaks() -> None:
    """A close ends it; a reset does not."""
    loop = asyncio.get_running_loop()
    for broken in (None, ConnectionResetError(104, "reset")):
        exchange = Exchange(loop.time() + 300.0, 300.0, loop, Turns(loop))
        exchange.received(b"HTTP/1.1 200 OK\r\n\r\nsome")
        exchange.lost(broken)
        one = _answer()
        if broken is None:
            exchange.take(one)
            assert one.is_whole and one.is_last and one.response(CALL).content == b"some"
        else:
            with pytest.raises(aiohttp.ClientOSError):
                exchange.take(one)


@pytest.mark.asyncio
async def test_a_body_that_breaks_in_the_middle() -> None:
    """Who waits for its rest is told at once, not when the time is over."""
    one = _answer()
    one.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    with pytest.raises(aiohttp.ClientPayloadError, match="chunk size"):
        one.feed(b"no chunk\r\n")


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("coding", ["", "gzip", "chunked", "gzip chunked"])
@pytest.mark.asyncio
async def test_an_answer_in_pieces(coding: str, size: int) -> None:
    """However the bytes are cut, and whatever comes first, the answer is the same, and its end is known."""
    body = b"the whole of it " * 9
    sent = gzip.compress(body) if "gzip" in coding else body
    head = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nX-One: 1\r\n"
    if "gzip" in coding:
        head += b"Content-Encoding: gzip\r\n"
    if "chunked" in coding:
        head += b"Transfer-Encoding: chunked\r\n"
        pieces = [sent[start : start + 9] for start in range(0, len(sent), 9)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    else:
        head += b"Content-Length: %d\r\n" % len(sent)
    message = head + b"\r\n" + sent
    one = _answer()
    for start in range(0, len(message), size):
        assert not one.is_whole
        one.feed(message[start : start + size])
    assert one.is_whole and not one.is_last
    response = one.response(CALL)
    assert response.content == body and response.headers["x-one"] == "1"
    assert "content-encoding" not in response.headers


@pytest.mark.parametrize("more", [b"H", b"HTTP/1.1 200 OK\r\nX: y", answer(b"unasked")])
@pytest.mark.asyncio
async def test_what_follows_an_answer_is_nobodys(more: bytes) -> None:
    """Its connection is not used again, also where only the beginning of something has come."""
    one = _answer()
    one.feed(answer(b"asked") + more)
    assert one.is_whole and one.is_last and one.response(CALL).content == b"asked"


@pytest.mark.asyncio
async def test_a_refusal_on_connecting_is_the_answer() -> None:
    """Some servers that are full say so before they are asked, and close."""

    async def script(talk: Conversation) -> None:
        await talk.send(answer(b"full", "503 Full", "Connection: close\r\n"))
        await talk.request()

    async with raw_server(script) as server:
        async with HTTPClient(retry=None) as http:
            with pytest.raises(errors.ServerError, match="full"):
                await http.get(server.url)


@pytest.mark.asyncio
async def test_a_stream_that_breaks_in_the_middle() -> None:
    """So is who reads it while it comes."""
    begun = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await begun.wait()
        await talk.send(b"no chunk\r\n")
        await talk.server.hang(talk)

    async with raw_server(script) as server:
        async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=30) as client:
            async with client.stream("GET", server.url) as response:
                pieces = response.aiter_bytes()
                assert await anext(pieces) == b"hello"
                begun.set()
                with pytest.raises(httpx.RemoteProtocolError, match="in the middle of the body"):
                    await asyncio.wait_for(anext(pieces), 10)
