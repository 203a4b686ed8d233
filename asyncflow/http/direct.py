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
from functools import cached_property, lru_cache

import aiohttp
import httpx
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from yarl import URL

from asyncflow.http.aiohttp_errors import as_httpx, cause_of, forget_addresses
from asyncflow.http.answer import Answer, Flow
from asyncflow.http.call import Call, Target
from asyncflow.http.connections import AnswerProtocol
from asyncflow.http.exchange import Exchange
from asyncflow.http.timeouts import Timeouts
from asyncflow.http.turns import Turns
from asyncflow.http.watch import Watch

#: Headers that are written here, from the URL and the body, and not as the caller has them.
WRITTEN_HERE = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection"})

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
        self._origins: dict[tuple[str, bytes], _Origin] = {}
        self._loop = asyncio.get_running_loop()
        self._watch = Watch(self._loop)
        self._turns = Turns(self._loop)
        self._flow = Flow(self._loop)

    async def exchange(self, call: Call, max_size_bytes: int) -> httpx.Response:
        """The answer, its body read and decompressed.

        Nothing is repeated here, also where a kept connection turns out to be closed: whoever repeats counts
        it, and asks its lane first.

        Raises:
            httpx.TransportError: If there is no answer.
            BodyTooLargeError: If the body is larger than it may be; the rest stays unread.

        Cancelled, it closes its connection.
        """
        target, timeouts = call.target, call.timeouts
        over_at = self._loop.time() + timeouts.total
        try:
            connection = await self._connected(self._origin(target.url), timeouts)
            protocol = connection.protocol
            assert isinstance(protocol, AnswerProtocol)
            exchange = Exchange(over_at, timeouts.read, self._loop, self._turns)
            answer: Answer | None = None
            self._watch.add(exchange)
            try:
                protocol.begin(exchange, head_of(call) + call.content)  # no local: tools print those
                while answer is None or not answer.is_whole:
                    await exchange.more()
                    if answer is None:  # not made before: there is less about while a thousand calls wait
                        answer = Answer(self._flow, self._loop, target.method == "HEAD", max_size_bytes)
                    exchange.take(answer)
            except BaseException:
                protocol.end(is_last=True)
                connection.close()
                raise
            finally:
                self._watch.discard(exchange)
            protocol.end(is_last=answer.is_last)
            connection.release()
        except (aiohttp.ClientError, OSError) as exc:  # OSError holds TimeoutError too
            forget_addresses(exc, self._connector)
            raise as_httpx(exc) from cause_of(exc)
        return answer.response(call)

    async def _connected(self, origin: _Origin, timeouts: Timeouts) -> Connection:
        # `connect`, not `sock_connect`: the name lookup counts too.
        seconds = min(timeouts.connect, timeouts.total)
        try:
            return await self._connector.connect(origin, traces=[], timeout=_until_connected(seconds))
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from exc

    def close(self) -> None:
        """Forget what is under way; the session closes its connections."""
        self._watch.close()

    def _origin(self, url: httpx.URL) -> _Origin:
        """What the connector wants to know of a request: where it goes, which is the same for many."""
        key = (url.scheme, url.netloc)
        origin = self._origins.get(key)
        if origin is None:
            if url.scheme not in ("http", "https") or not url.host:
                raise httpx.UnsupportedProtocol(f"an http or https address with a host is needed, not {key}")
            if len(self._origins) > 1000:
                self._origins.clear()
            origin = self._origins[key] = _Origin(
                "GET",
                URL(str(url), encoded=True).origin(),
                loop=self._loop,
                session=self._session,
                ssl=self._tls() if url.scheme == "https" else True,
            )
        return origin


class _Origin(ClientRequest):
    """What the connector wants to know of a request, known once: aiohttp works its key out at every look."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        return super().connection_key


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


@lru_cache
def _until_connected(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=seconds if seconds < math.inf else None)
