"""A server that takes calls and answers none: nothing has failed yet, and somebody should say so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from asyncflow import clock
from asyncflow.events import Event, ItemFinished, ItemResumed, ItemStarted, ItemWaiting

#: Seconds without an answer, while there are calls under way, that are told.
LONG = 60.0


class Silence:
    """An observer that tells when no call has come back for a while. Told once, until one has.

    Args:
        tell: Takes the text.
        timeout: Seconds that a call may go without an answer before it fails.

    Example:
        >>> silence = Silence(print, timeout=300)
        >>> silence(ItemStarted(("map",), 0.0, 0, 1))
        >>> silence.look(59.0), silence.look(61.0), silence.look(70.0)
        no answer for 60 s, with 1 under way: a call may take 300 s (--timeout)
        (None, None, None)
    """

    def __init__(self, tell: Callable[[str], object], *, timeout: float) -> None:
        self._tell = tell
        self._timeout = timeout
        self._under_way = 0
        self._since = 0.0
        self._told = False

    def __call__(self, event: Event) -> None:
        if isinstance(event, (ItemStarted, ItemResumed)):
            if not self._under_way:
                self._heard(event.at)
            self._under_way += 1
        elif isinstance(event, (ItemWaiting, ItemFinished)):
            self._under_way -= 1
            self._heard(event.at)

    def look(self, now: float) -> None:
        """Tell it, if it is so and was not told yet."""
        if self._under_way and not self._told and now - self._since >= LONG:
            self._told = True
            self._tell(
                f"no answer for {LONG:.0f} s, with {self._under_way:,} under way: "
                f"a call may take {self._timeout:g} s (--timeout)"
            )

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look now and then while this block lasts."""

        async def watch() -> None:
            while True:
                await clock.sleep(LONG / 10)
                self.look(clock.now())

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait([watching])

    def _heard(self, now: float) -> None:
        self._since, self._told = now, False
