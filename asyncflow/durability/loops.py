"""The running event loop, as a thread needs it: how to call back into it; and a blocking call off it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import anyio

from asyncflow import clock
from asyncflow.threads import Job, ThreadPool

T = TypeVar("T")


class RunningLoop:
    """The loop on which it was made, asyncio's or trio's.

    Attributes:
        key: Equal for two of the same loop.
    """

    __slots__ = ("_call", "key")

    def __init__(self) -> None:
        if clock.in_trio():
            import trio

            token = trio.lowlevel.current_trio_token()
            self.key: object = token
            self._call: Callable[[Callable[[], None]], object] = token.run_sync_soon
        else:
            loop = asyncio.get_running_loop()
            self.key = loop
            self._call = loop.call_soon_threadsafe

    def from_thread(self, callback: Callable[[], None]) -> None:
        """Call `callback()` on the loop, soon. Raises RuntimeError where the loop has ended."""
        self._call(callback)


async def on_thread(function: Callable[[], T]) -> T:
    """Call a function that blocks, on a thread. It is waited for to its end, whoever cancels.

    A cancellation that asyncio delivers meanwhile is raised afterwards; what the function raised comes first.
    """
    loop, over = RunningLoop(), anyio.Event()

    def done(_: Job) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.from_thread(over.set)

    job = ThreadPool(1).submit(function, done=done)
    cancelled: BaseException | None = None
    while not over.is_set():
        try:
            with anyio.CancelScope(shield=True):
                await over.wait()
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
    if job.error is not None:
        raise job.error
    if cancelled is not None:
        raise cancelled
    value: T = job.value
    return value
