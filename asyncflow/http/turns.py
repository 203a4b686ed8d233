"""Wakes those who wait for an answer, some at each turn of the event loop, in the order in which it came."""

from __future__ import annotations

import asyncio
from collections import deque

#: Woken at one turn, at most. Each costs the loop an object until its task runs, and from 700 new ones on
#: (2,000 from Python 3.13 on) the garbage collector looks through all that the calls under way hold.
AT_ONCE = 256


class Turns:
    """For one event loop.

    Example:
        >>> async def main():
        ...     loop = asyncio.get_running_loop()
        ...     turns, waiter = Turns(loop), loop.create_future()
        ...     turns.wake(waiter)
        ...     await waiter
        >>> asyncio.run(main())
    """

    __slots__ = ("_loop", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: deque[asyncio.Future[None]] = deque()

    def wake(self, waiter: asyncio.Future[None]) -> None:
        """Set its result soon, unless it is cancelled before. It may be given more than once."""
        if not self._waiters:
            self._loop.call_soon(self._turn)
        self._waiters.append(waiter)

    def _turn(self) -> None:
        for _ in range(min(len(self._waiters), AT_ONCE)):
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
        if self._waiters:
            self._loop.call_soon(self._turn)
