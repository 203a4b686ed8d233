"""aiohttp's connections, with two of its gaps closed: both ways over them use the connector of here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError

from asyncflow.http.exchange import Exchange

#: Bytes that one read takes at most, as in asyncio.
_BUFFER = 1 << 18


class Connector(aiohttp.TCPConnector):
    """aiohttp's, which hands out an idle connection also where something unasked has come on it.

    The next call would take that for its own answer, and each later call the answer of the one before.

    Args:
        keepalive_timeout: Seconds that an unused connection stays open.
    """

    def __init__(self, keepalive_timeout: float) -> None:
        # A limit here would be a second one beside ours, and a queue that no timeout should count.
        super().__init__(limit=0, keepalive_timeout=keepalive_timeout, ttl_dns_cache=30)
        kind: Callable[..., ResponseHandler] = AnswerProtocol
        self._factory = partial(kind, asyncio.get_running_loop(), memoryview(bytearray(_BUFFER)))

    async def _get(self, key: ConnectionKey, traces: list[aiohttp.tracing.Trace]) -> Connection | None:
        while (idle := await super()._get(key, traces)) is not None:
            if idle.protocol is not None and not idle.protocol.should_close:
                return idle
            idle.close()
        return None


class AnswerProtocol(ResponseHandler, asyncio.BufferedProtocol):
    """aiohttp's, which also serves exchanges past its session, and tells all who wait for a body of its end.

    aiohttp's does not tell who reads a body that the rest of it makes no sense: they would wait until their
    time is over.

    Args:
        loop: The event loop.
        buffer: Where data arrives. All connections of a loop may share it, for it is emptied at once. asyncio
            would ask the system for 256 KiB at each arrival, and give nearly all of it back.
    """

    _exchange: Exchange | None = None

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        super().__init__(loop)
        self._arrivals = buffer

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._arrivals

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._arrivals[:nbytes]))

    def begin(self, exchange: Exchange, message: bytes) -> None:
        """Send a request. Until `end` the exchange, and nobody else, hears of what comes.

        Raises:
            aiohttp.ServerDisconnectedError: If the connection has been closed.
        """
        if self.transport is None or self.transport.is_closing():
            raise aiohttp.ServerDisconnectedError
        self._parser = None  # the session's: what comes unasked from now on is kept, as it is, in `_tail`
        early, self._tail = self._tail, b""
        if early:  # some refuse as soon as they are connected to
            exchange.received(early)
        self._exchange = exchange
        self.transport.write(message)

    def end(self, *, is_last: bool) -> None:
        """The exchange is over; `is_last` where nothing may follow it."""
        self._exchange = None
        if is_last:
            self.force_close()

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            super().data_received(data)
        else:
            self._exchange.received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._exchange is not None:
            self._exchange.lost(exc)

    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        body = self._payload
        super().set_exception(exc, *cause)
        if not isinstance(exc, HttpProcessingError) or body is None or body.is_eof():
            return
        if body.exception() is None:  # a piece that cannot be decompressed has been told of
            body.set_exception(aiohttp.ClientPayloadError(f"in the middle of the body: {exc.message}"))
