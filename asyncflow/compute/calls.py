"""One call beside the caller, waited for by a thread or by a task; the loader and `offload` are made of it.

A thread that waits for a call which has not started takes it back and makes it itself. A task cannot do
that without holding its loop, so it waits. A cancelled wait takes the call back, or lets it end first: what
it writes to is never freed or reused before that.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import anyio

from asyncflow.compute import tiles
from asyncflow.compute.lag import probe
from asyncflow.threads import Job, ThreadPool

#: True inside a call: one that is started from there gets a thread of its own, since waiting for a place
#: in the budget that the waiter occupies would never end.
_inside: ContextVar[bool] = ContextVar("asyncflow_compute_inside_call", default=False)


class Call:
    """`fn(*args)` on a thread of the compute budget, begun when a place is free."""

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn, self._args = fn, args
        self._finished = threading.Event()
        self._wake: Callable[[], None] | None = None
        self._lock = threading.Lock()
        pool = ThreadPool(1) if _inside.get() else tiles.budget
        self._job: Job = pool.submit(_run, fn, args, done=self._done)

    def result(self) -> Any:
        """What the call returns or raises; makes it here if it has not started."""
        if self._job.withdraw():
            return self._fn(*self._args)
        self._finished.wait()
        return self._outcome()

    async def result_async(self) -> Any:
        """The same, without holding the event loop; can be cancelled while the call waits or runs."""
        where = library()
        if where is None:
            return self.result()
        if not self._finished.is_set():
            if where == "trio":
                await self._wait_on_trio()
            else:
                await self._wait_on_asyncio(asyncio.get_running_loop())
        return self._outcome()

    def drop(self) -> None:
        """Take the call back if it has not started; its result is of no interest any more."""
        self._job.withdraw()

    def _outcome(self) -> Any:
        job = self._job
        del self._fn, self._args
        if job.error is not None:
            raise job.error
        return job.value

    def _done(self, _: Job) -> None:
        with self._lock:
            self._finished.set()
            wake = self._wake
        if wake is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                wake()

    def _when_done(self, wake: Callable[[], None]) -> bool:
        """Have `wake` called at the end. Returns False if the end has come."""
        with self._lock:
            self._wake = wake
            return not self._finished.is_set()

    async def _wait_on_asyncio(self, loop: asyncio.AbstractEventLoop) -> None:
        watch = probe(loop)
        watch.enter(loop)
        try:
            await self._sleep(loop)
        except asyncio.CancelledError:
            if not self._job.withdraw():
                with anyio.CancelScope(shield=True):
                    while not self._finished.is_set():
                        with suppress(asyncio.CancelledError):
                            await self._sleep(loop)
            raise
        finally:
            watch.leave()

    async def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        ended = loop.create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        def wake() -> None:
            loop.call_soon_threadsafe(end)

        if self._when_done(wake):
            await ended

    async def _wait_on_trio(self) -> None:
        trio = sys.modules["trio"]
        token, ended = trio.lowlevel.current_trio_token(), trio.Event()
        if not self._when_done(lambda: token.run_sync_soon(ended.set)):
            return
        try:
            await ended.wait()
        except trio.Cancelled:
            if not self._job.withdraw():
                with trio.CancelScope(shield=True):
                    await ended.wait()
            raise


def library() -> str | None:
    """The event loop that runs here: asyncio, trio, or None where a coroutine is driven without one.

    A synchronous flow drives its steps without a loop; whoever waits there may simply hold the thread.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        trio = sys.modules.get("trio")
        return "trio" if trio is not None and trio.lowlevel.in_trio_run() else None
    return "asyncio"


def _run(fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    _inside.set(True)  # in the job's own copy of the context
    return fn(*args)
