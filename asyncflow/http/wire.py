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
from asyncflow.http.messages import BytesRequest
from asyncflow.http.slots import SlotTransport
from asyncflow.http.timeouts import Timeouts
from asyncflow.http.transport import WHOLE, AiohttpTransport, Whole, aiohttp_serves

#: The type of a client that a user may bring along.
HTTPXClient: TypeAlias = httpx.AsyncClient


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

    def request(
        self,
        method: str,
        url: httpx.URL,
        headers: httpx.Headers,
        content: bytes | None,
        timeouts: Timeouts,
        whole: Whole | None,
    ) -> httpx.Request:
        """A request ready to be sent; a user's own client adds its headers and cookies."""
        extensions = {"timeout": timeouts.as_httpx(), WHOLE: whole}
        if self._client is not None:
            return self._client.build_request(
                method, url, headers=headers, content=content, extensions=extensions
            )
        if isinstance(self._route(), AiohttpTransport):
            return BytesRequest(method, url, headers, content or b"", extensions)
        return httpx.Request(method, url, headers=headers, content=content, extensions=extensions)

    async def send(self, request: httpx.Request, timeouts: Timeouts) -> httpx.Response:
        """The answer, of any status. Its body has been read if the request's `WHOLE` asks for it.

        Raises:
            HTTPError: If there was no answer, with its own class for each way to have none.
        """
        try:
            transport = self._route()
            if isinstance(transport, AiohttpTransport) and request.extensions.get(WHOLE) is not None:
                return await transport.handle_async_request(request)  # keeps the total by itself
            whole: Whole | None = request.extensions.get(WHOLE)
            if not math.isfinite(timeouts.total):
                return await self._send(request, whole)
            with anyio.fail_after(timeouts.total):
                return await self._send(request, whole)
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise failures.from_httpx(exc, request) from exc
        except TimeoutError as exc:
            raise failures.from_httpx(httpx.TimeoutException("total"), request) from exc

    async def refusal(
        self, response: httpx.Response, max_size_bytes: int, advice: Mapping[int, str] | None
    ) -> errors.HTTPError:
        """The error that an open answer's status stands for, its body read first."""
        try:
            whole = await read_whole(response, max_size_bytes)
        except httpx.HTTPError as exc:
            return failures.from_httpx(exc, response.request)
        return failures.from_status(whole, advice) or failures.bad_answer(whole, "an answer that is none")

    async def _send(self, request: httpx.Request, whole: Whole | None) -> httpx.Response:
        if self._client is not None:
            response = await self._client.send(request, stream=True, follow_redirects=False)
        else:
            assert self._transport is not None
            response = await self._transport.handle_async_request(request)
            response.request = request
        return response if whole is None else await read_whole(response, whole.max_size_bytes)

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
