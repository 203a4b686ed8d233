"""The one door to time: what is the moment, and call me later.

Waiting rules are tested without waiting: inside `with FakeClock() as clock:` every timeout, retry wait and
limit of asyncflow runs on virtual time, which jumps to the next timer as soon as nothing else can run.
What is not asyncflow's (an `asyncio.sleep` in a user's `exec`, a socket) keeps real time.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Protocol

Cancel = Callable[[], None]

#: The date at which every `FakeClock` begins: 1 January 2020, in UTC.
_FAKE_EPOCH = 1_577_836_800.0


class Clock(Protocol):
    """A source of time for everything that waits."""

    def now(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    def wall(self) -> float:
        """Seconds since 1970, as calendars count; may go back."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel:
        """Call `callback()` on the running event loop after `delay` seconds; returns how to prevent it."""


def in_trio() -> bool:
    """Whether the calling code runs inside trio."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_run()


class SystemClock:
    """Real time, on asyncio and on trio."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel:
        if not in_trio():
            return asyncio.get_running_loop().call_later(max(0.0, delay), callback).cancel
        import trio

        scope = trio.CancelScope()

        async def timer() -> None:
            with scope:
                await trio.sleep(max(0.0, delay))
                callback()

        trio.lowlevel.spawn_system_task(timer)
        return scope.cancel


SYSTEM: Clock = SystemClock()

_current: contextvars.ContextVar[Clock] = contextvars.ContextVar("asyncflow.clock", default=SYSTEM)


def current() -> Clock:
    """The clock of the calling context: the system's, or the `FakeClock` that surrounds it."""
    return _current.get()


def now() -> float:
    """Seconds on the current clock."""
    return _current.get().now()


def wall() -> float:
    """The date, in seconds since 1970, on the current clock."""
    return _current.get().wall()


def running_loop() -> object:
    """The event loop that runs the calling code: asyncio's loop, or trio's token."""
    if in_trio():
        import trio

        return trio.lowlevel.current_trio_token()
    return asyncio.get_running_loop()


def parking() -> tuple[Callable[[], None], Awaitable[object]]:
    """A place to wait in until somebody calls: `(wake, woken)`, of which `woken` is to be awaited at once.

    `wake()` may be called more than once, on the same event loop.
    """
    if in_trio():
        import trio

        event = trio.Event()
        return event.set, event.wait()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    return partial(_end, future), future


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def sleep(seconds: float) -> None:
    """Wait on the current clock. A cancel point."""
    wake, woken = parking()
    cancel = current().call_later(seconds, wake)
    try:
        await woken
    finally:
        cancel()


class FakeClock:
    """Virtual time for tests: a context manager that puts itself in the place of the system's clock.

    Args:
        autojump: Jump to the next timer whenever the event loop has nothing else to do. Without it, time
            moves only by `advance`. Work on threads is not seen as "something to do": use `advance` there.

    Attributes:
        waits: The delay of each timer that was set, in order.

    Example:
        >>> async def main():
        ...     with FakeClock() as clock:
        ...         await sleep(3600)
        ...     return clock.now()
        >>> asyncio.run(main())
        3600.0
    """

    #: Loop iterations in a row with nothing to do before time jumps: sockets are polled between two.
    _QUIET = 3

    def __init__(self, *, autojump: bool = True) -> None:
        self.autojump = autojump
        self.waits: list[float] = []
        self._now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        #: The loop on which somebody looks for the moment to jump.
        self._watched: object = None
        self._tokens: list[contextvars.Token[Clock]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return _FAKE_EPOCH + self._now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel:
        self.waits.append(delay)
        cell = [callback]  # emptied when cancelled
        heapq.heappush(self._timers, (self._now + max(0.0, delay), next(self._order), cell))
        if self.autojump:
            self._watch()
        return cell.clear

    def jump(self, seconds: float) -> None:
        """Move time on and call what has come due, in order of time. Does not let other code run."""
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, cell = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            for callback in cell:
                callback()
        self._now = max(self._now, until)

    async def advance(self, seconds: float) -> None:
        """Move time on, one timer after the other, and let everything that they wake run in between."""
        until = self._now + seconds
        await _settle()
        while (when := self._next()) is not None and when <= until:
            self.jump(when - self._now)
            await _settle()
        self.jump(until - self._now)
        await _settle()

    def _next(self) -> float | None:
        """The moment of the next timer that nobody has cancelled."""
        while self._timers and not self._timers[0][2]:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _watch(self) -> None:
        """Look, from inside the loop, for the moment at which nothing else can run."""
        if in_trio():
            import trio

            token = trio.lowlevel.current_trio_token()
            if self._watched is not token:
                self._watched = token
                trio.lowlevel.spawn_system_task(self._watch_trio)
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # driven without an event loop: the driver itself jumps
        if self._watched is not loop:
            self._watched = loop
            loop.call_soon(self._look, loop, 0)

    def _look(self, loop: asyncio.AbstractEventLoop, quiet: int) -> None:
        if self._watched is not loop:
            return
        if self._next() is None:
            self._watched = None
            return
        # asyncio has no public way to ask whether anything else is about to run; where the attribute is
        # missing (uvloop), more quiet rounds stand in for it.
        ready: Any = getattr(loop, "_ready", None)
        quiet = 0 if ready else quiet + 1
        if quiet > (self._QUIET if ready is not None else 20 * self._QUIET):
            quiet = 0
            self.jump((self._next() or self._now) - self._now)
        loop.call_soon(self._look, loop, quiet)

    async def _watch_trio(self) -> None:
        from trio.testing import wait_all_tasks_blocked

        while self._next() is not None:
            await wait_all_tasks_blocked()
            self.jump((self._next() or self._now) - self._now)
        self._watched = None

    def __enter__(self) -> FakeClock:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())

    def __repr__(self) -> str:
        return f"<FakeClock now={self._now:g} timers={len(self._timers)}>"


async def _settle() -> None:
    """Let everything that can run, run."""
    if in_trio():
        from trio.testing import wait_all_tasks_blocked

        await wait_all_tasks_blocked()
    else:
        for _ in range(50):
            await asyncio.sleep(0)
