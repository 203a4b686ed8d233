"""httpx's transport over aiohttp's connections, for asyncio.

httpx's own pool is quadratic in the number of requests, and a cancelled connect takes a place in it for good.
aiohttp has neither fault, so its connections carry our requests, while everything above speaks httpx's types.
There is no cookie jar, no redirect, no netrc and no limit of the transport's own: how many requests run at
once is decided above, once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import httpx
from yarl import URL

from asyncflow.http import proxies
from asyncflow.http.aiohttp_errors import as_httpx, cause_of, forget_addresses
from asyncflow.http.answer import LONGEST_LINE
from asyncflow.http.call import Call
from asyncflow.http.connections import Connector
from asyncflow.http.direct import WRITTEN_HERE, Direct
from asyncflow.http.upload import PIECE_BYTES, Upload

#: Headers that aiohttp would add of its own where a request has none.
_AUTOMATIC = frozenset({"user-agent", "accept", "accept-encoding", "content-type"})


class AiohttpTransport(httpx.AsyncBaseTransport):
    """An `httpx.AsyncBaseTransport` for asyncio, to be called directly or given to an `httpx.AsyncClient`.

    Connections are opened in the event loop of the first request and belong to it.

    Args:
        tls: The TLS context for https. By default httpx's own (`SSL_CERT_FILE` and `SSL_CERT_DIR` are
            respected), made when the first https address is asked for.
        trust_env: Whether proxies are taken from the environment, which is read once, here.
        keepalive: Seconds that an unused connection stays open.

    Cancelling a request closes its connection and no other.

    Example:
        >>> transport = AiohttpTransport()
        >>> async def title(url: str) -> int:
        ...     async with httpx.AsyncClient(transport=transport) as client:
        ...         return (await client.get(url)).status_code
    """

    def __init__(
        self, *, tls: ssl.SSLContext | None = None, trust_env: bool = True, keepalive: float = 15.0
    ) -> None:
        self._tls = tls
        self._proxy = proxies.from_environment() if trust_env else proxies.direct
        self._keepalive = keepalive
        self._session: aiohttp.ClientSession | None = None
        self._direct: Direct | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's errors; a response means that its headers have come."""
        session = self._open()
        url = request.url
        proxy = self._proxy(url)
        if proxy is not None and not proxy.startswith(("http://", "https://")):
            kind = proxy.partition(":")[0]
            raise httpx.UnsupportedProtocol(
                f"the environment names a {kind} proxy for it, which aiohttp does not speak: pass a client "
                "of your own (httpx.AsyncClient with httpx[socks]), or trust_env=False"
            )
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in request.headers.raw
            if name.lower() not in WRITTEN_HERE
        ]
        try:
            answer = await session.request(
                request.method,
                URL(str(url), encoded=True),
                headers=headers,
                data=_body(request),
                skip_auto_headers=_AUTOMATIC.difference([name.lower() for name, _ in headers]) or None,
                allow_redirects=False,
                proxy=proxy,
                ssl=self._context() if url.scheme == "https" else True,
                timeout=self._timeout(request),
            )
        except (aiohttp.ClientError, OSError) as exc:  # OSError holds TimeoutError too
            forget_addresses(exc, session.connector)
            raise as_httpx(exc) from cause_of(exc)
        return httpx.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=_Stream(answer),
            request=request,
            extensions={"reason_phrase": (answer.reason or "").encode("latin-1", "replace")},
        )

    def direct(self, call: Call) -> Direct | None:
        """The short way for a call whose answer is wanted whole, where it can go that way."""
        self._open()
        url = call.target.url
        if self._proxy(url) is not None or len(call.content) > PIECE_BYTES:
            return None
        return self._direct

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice."""
        session, self._session = self._session, None
        if self._direct is not None:
            self._direct.close()
        if session is not None:
            await session.close()

    def __repr__(self) -> str:
        return f"<AiohttpTransport {'closed' if self._session is None else 'open'}>"

    def _open(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None:
            connector = Connector(self._keepalive)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # which httpx's types do, or who reads them
                max_line_size=LONGEST_LINE,
                max_field_size=LONGEST_LINE,
            )
            self._direct = Direct(self._session, self._context)
            # aiohttp would repeat a GET by itself: past the lane, uncounted, and with retry=None too. It has
            # no public switch for that; its own test client turns it off in this way.
            self._session._retry_connection = False
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                "this HTTP client was opened in another event loop: connections belong to the loop they were "
                "opened in, so make one client per loop (one `async with` inside each asyncio.run)"
            )
        return self._session

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls

    def _timeout(self, request: httpx.Request) -> aiohttp.ClientTimeout:
        asked = request.extensions.get("timeout") or {}
        # `connect`, not `sock_connect`: the name lookup counts too. The total is for who sends to keep.
        return aiohttp.ClientTimeout(connect=asked.get("connect"), sock_read=asked.get("read"))


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, piece by piece."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as exc:
            raise as_httpx(exc) from cause_of(exc)

    async def aclose(self) -> None:
        # What was read to its end has given its connection back already; the rest is not worth reading.
        self._answer.close()


def _body(request: httpx.Request) -> bytes | Upload | AsyncIterator[bytes] | None:
    try:
        content = request.content
        if len(content) <= PIECE_BYTES:
            return content or None
        return Upload(content, (request.extensions.get("timeout") or {}).get("write"))
    except httpx.RequestNotRead:
        stream = request.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise RuntimeError("an asynchronous request needs an asynchronous body") from None
        return stream.__aiter__()


def aiohttp_serves() -> bool:
    """Whether the code that asks runs on asyncio, where aiohttp can be used."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False
