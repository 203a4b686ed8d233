"""One request out, one answer in: whichever way the bytes travel, the same errors and limits."""

from __future__ import annotations

import math
import ssl
from collections.abc import Mapping
from typing import TypeAlias

import anyio
import httpx

from asyncflow import errors
from asyncflow.http import failures
from asyncflow.http.body import read_whole
from asyncflow.http.call import Call
from asyncflow.http.local import LocalTransport
from asyncflow.http.slots import SlotTransport
from asyncflow.http.timeouts import TOTAL
from asyncflow.http.transport import AiohttpTransport, aiohttp_serves

#: The type of a client that a user may bring along.
HTTPXClient: TypeAlias = httpx.AsyncClient
#: The type of a transport that a user may bring along.
HTTPXTransport: TypeAlias = httpx.AsyncBaseTransport


class Wire:
    """Sends requests through a user's own `httpx.AsyncClient`, a transport, or the best transport here.

    Args:
        client: The user's own client; stays open when the wire closes.
        transport: A transport to call directly; stays open when the wire closes.
        tls: The TLS context of a transport made here.
        trust_env: Whether a transport made here takes proxies from the environment.
    """

    def __init__(
        self,
        *,
        client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        tls: ssl.SSLContext | None = None,
        trust_env: bool = True,
    ) -> None:
        if client is not None and transport is not None:
            raise ValueError("client= and transport= are two ways to say how requests travel: give one")
        self._client = client
        self._transport = transport
        self._given = transport
        self._tls = tls
        self._trust_env = trust_env
        self._closed = False

    def open(self) -> None:
        """Open again what was closed; nothing else."""
        self._closed = False

    async def send(self, call: Call, max_size_bytes: int | None) -> httpx.Response:
        """The answer, of any status.

        Args:
            call: What to send, once.
            max_size_bytes: The answer is read whole, and not larger than this. None: it is left open.

        Raises:
            HTTPError: If there was no answer, with its own class for each way to have none.
        """
        transport = self._route()
        try:
            if max_size_bytes is not None and isinstance(transport, (AiohttpTransport, LocalTransport)):
                direct = transport.direct(call)
                if direct is not None:
                    return await direct.exchange(call, max_size_bytes)
            total = call.timeouts.total
            with anyio.fail_after(total if total < math.inf else None):
                return await self._send(call, transport, max_size_bytes)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise failures.from_httpx(exc, call.request()) from exc
        except TimeoutError as exc:
            raise failures.too_late(exc, call.request()) from exc

    async def refusal(
        self,
        response: httpx.Response,
        max_size_bytes: int,
        advice: Mapping[int, str] | None,
        deadline: float,
    ) -> errors.HTTPError:
        """The error that an open answer's status stands for, its body read first, by the deadline."""
        try:
            whole = await read_whole(response, max_size_bytes, deadline)
        except httpx.HTTPError as exc:
            return failures.from_httpx(exc, response.request)
        return failures.from_status(whole, advice) or failures.bad_answer(whole, "an answer that is none")

    async def _send(
        self, call: Call, transport: httpx.AsyncBaseTransport | None, max_size_bytes: int | None
    ) -> httpx.Response:
        if transport is not None:
            request = call.request()
            response = await transport.handle_async_request(request)
            response.request = request
        else:
            assert self._client is not None
            response = await _send_through(self._client, call)
        return response if max_size_bytes is None else await read_whole(response, max_size_bytes)

    async def aclose(self) -> None:
        """Close what was opened here; a client or transport that was given stays open."""
        self._closed = True
        transport, self._transport = self._transport, self._given
        if transport is not None and transport is not self._given:
            await transport.aclose()

    def _route(self) -> httpx.AsyncBaseTransport | None:
        """The transport, made when first needed, or None where a user's client sends."""
        if self._transport is None and self._client is None:
            if self._closed:
                raise RuntimeError(
                    "this client is closed: its calls belong inside its `async with`, and end before it does"
                )
            kind = AiohttpTransport if aiohttp_serves() else SlotTransport
            self._transport = kind(tls=self._tls, trust_env=self._trust_env)
        return self._transport

    def __repr__(self) -> str:
        return f"<Wire over {self._client or self._transport or 'nothing yet'!r}>"


async def _send_through(client: httpx.AsyncClient, call: Call) -> httpx.Response:
    if call.redirected:  # what the client adds is among its headers, but for what may not go there
        request = call.request()
        request.headers.pop("cookie", None)
        client.cookies.set_cookie_header(request)
        return await client.send(request, stream=True, follow_redirects=False, auth=None)
    request = client.build_request(
        call.target.method,
        call.target.url,
        headers=call.all_headers(),
        content=call.content or None,
        timeout=httpx.Timeout(**call.timeouts.as_httpx()),
        extensions={TOTAL: call.timeouts.total},
    )
    return await client.send(request, stream=True, follow_redirects=False)
