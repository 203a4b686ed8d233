"""Running a coroutine from synchronous code, on an event loop of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from asyncflow import clock
from asyncflow.waiting import current

T = TypeVar("T")


def run_to_end(function: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `function()` on a new event loop and return its result; blocks.

    Where this thread already runs a loop, the new one gets a thread of its own. Context variables are those
    of the caller, except that the work belongs to no `exec`.
    """
    context = contextvars.copy_context()
    context.run(current.set, None)
    if not in_loop():
        return context.run(asyncio.run, function())
    value: T = _Thread(function, context).finish()
    return value


def _task_around() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def in_loop() -> bool:
    """Whether this thread runs an event loop, of either kind."""
    return asyncio._get_running_loop() is not None or clock.in_trio()


class _Thread:
    """A thread with a loop, and a way to cancel what runs there."""

    def __init__(
        self, function: Callable[[], Coroutine[Any, Any, Any]], context: contextvars.Context
    ) -> None:
        self._function = function
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name="asyncflow-run-sync", daemon=True
        )

    def finish(self) -> Any:
        around = _task_around()
        before = around.cancelling() if around is not None else 0
        self._thread.start()  # from here on Ctrl-C may come
        try:
            while self._thread.is_alive():
                # On asyncio Ctrl-C does not raise here: it cancels the task around, which we hold up.
                self._thread.join(0.1 if around is not None else None)
                if around is not None and around.cancelling() > before:
                    raise asyncio.CancelledError
        except BaseException:  # Ctrl-C: the flow is cancelled and awaited, then it is raised
            self._cancelled = True  # first, for a loop that has not begun
            if self._loop is not None and self._task is not None:
                with suppress(RuntimeError):  # it has ended
                    self._loop.call_soon_threadsafe(self._task.cancel)
            self._thread.join()
            raise
        if self._error is not None:
            raise self._error
        return self._value

    def _run(self) -> None:
        try:
            self._value = asyncio.run(self._main())
        except BaseException as exc:
            self._error = exc

    async def _main(self) -> Any:
        self._task, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._cancelled:
            raise asyncio.CancelledError
        return await self._function()
