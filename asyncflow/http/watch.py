"""Ends exchanges that take too long, any number of them with one timer.

Timers of their own, a total and a wait for data that begins anew with each piece, cost more than what a small
answer takes to read.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

#: Seconds between two looks, at least: a crowd that comes due one by one is not looked through each time.
_APART = 0.02


class Watched(Protocol):
    """What a `Watch` looks after.

    Attributes:
        due: When it has taken too long, on the event loop's clock. It may move to later at any time.
    """

    due: float

    def expire(self) -> None:
        """It is due: end it. Called once at most, from the event loop."""


class Watch:
    """Calls `expire` of whatever is still here when it is due.

    Not before, and where all goes well not later than 0.02 s after. For one event loop.

    Example:
        >>> class Late:
        ...     due = 0.0
        ...     def expire(self):
        ...         print("expired")
        >>> async def main():
        ...     watch = Watch(asyncio.get_running_loop())
        ...     watch.add(Late())
        ...     await asyncio.sleep(0.05)
        >>> asyncio.run(main())
        expired
    """

    __slots__ = ("_looks_at", "_loop", "_timer", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: set[Watched] = set()
        self._looks_at = float("inf")
        self._timer: asyncio.TimerHandle | None = None

    def add(self, watched: Watched) -> None:
        """Look after it from now on."""
        self._watched.add(watched)
        if watched.due < self._looks_at:
            self._look_at(watched.due)

    def discard(self, watched: Watched) -> None:
        """Leave it alone from now on."""
        self._watched.discard(watched)

    def close(self) -> None:
        """Leave all alone."""
        self._watched.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = moment
        self._timer = self._loop.call_at(moment, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [watched for watched in self._watched if watched.due <= now]
        self._watched.difference_update(late)
        for watched in late:
            watched.expire()
        self._looks_at = float("inf")
        if self._watched:
            self._look_at(max(now + _APART, min(watched.due for watched in self._watched)))
