"""What code inside an `exec` says of itself: that it only waits (`waiting`), what it has spent (`spent`).

A rate limit, another caller's identical request, an inner `amap`: while code waits like that, the attempt's
timeout stops, the run-wide slot is given back, and observers see the state. Who provides that (the engine)
sets `current` to a `Waiter`; where nobody did, waiting costs nothing and means nothing. What was spent is
recorded with the item's outcome, where the run is stored.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Protocol


class Waiter(Protocol):
    """What stands behind `waiting`: the attempt that is running."""

    def pause(self, reason: str) -> None:
        """The attempt only waits from here on. Calls nest."""

    async def resume(self) -> None:
        """It works again; may wait until a slot is free."""

    def pause_from_thread(self, reason: str) -> None:
        """As `pause`, called on a worker thread."""

    def resume_from_thread(self) -> None:
        """As `resume`, called on a worker thread, which it blocks."""

    def spend(
        self, input_tokens: int, output_tokens: int, cached_input_tokens: int, cost: float | None
    ) -> None:
        """The item has spent this too."""


#: The attempt that the current code belongs to.
current: ContextVar[Waiter | None] = ContextVar("asyncflow.waiting", default=None)


def spent(
    input_tokens: int, output_tokens: int, cached_input_tokens: int = 0, cost: float | None = None
) -> None:
    """Tell what a call has cost, to be recorded with the item that it was made for. Never waits.

    `LLMClient` does so for every answer, also for those of attempts that fail; an `exec` that speaks to a
    model by other means may do so itself.

    Example:
        >>> spent(1200, 80, cost=0.0024)
    """
    waiter = current.get()
    if waiter is not None:
        waiter.spend(input_tokens, output_tokens, cached_input_tokens, cost)


class waiting:
    """Say that the code in this block only waits.

    `async with waiting(reason)` in a coroutine; `with waiting(reason)` in code that runs on a worker
    thread (a plain `exec`). Leaving the block may wait until a run-wide slot is free again, so it is a
    cancel point.

    Args:
        reason: A word or two for people, such as `"rate limit"`.

    Example:
        >>> import asyncio
        >>> async def exec_async(item):
        ...     async with waiting("rate limit"):
        ...         await asyncio.sleep(0)
        ...     return item * 2
        >>> asyncio.run(exec_async(21))
        42
    """

    __slots__ = ("_waiter", "reason")

    def __init__(self, reason: str) -> None:
        self.reason = reason
        self._waiter: Waiter | None = None

    async def __aenter__(self) -> None:
        self._waiter = current.get()
        if self._waiter is not None:
            self._waiter.pause(self.reason)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._waiter is not None:
            await self._waiter.resume()

    def __enter__(self) -> None:
        self._waiter = current.get()
        if self._waiter is not None:
            self._waiter.pause_from_thread(self.reason)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._waiter is not None:
            self._waiter.resume_from_thread()
