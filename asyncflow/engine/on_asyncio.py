"""The host that is asyncio: native tasks, cancelled once."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import CancelledError
from collections.abc import Callable, Collection
from contextvars import Context
from types import TracebackType
from typing import Any

from asyncflow import clock
from asyncflow.engine.tasks import CancelOnceInterrupt, Start, Waker


class AsyncioHost:
    blocking = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.key: object = loop
        self.clock = clock.current()
        self.now = self.clock.now
        self.call_later = self.clock.call_later

    def from_thread(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(callback)

    def crew(self, on_cancel: Callable[[], Collection[object]]) -> AsyncioCrew:
        return AsyncioCrew(self.loop, on_cancel)

    def detach(self, function: Start, context: Context) -> AsyncioDetached:
        return AsyncioDetached(self.loop, function, context)

    def waker(self) -> AsyncioWaker:
        return AsyncioWaker(self.loop)

    def interrupt(self) -> CancelOnceInterrupt:
        return CancelOnceInterrupt(asyncio.current_task(self.loop))

    def cancelled(self, exc: BaseException) -> bool:
        task = asyncio.current_task(self.loop)
        return isinstance(exc, CancelledError) and task is not None and task.cancelling() > 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.loop.call_soon(callback)

    def cancel_pending(self) -> bool:
        task = asyncio.current_task(self.loop)
        return task is not None and task.cancelling() > 0

    async def let_others_run(self) -> None:
        await asyncio.sleep(0)

    async def outlast(self, waker: Waker) -> BaseException | None:
        cancelled: CancelledError | None = None
        while True:
            try:
                await waker.wait()
                return cancelled
            except CancelledError as signal:
                cancelled = signal


class AsyncioWaker:
    __slots__ = ("_future", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future = loop.create_future()
        self._set = False

    def set(self) -> None:
        self._set = True  # kept apart: cancelling a wait cancels its future, and another wait may follow
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        if self._set:
            return
        if self._future.cancelled():
            self._future = self._future.get_loop().create_future()
        await self._future


class AsyncioCrew:
    __slots__ = ("_at_work", "_cancelled", "_done", "_loop", "_on_cancel", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_cancel: Callable[[], Collection[object]]) -> None:
        self._loop = loop
        self._on_cancel = on_cancel
        self._tasks: list[asyncio.Task[None]] = []
        self._at_work = 0
        self._done: asyncio.Future[None] | None = None
        self._cancelled = False

    def start(self, function: Start, *args: Any, context: Context) -> None:
        if self._loop.get_task_factory() is None:  # then this is all that create_task does, for less
            task: asyncio.Task[None] = asyncio.Task(function(*args), loop=self._loop, context=context)
        else:
            task = self._loop.create_task(function(*args), context=context)
        self._tasks.append(task)
        self._at_work += 1
        if len(self._tasks) > 2 * self._at_work + 100:
            self._tasks = [task for task in self._tasks if not task.done()]
        if self._cancelled:
            self._cancel(task)

    def leave(self) -> None:
        # Children count themselves out: a done callback for each would be one more trip through the loop.
        self._at_work -= 1
        if not self._at_work and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def cancel(self, spare: Collection[object] = ()) -> None:
        if not self._cancelled:  # once: the children's own cleanup may still await
            self._cancelled = True
            # Counted anew: one that somebody else has cancelled before it began has not counted itself out.
            self._tasks = [task for task in self._tasks if not task.done()]
            self._at_work = len(self._tasks)
            for task in self._tasks:
                if task not in spare:
                    self._cancel(task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
            task.add_done_callback(lambda _: self.leave())  # it never begins, so it will not say so itself
        task.cancel()

    async def __aenter__(self) -> AsyncioCrew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        cancelled: CancelledError | None = None
        if exc is not None:
            self.cancel()
        while self._at_work:
            self._done = self._loop.create_future()
            try:
                await self._done
            except CancelledError as signal:
                self.cancel(self._on_cancel())
                cancelled = signal
        if cancelled is not None:
            raise cancelled


class AsyncioDetached:
    __slots__ = ("_cancelled", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Start, context: Context) -> None:
        self._loop = loop
        self._task = loop.create_task(function(), context=context)
        self._cancelled = False

    def cancel(self) -> None:
        """May be called from any thread, by the garbage collector too."""
        if self._cancelled or self._loop.is_closed():
            return
        self._cancelled = True  # once: what is in flight may still await in its cleanup
        if asyncio._get_running_loop() is self._loop:
            self._task.cancel()
        else:
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def join(self) -> None:
        cancelled: CancelledError | None = None
        while not self._task.done():
            try:
                await asyncio.wait((self._task,))
            except CancelledError as signal:
                cancelled = signal
        if cancelled is not None:
            raise cancelled
