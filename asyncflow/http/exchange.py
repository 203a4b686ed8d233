"""One request and the answer to it, between a connection that hears and a task that waits.

What is waited for is bytes, not an answer: the connection only keeps what comes, and the task that waits
makes an answer of it. An event loop with a thousand connections reads from all of them before the first task
goes on. Parsed at once, a thousand answers would lie about in between, and what lies about is what the
garbage collector looks through, again and again.
"""

from __future__ import annotations

import asyncio

import aiohttp

from asyncflow.http.answer import Answer
from asyncflow.http.turns import Turns


class Exchange:
    """Is told by its connection what comes, and by a `Watch` when the time is over.

    Args:
        over_at: When it must be over, on the event loop's clock.
        read: Seconds between two pieces of the answer.
        loop: The event loop.
        turns: Its own, which wake who waits.

    Attributes:
        due: When it has taken too long, by now.
    """

    __slots__ = ("_data", "_late", "_loop", "_lost", "_over_at", "_read", "_turns", "_waiter", "due")

    def __init__(self, over_at: float, read: float, loop: asyncio.AbstractEventLoop, turns: Turns) -> None:
        self._data = b""
        self._late: TimeoutError | None = None
        self._lost: aiohttp.ClientError | None = None
        self._loop = loop
        self._over_at = over_at
        self._read = read
        self._turns = turns
        self._waiter: asyncio.Future[None] | None = None
        self._heard()

    def received(self, data: bytes) -> None:
        """Something has come."""
        self._data += data
        self._wake()

    def lost(self, exc: BaseException | None) -> None:
        """The connection is gone: broken, or closed by the other side where there is no error."""
        if isinstance(exc, OSError):
            self._lost = aiohttp.ClientOSError(*exc.args)
        else:
            self._lost = aiohttp.ServerDisconnectedError()
        self._wake()

    def expire(self) -> None:
        """The time is over."""
        if self.due >= self._over_at:
            self._late = TimeoutError("total")
        else:
            self._late = aiohttp.SocketTimeoutError("read")
        self._wake()

    def more(self) -> asyncio.Future[None]:
        """To be awaited: there is something to `take`."""
        self._waiter = waiter = self._loop.create_future()
        if self._data or self._lost is not None or self._late is not None:
            waiter.set_result(None)
        return waiter

    def take(self, answer: Answer) -> None:
        """Give the answer what has come.

        Raises:
            OSError, aiohttp.ClientError, httpx.HTTPError: If it cannot become whole.
        """
        if self._late is not None:  # also where more has come in the same turn: nobody looks at the clock now
            raise self._late
        if self._data:
            data, self._data = self._data, b""
            answer.feed(data)
            self._heard()
        if self._lost is not None and not answer.is_whole:
            if isinstance(self._lost, OSError):
                raise self._lost
            answer.end()

    def _heard(self) -> None:
        self.due = min(self._over_at, self._loop.time() + self._read)

    def _wake(self) -> None:
        if self._waiter is not None:
            self._turns.wake(self._waiter)
