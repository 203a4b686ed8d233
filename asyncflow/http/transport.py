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
from dataclasses import dataclass

import aiohttp
import httpx
from aiohttp.hdrs import CONTENT_ENCODING
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from asyncflow.http import proxies
from asyncflow.http.aiohttp_errors import as_httpx
from asyncflow.http.direct import LONGEST_LINE, WRITTEN_HERE, Direct, read_whole
from asyncflow.http.messages import BytesResponse
from asyncflow.http.upload import PIECE_BYTES, Upload

#: `request.extensions[WHOLE]` holds a `Whole`: the answer's body is wanted whole, and has a largest size.
WHOLE = "asyncflow.whole"

#: Headers that aiohttp would add of its own where a request has none.
_AUTOMATIC = frozenset({"user-agent", "accept", "accept-encoding", "content-type"})


@dataclass(frozen=True, slots=True)
class Whole:
    """Read the body before the response is returned.

    Attributes:
        max_size_bytes: What a body may measure, decompressed.
        total: Seconds for the whole attempt, or None.
    """

    max_size_bytes: int
    total: float | None = None


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
        self._timeouts: dict[tuple[float | None, ...], aiohttp.ClientTimeout] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request. Raises httpx's errors; a response means that its headers have come."""
        session, direct = self._open()
        whole: Whole | None = request.extensions.get(WHOLE)
        proxy = self._proxy(request.url)
        body = _body(request)
        timeout = self._timeout(request, whole)
        try:
            if whole is None or proxy is not None or not isinstance(body, bytes) or request.url.userinfo:
                return await self._through_session(session, request, body, whole, proxy, timeout)
            head, content = await direct.exchange(request, body, timeout, whole.max_size_bytes)
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:  # OSError holds TimeoutError too
            raise as_httpx(exc) from exc
        return _response(request, head.code, head, content=content)

    async def _through_session(
        self,
        session: aiohttp.ClientSession,
        request: httpx.Request,
        body: bytes | Upload | AsyncIterator[bytes],
        whole: Whole | None,
        proxy: str | None,
        timeout: aiohttp.ClientTimeout,
    ) -> httpx.Response:
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
        answer = await session.request(
            request.method,
            URL(str(request.url), encoded=True),
            headers=headers,
            data=body or None,
            skip_auto_headers=_AUTOMATIC.difference([name.lower() for name, _ in headers]) or None,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._context() if request.url.scheme == "https" else True,
            timeout=timeout,
        )
        try:
            if whole is None:
                return _response(request, answer.status, answer, stream=_Stream(answer))
            declared = None if answer.method == "HEAD" else answer.content_length
            content = await read_whole(answer.content, declared, whole.max_size_bytes)
            return _response(request, answer.status, answer, content=content)
        except BaseException:
            answer.close()
            raise

    async def aclose(self) -> None:
        """Close every connection. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def __repr__(self) -> str:
        return f"<AiohttpTransport {'closed' if self._session is None else 'open'}>"

    def _open(self) -> tuple[aiohttp.ClientSession, Direct]:
        loop = asyncio.get_running_loop()
        if self._session is None or self._direct is None:
            # A limit here would be a second one beside ours, and a queue that no timeout should count.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keepalive, ttl_dns_cache=30)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
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
        return self._session, self._direct

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx.create_ssl_context()
        return self._tls

    def _timeout(self, request: httpx.Request, whole: Whole | None) -> aiohttp.ClientTimeout:
        asked = request.extensions.get("timeout") or {}
        total, read = None if whole is None else whole.total, asked.get("read")
        if total is not None and read is not None and read >= total:
            read = None  # it could never end anything first, and each timer costs
        key = (total, asked.get("connect"), read)
        known = self._timeouts.get(key)
        if known is None:
            if len(self._timeouts) > 100:
                self._timeouts.clear()
            # `connect`, not `sock_connect`: the name lookup counts too.
            known = aiohttp.ClientTimeout(total=key[0], connect=key[1], sock_read=key[2])
            self._timeouts[key] = known
        return known


class _Stream(httpx.AsyncByteStream):
    """The body of an answer, piece by piece."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as exc:
            raise as_httpx(exc) from exc

    async def aclose(self) -> None:
        # What was read to its end has given its connection back already; the rest is not worth reading.
        self._answer.close()


def _body(request: httpx.Request) -> bytes | Upload | AsyncIterator[bytes]:
    try:
        content = request.content
        if len(content) <= PIECE_BYTES:
            return content
        return Upload(content, (request.extensions.get("timeout") or {}).get("write"))
    except httpx.RequestNotRead:
        stream = request.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise RuntimeError("an asynchronous request needs an asynchronous body") from None
        return stream.__aiter__()


def _response(
    request: httpx.Request,
    status: int,
    head: aiohttp.ClientResponse | RawResponseMessage,
    *,
    content: bytes | None = None,
    stream: httpx.AsyncByteStream | None = None,
) -> httpx.Response:
    raw = head.raw_headers
    if CONTENT_ENCODING in head.headers:  # aiohttp has decompressed the body already
        raw = tuple(pair for pair in raw if pair[0].lower() not in (b"content-encoding", b"content-length"))
    reason = (head.reason or "").encode("latin-1", "replace")
    if content is not None:
        return BytesResponse(status, raw, content, request, reason)
    return httpx.Response(
        status, headers=raw, stream=stream, request=request, extensions={"reason_phrase": reason}
    )


def aiohttp_serves() -> bool:
    """Whether the code that asks runs on asyncio, where aiohttp can be used."""
    with suppress(RuntimeError):
        asyncio.get_running_loop()
        return True
    return False
