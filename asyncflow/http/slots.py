"""httpx's own connections without its pool: one private connection per request that is under way.

For trio, and for whatever else aiohttp cannot serve. httpx's pool lets a cancelled connect take a place for
good, and slows down with the square of the requests in it; a pool of exactly one connection has neither
fault, as long as it is thrown away after any exit that is not a fully read answer.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import anyio
import httpx

from asyncflow.http import proxies

_ONE = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=15.0)


class SlotTransport(httpx.AsyncBaseTransport):
    """An `httpx.AsyncBaseTransport` that grows one connection per request under way, on asyncio and trio.

    Args:
        tls: The TLS context for https, shared by all connections; httpx's own by default.
        trust_env: Whether proxies are taken from the environment, which is read once, here.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, trust_env: bool = True) -> None:
        self._tls = tls
        self._proxy = proxies.from_environment() if trust_env else proxies.direct
        self._idle: dict[tuple[str, bytes], list[httpx.AsyncHTTPTransport]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's errors; a response means that its headers have come."""
        origin = (request.url.scheme, request.url.netloc)
        idle = self._idle.get(origin)
        # The most recently used connection is the least likely to have been closed by the server.
        inner = idle.pop() if idle else self._new(request.url)
        slot = _Slot(self, origin, inner)
        try:
            response = await inner.handle_async_request(request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            slot.stream = response.stream
            response.stream = slot
            response.request = request
            return response
        except BaseException:
            await slot.throw_away()
            raise

    async def aclose(self) -> None:
        """Close every unused connection."""
        idle, self._idle = self._idle, {}
        for transports in idle.values():
            for transport in transports:
                await transport.aclose()

    def __repr__(self) -> str:
        return f"<SlotTransport idle={sum(map(len, self._idle.values()))}>"

    def _new(self, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return httpx.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, limits=_ONE, proxy=self._proxy(url), retries=0
        )


class _Slot(httpx.AsyncByteStream):
    """One connection while a request uses it, and the body of that request's answer."""

    def __init__(
        self, owner: SlotTransport, origin: tuple[str, bytes], inner: httpx.AsyncHTTPTransport
    ) -> None:
        self._owner = owner
        self._origin = origin
        self._inner: httpx.AsyncHTTPTransport | None = inner
        self._whole = False
        self._pieces: AsyncIterator[bytes] | None = None
        self.stream: httpx.AsyncByteStream | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        assert self.stream is not None
        self._pieces = self.stream.__aiter__()
        return self

    async def __anext__(self) -> bytes:
        assert self._pieces is not None
        try:
            return await anext(self._pieces)
        except StopAsyncIteration:
            self._whole = True
            raise

    async def aclose(self) -> None:
        if not self._whole:
            await self.throw_away()
        elif self._inner is not None and self.stream is not None:
            inner, self._inner = self._inner, None
            await self.stream.aclose()
            self._owner._idle.setdefault(self._origin, []).append(inner)

    async def throw_away(self) -> None:
        """Close the connection, also while being cancelled."""
        inner, self._inner = self._inner, None
        if inner is not None:
            with anyio.CancelScope(shield=True):
                if self.stream is not None:
                    await self.stream.aclose()
                await inner.aclose()
                await self._end_pieces()

    async def _end_pieces(self) -> None:
        """Httpx's body is five generators deep, and only the innermost can end them: it finds its connection
        closed. Left to the garbage collector, each would be a warning on trio."""
        pieces, self._pieces = self._pieces, None
        with suppress(Exception):
            while pieces is not None:
                await anext(pieces)
