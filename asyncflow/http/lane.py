"""The seam where a limit stands: one context manager around each attempt that goes over the wire.

A lane decides when an attempt may start. It sees how the attempt ended, because the error passes through its
`__aexit__`, and what the answer said about quotas, because the client tells its ticket. Waiting happens on
entering, through `waiting(…)`, and never counts against a timeout.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

import anyio
import httpx

from asyncflow.waiting import waiting


class Ticket(Protocol):
    """One attempt's permission to run."""

    def answered(self, headers: httpx.Headers) -> None:
        """An answer has come, of whatever status; these are its headers."""

    def used(self, tokens: int) -> None:
        """What the call really used, in the unit of the `tokens` it was entered with."""


class Lane(Protocol):
    """What an `HTTPClient` asks before each attempt."""

    def attempt(
        self, tokens: int | Callable[[], int] = 0, *, retry: bool = False
    ) -> AbstractAsyncContextManager[Ticket]:
        """A context manager around one attempt.

        Args:
            tokens: What it is expected to use, or a function that says so when its turn has come.
            retry: Whether it repeats one that failed.
        """


class OpenLane:
    """No limit: every attempt starts at once."""

    __slots__ = ()

    def attempt(
        self, tokens: int | Callable[[], int] = 0, *, retry: bool = False
    ) -> AbstractAsyncContextManager[Ticket]:
        return self

    def answered(self, headers: httpx.Headers) -> None:
        pass

    def used(self, tokens: int) -> None:
        pass

    async def __aenter__(self) -> Ticket:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        pass

    def __repr__(self) -> str:
        return "<OpenLane>"


@dataclass(frozen=True, slots=True)
class LaneStatistics:
    """What a lane is doing at one moment: counts of attempts."""

    limit: int
    running: int
    waiting: int


class SlotLane:
    """At most `concurrency` attempts at once, first come first served.

    An attempt that waits for its slot says so (`waiting("slot")`), so no timeout runs meanwhile. Being
    cancelled while waiting gives nothing away.

    Args:
        concurrency: Attempts at once, at least 1.
    """

    def __init__(self, concurrency: int) -> None:
        if isinstance(concurrency, bool) or not isinstance(concurrency, int):
            raise TypeError(f"concurrency={concurrency!r}: a whole number is needed")
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency!r}: at least 1 is needed")
        self._slots = anyio.Semaphore(concurrency, fast_acquire=True)
        self._limit = concurrency

    def attempt(
        self, tokens: int | Callable[[], int] = 0, *, retry: bool = False
    ) -> AbstractAsyncContextManager[Ticket]:
        return _Slot(self._slots)

    def statistics(self) -> LaneStatistics:
        """What the lane is doing now."""
        return LaneStatistics(
            self._limit, self._limit - self._slots.value, self._slots.statistics().tasks_waiting
        )

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<SlotLane limit={now.limit} running={now.running} waiting={now.waiting}>"


class _Slot(OpenLane):
    __slots__ = ("_slots",)

    def __init__(self, slots: anyio.Semaphore) -> None:
        self._slots = slots

    async def __aenter__(self) -> Ticket:
        try:
            self._slots.acquire_nowait()
        except anyio.WouldBlock:
            pass
        else:
            return self
        acquired = False
        try:
            async with waiting("slot"):
                await self._slots.acquire()
                acquired = True
        except BaseException:  # leaving `waiting` may wait too, and be cancelled there
            if acquired:
                self._slots.release()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._slots.release()
