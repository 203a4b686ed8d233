"""asyncflow/http/connections.py: connections of aiohttp's that share one place where data arrives."""

from __future__ import annotations

import asyncio
import random
import ssl
from pathlib import Path

import pytest

from asyncflow.http import HTTPClient
from tests.http.raw import Conversation, answer, raw_server, replies

CERTIFICATE = Path(__file__).with_name("loopback.pem")


@pytest.mark.parametrize("way", ["direct", "session"])
@pytest.mark.asyncio
async def test_what_arrives_side_by_side_stays_apart(way: str) -> None:
    """Fifty answers that come in turns, a piece each, are each what was asked for."""
    at_once = 50
    everybody = asyncio.Barrier(at_once)

    async def script(talk: Conversation) -> None:
        name = (await talk.request()).split(b"\r\n\r\n", 1)[1][:2]
        message = answer(name * 500)
        for start in range(0, len(message), 100):
            await everybody.wait()
            await talk.send(message[start : start + 100])

    async with raw_server(script) as server:
        async with HTTPClient(retry=None) as http:
            bodies = [b"%02d" % number * (50_000 if way == "session" else 1) for number in range(at_once)]
            answers = await asyncio.gather(*(http.post(server.url, content=body) for body in bodies))
    assert [one.content for one in answers] == [b"%02d" % number * 500 for number in range(at_once)]


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.asyncio
async def test_bodies_larger_than_what_arrives_at_once(encrypted: bool) -> None:
    """They are what was sent, over TLS too."""
    body = random.Random(0).randbytes(2_000_000)
    of_server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    of_server.load_cert_chain(CERTIFICATE)
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with raw_server(replies(answer(body)), of_server if encrypted else None) as server:
        url = server.url.replace("http:", "https:") if encrypted else server.url
        async with HTTPClient(tls=trusted, retry=None) as http:
            answers = await asyncio.gather(*(http.get(url) for _ in range(5)))
    assert all(one.content == body for one in answers)
