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

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.hdrs import CONTENT_ENCODING, CONTENT_LENGTH
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from asyncflow.http.aiohttp_errors import as_httpx
from asyncflow.http.call import Call, Target
from asyncflow.http.messages import BodyTooLargeError, BytesResponse
from asyncflow.http.timeouts import Timeouts

#: Headers that are written here, from the URL and the body, and not as the caller has them.
WRITTEN_HERE = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})

#: As servers behind several proxies write them; aiohttp's own measure is a quarter of it.
LONGEST_LINE = 32768

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
        self._timeouts: dict[Timeouts, aiohttp.ClientTimeout] = {}

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
        timeout = self._timeout(call.timeouts)
        try:
            async with asyncio.timeout(timeout.total):
                try:
                    connection = await self._connector.connect(origin, traces=[], timeout=timeout)
                except TimeoutError as exc:
                    raise aiohttp.ConnectionTimeoutError("no connection in time") from exc
                try:
                    head, content = await _talk(
                        connection, message, target.method == "HEAD", timeout, max_size_bytes
                    )
                except BaseException:
                    connection.close()
                    raise
                connection.release()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as exc:  # OSError holds TimeoutError too
            raise as_httpx(exc) from exc
        reason = (head.reason or "").encode("latin-1", "replace")
        return BytesResponse(head.code, as_decompressed(head), content, call, reason)

    def _timeout(self, timeouts: Timeouts) -> aiohttp.ClientTimeout:
        known = self._timeouts.get(timeouts)
        if known is None:
            if len(self._timeouts) > 100:
                self._timeouts.clear()
            asked = timeouts.as_httpx()
            total = timeouts.total if timeouts.total < math.inf else None
            # A wait for data that is longer than the total never ends anything, and each timer costs.
            read = None if timeouts.read >= timeouts.total else asked["read"]
            known = aiohttp.ClientTimeout(total=total, connect=asked["connect"], sock_read=read)
            self._timeouts[timeouts] = known
        return known

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
                loop=asyncio.get_running_loop(),
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
        if any(name in target.headers for name in call.headers):  # which replaces the target's
            return head_of(
                replace(call, target=Target(target.method, target.url, call.all_headers()), headers=None)
            )
        head += _lines([(name.encode(), value.encode()) for name, value in call.headers.items()])
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
    if CONTENT_ENCODING not in head.headers:
        return head.raw_headers
    gone = (b"content-encoding", b"content-length")
    return tuple(pair for pair in head.raw_headers if pair[0].lower() not in gone)


async def _talk(
    connection: aiohttp.connector.Connection,
    message: bytes,
    no_body: bool,
    timeout: aiohttp.ClientTimeout,
    max_size_bytes: int,
) -> tuple[RawResponseMessage, bytes]:
    protocol, transport = connection.protocol, connection.transport
    if protocol is None or transport is None or transport.is_closing():
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(
        skip_payload=no_body,
        read_until_eof=True,
        read_timeout=timeout.sock_read,
        max_line_size=LONGEST_LINE,
        max_field_size=LONGEST_LINE,
    )
    transport.write(message)
    protocol.start_timeout()
    while True:
        head, payload = await protocol.read()
        if head.code >= 200 or head.code == 101:  # what comes before is only a sign of life
            break
    declared = None if no_body else head.headers.get(CONTENT_LENGTH)
    return head, await read_whole(payload, None if declared is None else int(declared), max_size_bytes)


async def read_whole(content: aiohttp.StreamReader, declared: int | None, max_size_bytes: int) -> bytes:
    """The body, as long as it is not larger than it may be.

    Raises:
        BodyTooLargeError: If it is, or is said to be.
    """
    if declared is not None and declared > max_size_bytes:
        raise BodyTooLargeError(f"the body is said to be {declared} bytes")
    first = await content.readany()
    if content.at_eof() and len(first) <= max_size_bytes:
        return first
    pieces, size = [first], len(first)
    while True:
        if size > max_size_bytes:
            raise BodyTooLargeError(f"the body is more than {max_size_bytes} bytes")
        piece = await content.readany()
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
