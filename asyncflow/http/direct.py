"""The way of most requests: bytes out, a whole answer in, over aiohttp's connections and parser.

aiohttp's session builds a request, a response, timers and a task for each request, which costs more than the
exchange itself. Its connector and the protocol of its connections have an interface of their own, the one its
session uses; this is a session's work cut down to what a body that is at hand and an answer that is wanted
whole need. What needs more (a proxy, a stream, an upload in pieces) goes through the session.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest
from aiohttp.hdrs import CONTENT_LENGTH
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from asyncflow.http.messages import BodyTooLargeError

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

    async def exchange(
        self, request: httpx.Request, content: bytes, timeout: aiohttp.ClientTimeout, max_size_bytes: int
    ) -> tuple[RawResponseMessage, bytes]:
        """The head of the answer, and its body, decompressed.

        Nothing is repeated here, also where a kept connection turns out to be closed: whoever repeats counts
        it, and asks its lane first.

        Raises:
            aiohttp.ClientError, HttpProcessingError, OSError: As aiohttp has them.
            TimeoutError: If the total is over.
            BodyTooLargeError: If the body is larger than it may be; the rest stays unread.
            httpx.TransportError: If the request cannot be sent at all.

        Cancelled, it closes its connection.
        """
        origin = self._origin(request.url)
        message = head_of(request, len(content)) + content
        async with asyncio.timeout(timeout.total):
            try:
                connection = await self._connector.connect(origin, traces=[], timeout=timeout)
            except TimeoutError as exc:
                raise aiohttp.ConnectionTimeoutError("no connection in time") from exc
            try:
                answer = await _talk(connection, message, request.method == "HEAD", timeout, max_size_bytes)
            except BaseException:
                connection.close()
                raise
            connection.release()
            return answer

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


def head_of(request: httpx.Request, size_bytes: int) -> bytes:
    """The request line and the headers.

    Raises:
        httpx.LocalProtocolError: If a line break or a null byte in them would make them something else.

    Example:
        >>> head_of(httpx.Request("GET", "http://a.b/c?d", headers={"x": "1"}), 0).splitlines()[:2]
        [b'GET /c?d HTTP/1.1', b'Host: a.b']
    """
    url = request.url
    lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (request.method.encode(), url.raw_path, url.netloc)]
    lines += [
        b"%b: %b\r\n" % header
        for header in request.headers.raw
        if header[0] not in WRITTEN_HERE and header[0].lower() not in WRITTEN_HERE
    ]
    if size_bytes or request.method not in _WITHOUT_BODY:
        lines.append(b"Content-Length: %d\r\n" % size_bytes)
    head = b"".join(lines)
    if not head.count(b"\n") == head.count(b"\r") == len(lines) + 1 or b"\0" in head:
        raise httpx.LocalProtocolError("a header, or the method, holds a line break or a null byte")
    return head + b"\r\n"


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
