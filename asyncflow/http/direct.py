"""The way of most requests: bytes out, a whole answer in, over aiohttp's connections and parser.

aiohttp's session builds a request, a response, timers and a task for each request, which costs more than the
exchange itself. Its connector and the protocol of its connections have an interface of their own, the one its
session uses; this is a session's work cut down to what a body that is at hand and an answer that is wanted
whole need. What needs more (a proxy, a stream, an upload in pieces) goes through the session.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache

import aiohttp
import httpx
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_LENGTH
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from asyncflow.http.aiohttp_errors import as_httpx, cause_of, forget_addresses
from asyncflow.http.call import Call, Target
from asyncflow.http.messages import BodyTooLargeError, BytesResponse
from asyncflow.http.watch import Watch

#: Headers that are written here, from the URL and the body, and not as the caller has them.
WRITTEN_HERE = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})

#: As servers behind several proxies write them; aiohttp's own measure is a quarter of it.
LONGEST_LINE = 32768

#: What aiohttp decompresses; anything else comes as it was sent, and says so.
_DECOMPRESSED = frozenset({"gzip", "deflate", "br", "zstd"})

_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Direct:
    """Sends requests over the connections of a session's connector.

    Args:
        session: Whose connector it is; it stays the session's, which also closes it.
        tls: Gives the TLS context, asked for at the first https address.
    """

    def __init__(self, session: aiohttp.ClientSession, tls: Callable[[], ssl.SSLContext]) -> None:
        assert session.connector is not None
        self._session = session
        self._connector = session.connector
        self._tls = tls
        self._origins: dict[tuple[str, bytes], ClientRequest] = {}
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(self._loop)

    async def exchange(self, call: Call, max_size_bytes: int) -> httpx.Response:
        """The answer, its body read and decompressed.

        Nothing is repeated here, also where a kept connection turns out to be closed: whoever repeats counts
        it, and asks its lane first.

        Raises:
            httpx.TransportError: If there is no answer.
            BodyTooLargeError: If the body is larger than it may be; the rest stays unread.

        Cancelled, it closes its connection.
        """
        target = call.target
        origin = self._origin(target.url)
        message = head_of(call) + call.content
        timeouts = call.timeouts
        over_at = self._loop.time() + timeouts.total
        try:
            try:
                connection = await self._connector.connect(
                    origin, traces=[], timeout=_until_connected(min(timeouts.connect, timeouts.total))
                )
            except TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from exc
            exchange = _Exchange(connection.protocol, over_at, timeouts.read, self._loop)
            self._watch.add(exchange)
            try:
                head, content = await exchange.talk(message, target.method == "HEAD", max_size_bytes)
            except BaseException:
                connection.close()
                raise
            finally:
                self._watch.discard(exchange)
            connection.release()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:  # OSError holds TimeoutError too
            forget_addresses(exc, self._connector)
            raise as_httpx(exc) from cause_of(exc)
        reason = (head.reason or "").encode("latin-1", "replace")
        return BytesResponse(head.code, as_decompressed(head), content, call, reason)

    def close(self) -> None:
        """Forget what is under way; the session closes its connections."""
        self._watch.close()

    def _origin(self, url: httpx.URL) -> ClientRequest:
        """What the connector wants to know of a request: where it goes, which is the same for many."""
        key = (url.scheme, url.netloc)
        origin = self._origins.get(key)
        if origin is None:
            if url.scheme not in ("http", "https") or not url.host:
                raise httpx.UnsupportedProtocol(f"an http or https address with a host is needed, not {key}")
            if len(self._origins) > 1000:
                self._origins.clear()
            origin = self._origins[key] = ClientRequest(
                "GET",
                URL(str(url), encoded=True).origin(),
                loop=self._loop,
                session=self._session,
                ssl=self._tls() if url.scheme == "https" else True,
            )
        return origin


def head_of(call: Call) -> bytes:
    """The request line and the headers, with the empty line that ends them.

    Raises:
        httpx.LocalProtocolError: If a line break or a null byte in them would make them something else.

    Example:
        >>> target = Target("GET", httpx.URL("http://a.b/c?d"), httpx.Headers({"x": "1"}))
        >>> head_of(Call(target, headers={"y": "2"}))
        b'GET /c?d HTTP/1.1\\r\\nHost: a.b\\r\\nx: 1\\r\\ny: 2\\r\\n\\r\\n'
    """
    target = call.target
    if target.head is None:
        url = target.url
        first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (target.method.encode(), url.raw_path, url.netloc)
        target.head = _whole_lines(first, 2) + _lines(target.headers.raw)
    head = target.head
    if call.headers:
        own = [(name.encode(), value.encode()) for name, value in call.headers.items()]
        if any(name.lower() in target.names for name, _ in own):  # which replaces the target's
            return head_of(
                replace(call, target=Target(target.method, target.url, call.all_headers()), headers=None)
            )
        head += _lines(own)
    if call.content or target.method not in _WITHOUT_BODY:
        return b"%bContent-Length: %d\r\n\r\n" % (head, len(call.content))
    return head + b"\r\n"


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    lines = [b"%b: %b\r\n" % header for header in headers if header[0].lower() not in WRITTEN_HERE]
    return _whole_lines(b"".join(lines), len(lines))


def _whole_lines(text: bytes, count: int) -> bytes:
    if not text.count(b"\n") == text.count(b"\r") == count or b"\0" in text:
        raise httpx.LocalProtocolError("a header, or the method, holds a line break or a null byte")
    return text


def as_decompressed(head: aiohttp.ClientResponse | RawResponseMessage) -> tuple[tuple[bytes, bytes], ...]:
    """An answer's headers, without those that no longer hold once aiohttp has decompressed the body."""
    if head.headers.get(CONTENT_ENCODING, "").lower() not in _DECOMPRESSED:
        return head.raw_headers
    gone = (b"content-encoding", b"content-length")
    return tuple(pair for pair in head.raw_headers if pair[0].lower() not in gone)


