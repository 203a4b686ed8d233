"""Cancellation at every phase of a request: nothing is left behind, and the next call is as good as new."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from asyncflow.http import HTTPClient, SlotLane, SlotTransport
from asyncflow.testing import SimulatedProvider
from asyncflow.waiting import Waiter, current
from tests.http.raw import Conversation, answer, raw_server

CERTIFICATE = Path(__file__).with_name("loopback.pem")

WIRES: dict[str, Callable[[], dict[str, Any]]] = {
    "aiohttp": dict,
    "slots": lambda: {"transport": SlotTransport(trust_env=False)},
}

PHASES: dict[str, list[bytes]] = {
    "while connecting": [],
    "before the answer": [b""],
    "in the headers": [b"HTTP/1.1 200 OK\r\nContent-Le"],
    "before the body": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"],
    "in the body": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"],
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.asyncio
async def test_cancelled(phase: str, wire: str) -> None:
    """The connection is closed, the slot is back, and the client goes on working."""
    hang = True

    async def script(talk: Conversation) -> None:
        if hang:
            for piece in PHASES[phase]:
                await talk.request()
                await talk.send(piece)
            await talk.server.hang(talk)
        else:
            await talk.request()
            await talk.send(answer())

    options = WIRES[wire]()
    lane = SlotLane(1)
    async with raw_server(script) as server:
        url = server.url
        if phase == "while connecting":  # a TLS handshake that never ends
            url = url.replace("http:", "https:")
        async with HTTPClient(lane=lane, **options) as http:
            call = asyncio.create_task(http.get(url))
            await server.reached.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await server.left.wait()
            assert lane.statistics().running == 0 and http.statistics().running == 0
            hang = False
            assert (await http.get(server.url)).status_code == 200
        for opened in options.values():
            await opened.aclose()


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.asyncio
async def test_cancelled_while_waiting_for_a_slot(wire: str) -> None:
    """Whoever is cancelled in the queue gives nothing away, and whoever is behind gets the slot."""

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            talk.server.reached.set()
            await go.wait()
            await talk.send(answer())

    go = asyncio.Event()
    options = WIRES[wire]()
    lane = SlotLane(1)
    async with raw_server(script) as server:
        async with HTTPClient(lane=lane, **options) as http:
            first = asyncio.create_task(http.get(server.url))
            await server.reached.wait()
            queued = [asyncio.create_task(http.get(server.url)) for _ in range(3)]
            while lane.statistics().waiting < 3:
                await asyncio.sleep(0)
            queued[0].cancel()
            go.set()
            done = await asyncio.gather(first, *queued, return_exceptions=True)
        for opened in options.values():
            await opened.aclose()
    assert isinstance(done[1], asyncio.CancelledError)
    assert [one.status_code for one in (done[0], *done[2:])] == [200] * 3  # type: ignore[union-attr]
    assert lane.statistics().running == 0


@pytest.mark.asyncio
async def test_cancelled_between_two_slots() -> None:
    """Whoever has the lane's slot and waits for the run's gives it back when cancelled there."""
    resuming = asyncio.Event()

    class Full(Waiter):
        def pause(self, reason: str) -> None:
            pass

        async def resume(self) -> None:
            resuming.set()
            await asyncio.Event().wait()

    lane = SlotLane(1)

    async def call() -> None:
        current.set(Full())
        async with lane.attempt():
            raise AssertionError("it has no slot of the run")

    async with lane.attempt():
        task = asyncio.create_task(call())
        while lane.statistics().waiting < 1:
            await asyncio.sleep(0)
    await resuming.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert lane.statistics().running == 0


@pytest.mark.asyncio
async def test_cancelled_connects_do_not_poison() -> None:
    """After bursts of calls cancelled at every moment of connecting and sending, all calls still succeed."""

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            await talk.send(answer())

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(CERTIFICATE)
    trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
    async with raw_server(script, tls) as server:
        url = server.url.replace("http:", "https:")
        async with HTTPClient(retry=None, tls=trusted) as http:
            for turns in range(24):
                burst = [asyncio.create_task(http.get(url)) for _ in range(5)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for call in burst:
                    call.cancel()
                await asyncio.gather(*burst, return_exceptions=True)
            done = await asyncio.gather(*(http.get(url) for _ in range(50)))
    assert {response.status_code for response in done} == {200}


def test_cancelled_connects_do_not_poison_on_trio() -> None:
    """The same for the transport that trio uses."""

    async def main(url: str) -> None:
        answered = 0

        async def get(http: HTTPClient) -> None:
            nonlocal answered
            await http.get(url, accept={405})
            answered += 1

        async with HTTPClient(retry=None) as http:
            for turns in range(24):
                async with trio.open_nursery() as burst:
                    for _ in range(5):
                        burst.start_soon(get, http)
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    burst.cancel_scope.cancel()
            answered = 0
            async with trio.open_nursery() as nursery:
                for _ in range(50):
                    nursery.start_soon(get, http)
            assert answered == 50 and http.statistics().running == 0

    with SimulatedProvider(latency=0) as provider:
        trio.run(main, provider.base_url + "/chat/completions")


@pytest.mark.asyncio
async def test_an_own_client_stays_open() -> None:
    """What was brought along is not closed."""
    own = httpx.AsyncClient()
    async with HTTPClient(client=own):
        pass
    assert not own.is_closed
    await own.aclose()
