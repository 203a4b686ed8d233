"""asyncflow/http/coding.py: gzip and deflate, undone piece by piece, and known to end."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import httpx
import pytest

from asyncflow import errors
from asyncflow.http import HTTPClient
from asyncflow.http.coding import Inflater
from tests.http.raw import answer, raw_server, replies

TEXT = b"the whole of it, " * 50_000


def _squeezed(coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(TEXT)
    one = zlib.compressobj(wbits=-15 if coding == "raw deflate" else 15)
    return one.compress(TEXT) + one.flush()


def _undone(coding: str, data: bytes, step: int) -> list[bytes]:
    inflater = Inflater(coding.removeprefix("raw "))
    pieces = [
        piece for start in range(0, len(data), step) for piece in inflater.feed(data[start : start + step])
    ]
    inflater.end()
    return pieces


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("step", [1, 1000, 1_000_000])
def test_however_it_comes(coding: str, step: int) -> None:
    """The same text, in pieces of a bounded size, however the body was cut on its way."""
    pieces = _undone(coding, _squeezed(coding), step)
    assert b"".join(pieces) == TEXT
    assert max(map(len, pieces)) <= 1 << 18


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
@pytest.mark.parametrize("missing", [1, 4, 8, 100])
def test_cut(coding: str, missing: int) -> None:
    """Whatever is missing at the end, the trailer alone too, is missed."""
    with pytest.raises(httpx.RemoteProtocolError, match="before its end"):
        _undone(coding, _squeezed(coding)[:-missing], 1000)


@pytest.mark.parametrize("step", [1, 1000])
def test_what_follows(step: int) -> None:
    """Members one after the other are one body, nothing is an empty one, and padding is passed over."""
    assert b"".join(_undone("gzip", gzip.compress(b"one ") + gzip.compress(b"two"), step)) == b"one two"
    assert _undone("gzip", b"", step) == []
    assert b"".join(_undone("gzip", gzip.compress(b"one") + b"\0" * 20, step)) == b"one"
    with pytest.raises(httpx.RemoteProtocolError):
        _undone("gzip", gzip.compress(b"one") + gzip.compress(b"two")[:5], step)


def test_wrong() -> None:
    """What is not of its coding, and more members than anybody means."""
    with pytest.raises(httpx.DecodingError, match="not gzip"):
        _undone("gzip", b"text", 10)
    with pytest.raises(httpx.DecodingError, match="members"):
        _undone("gzip", gzip.compress(b"") * 2000, 100_000)


async def _nothing(stream: Any) -> None:
    pass


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.asyncio
async def test_every_way(is_cut: bool) -> None:
    """A short request, a large one, and a stream: none takes a part for the whole."""
    event = gzip.compress(b"data: 1\n\n")
    body = event[:-8] if is_cut else event
    headers = "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n"
    async with raw_server(replies(answer(body, headers=headers))) as server:
        async with HTTPClient(retry=None) as http:
            for size in (1, 100_000):
                call = http.post(server.url, content=b"x" * size)
                if is_cut:
                    with pytest.raises(errors.HTTPConnectionError, match="before its end"):
                        await call
                else:
                    assert (await call).text == "data: 1\n\n"
            stream, _ = await http.endpoint("POST", server.url).open({}, _nothing)
            first = await stream.next_event()
            assert first is not None and first.data == "1"
            if is_cut:
                with pytest.raises(errors.HTTPConnectionError, match="before its end"):
                    await stream.next_event()
            else:
                assert await stream.next_event() is None
            await stream.aclose()