@lru_cache
def _until_connected(seconds: float) -> aiohttp.ClientTimeout:
    # `connect`, not `sock_connect`: the name lookup counts too.
    return aiohttp.ClientTimeout(connect=seconds if seconds < math.inf else None)


class _Exchange:
    """One request and its answer on one connection."""

    __slots__ = ("_late", "_loop", "_over_at", "_payload", "_protocol", "_read", "due")

    def __init__(
        self, protocol: ResponseHandler | None, over_at: float, read: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._protocol = protocol
        self._payload: aiohttp.StreamReader | None = None
        self._late: TimeoutError | None = None
        self._over_at = over_at
        self._read = read
        self._loop = loop
        self._heard()

    def _heard(self) -> None:
        self.due = min(self._over_at, self._loop.time() + self._read)

    def expire(self) -> None:
        self._late = late = (
            TimeoutError("total") if self.due >= self._over_at else aiohttp.SocketTimeoutError("read")
        )
        for waited_for in (self._protocol, self._payload):
            if waited_for is not None:
                waited_for.set_exception(late)

    async def talk(
        self, message: bytes, no_body: bool, max_size_bytes: int
    ) -> tuple[RawResponseMessage, bytes]:
        protocol = self._protocol
        if protocol is None or protocol.transport is None or protocol.transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        protocol.set_response_params(
            skip_payload=no_body,
            read_until_eof=True,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
        )
        protocol.transport.write(message)
        while True:
            head, payload = await protocol.read()
            if (
                self._late is not None
            ):  # the head came in the same turn, and nobody looks at the clock any more
                raise self._late
            if head.code >= 200 or head.code == 101:  # what comes before is only a sign of life
                break
            self._heard()
        declared = None if no_body else head.headers.get(CONTENT_LENGTH)
        if declared is not None and int(declared) > max_size_bytes:
            raise BodyTooLargeError(f"the body is said to be {declared} bytes")
        self._payload = payload
        return head, await self._body(payload, max_size_bytes)

    async def _body(self, payload: aiohttp.StreamReader, max_size_bytes: int) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while not payload.at_eof():
            self._heard()
            piece = await payload.readany()
            size += len(piece)
            if size > max_size_bytes:
                raise BodyTooLargeError(f"the body is more than {max_size_bytes} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
