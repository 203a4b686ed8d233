"""The host of synchronous flows: drives the engine's coroutines on the caller's thread, with no event loop.

`drive(coroutine)` runs it to its end and blocks where it would suspend: a retry wait, threads at work. So
`Flow(...).run(shared)` works anywhere, inside a running event loop (a notebook) included, and there is no
second, synchronous copy of the engine.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import traceback
import types
from asyncio import CancelledError
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

from asyncflow import clock
from asyncflow.clock import Cancel, FakeClock
from asyncflow.engine.tasks import CancelOnceInterrupt, Start, Waker

T = TypeVar("T")


def drive(host: BlockingHost, coroutine: Coroutine[Any, Any, T]) -> T:
    """Run `coroutine`, whose host is `host`, to its end on this thread and return what it returns.

    A StopIteration of the user's comes out as it is, although no coroutine can raise one.
    """
    try:
        try:
            coroutine.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        return host.finish(coroutine)
    except RuntimeError as exc:
        stop = _stop_iteration_in(exc)
        if stop is None:
            raise
    raise stop


def _stop_iteration_in(error: RuntimeError) -> StopIteration | None:
    """What became this error on its way through the engine's coroutines, if it is that kind of error."""
    stop = error.__cause__
    if not isinstance(stop, StopIteration) or error.args != ("coroutine raised StopIteration",):
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if not frame.f_globals.get("__name__", "").startswith("asyncflow."):
            return None  # it comes from a coroutine of the user's own
    if not hasattr(stop, "__notes__"):
        for note in getattr(error, "__notes__", ()):
            stop.add_note(note)
    return stop


#: Seconds between two looks at a task around that may have been cancelled.
_LOOK = 0.1


def _task_around() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop here
        return None


@types.coroutine
def _park() -> Generator[None, None, None]:
    yield


class _Child:
    """A coroutine on this host, with the parts of asyncio.Task that cancelling needs."""

    __slots__ = ("_cancelling", "_host", "_must_cancel", "context", "coroutine", "crew", "ended", "scheduled")

    def __init__(
        self, host: BlockingHost, coroutine: Coroutine[Any, Any, Any], context: Context | None
    ) -> None:
        self._host = host
        self.coroutine = coroutine
        self.context = context
        self.crew: BlockingCrew | None = None
        self.scheduled = False
        self.ended = False
        self._must_cancel = False
        self._cancelling = 0

    def cancel(self) -> None:
        self._cancelling += 1
        self._must_cancel = True
        self.schedule()

    def cancelling(self) -> int:
        return self._cancelling

    def uncancel(self) -> int:
        self._cancelling = max(0, self._cancelling - 1)
        return self._cancelling

    def schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self._host.ready.append(self)

    def step(self) -> None:
        """Run until it parks. Raises StopIteration, or what it raises, at its end."""
        self.scheduled = False
        if self._must_cancel:
            self._must_cancel = False
            resume: Callable[..., Any] = self.coroutine.throw
            argument: Any = CancelledError()
        else:
            resume, argument = self.coroutine.send, None
        if self.context is None:
            resume(argument)
        else:
            self.context.run(resume, argument)


class BlockingHost:
    """See the module. One host serves one call of `drive`."""

    blocking = True

    def __init__(self) -> None:
        self.key: object = self
        self.clock = clock.current()
        self.now = self.clock.now
        self.ready: deque[_Child] = deque()
        self.current: _Child = _Child(self, None, None)  # type: ignore[arg-type]  # set by finish
        self._main = self.current
        #: Calls from threads, and a bell that only wakes: Ctrl-C may swallow a ring, but never a call.
        self._calls: deque[Callable[[], None]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._timers: list[tuple[float, int, list[Callable[[], None]]]] = []
        self._order = itertools.count()
        self._interrupted: BaseException | None = None
        #: The task of an event loop that this host holds up, and how often it was cancelled before.
        self._around = _task_around()
        self._told = False
        self._before = self._around.cancelling() if self._around is not None else 0

    def _around_cancelled(self) -> bool:
        """Whether the task around was cancelled meanwhile. On asyncio Ctrl-C does that, and nothing more."""
        return self._around is not None and self._around.cancelling() > self._before

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Go on with a coroutine that has parked for the first time."""
        try:
            return self._finish(coroutine)
        finally:
            if self._interrupted is not None:
                raise self._interrupted

    def _finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        self._main.coroutine = coroutine
        while True:
            while self.ready:
                self.current = child = self.ready.popleft()
                if child.ended:
                    continue  # it was called once more, or cancelled, in its last step
                try:
                    child.step()
                except StopIteration as done:
                    child.ended = True
                    if child is self._main:
                        value: T = done.value
                        return value
                    child.crew.ended(child, None)  # type: ignore[union-attr]
                except BaseException as exc:
                    child.ended = True
                    if child is self._main:
                        raise
                    child.crew.ended(child, exc)  # type: ignore[union-attr]
            self._block()

    def _block(self) -> None:
        """Wait for a thread to call home or a timer to come due."""
        while self._timers and not self._timers[0][2]:
            heapq.heappop(self._timers)
        try:
            if self._timers and isinstance(self.clock, FakeClock) and not self._calls:
                self.clock.jump(self._timers[0][0] - self.now())
            timeout = max(0.0, self._timers[0][0] - self.now()) if self._timers else None
            if self._around is not None:  # a cancelled task cannot ring
                if self._around_cancelled() and not self._told:
                    self._told = True
                    self._main.cancel()
                    return
                timeout = _LOOK if timeout is None else min(timeout, _LOOK)
            if not self._calls:
                with suppress(Empty):
                    self._bell.get(timeout=timeout)
            while self._calls:
                self._calls[0]()
                self._calls.popleft()  # only now: an interrupted call is made once more
        except BaseException as exc:  # Ctrl-C: first the children end, then it is raised
            self._interrupted = exc
            self._main.cancel()
            return
        while self._timers and self._timers[0][0] <= self.now():
            for due in heapq.heappop(self._timers)[2]:
                due()

    def crew(self, on_cancel: Callable[[], Collection[object]]) -> BlockingCrew:
        return BlockingCrew(self, on_cancel)

    def detach(self, function: Start, context: Context) -> BlockingDetached:
        return BlockingDetached(self, function, context)

    def waker(self) -> BlockingWaker:
        return BlockingWaker(self)

    def interrupt(self) -> CancelOnceInterrupt:
        return CancelOnceInterrupt(self.current)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel:
        if isinstance(self.clock, FakeClock):
            self.clock.waits.append(delay)
        cell = [callback]
        heapq.heappush(self._timers, (self.now() + delay, next(self._order), cell))
        return cell.clear

    def from_thread(self, callback: Callable[[], None]) -> None:
        self._calls.append(callback)
        self._bell.put(None)

    def cancelled(self, exc: BaseException) -> bool:
        return isinstance(exc, CancelledError) and self.current.cancelling() > 0

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.from_thread(callback)

    def cancel_pending(self) -> bool:
        return self._around_cancelled()

    async def let_others_run(self) -> None:
        if self._around_cancelled():
            raise CancelledError

    async def outlast(self, waker: Waker) -> BaseException | None:
        cancelled: CancelledError | None = None
        while True:
            try:
                await waker.wait()
                return cancelled
            except CancelledError as signal:
                cancelled = signal


class BlockingWaker:
    __slots__ = ("_child", "_host", "_set")

    def __init__(self, host: BlockingHost) -> None:
        self._host = host
        self._child: _Child | None = None
        self._set = False

    def set(self) -> None:
        self._set = True
        if self._child is not None:
            self._child.schedule()

    async def wait(self) -> None:
        if not self._set:
            self._child = self._host.current
            try:
                while not self._set:
                    await _park()
            finally:
                self._child = None


class BlockingCrew:
    __slots__ = ("_bug", "_cancelled", "_children", "_host", "_idle", "_on_cancel")

    def __init__(self, host: BlockingHost, on_cancel: Callable[[], Collection[object]] | None = None) -> None:
        self._host = host
        self._on_cancel = on_cancel
        self._children: set[_Child] = set()
        self._idle: BlockingWaker | None = None
        self._cancelled = False
        self._bug: BaseException | None = None

    def leave(self) -> None:
        """Nothing to do: the host sees its children end."""

    def start(self, function: Start, *args: Any, context: Context) -> None:
        child = _Child(self._host, function(*args), context)
        child.crew = self
        self._children.add(child)
        child.schedule()
        if self._cancelled:
            child.cancel()

    def cancel(self, spare: Collection[object] = ()) -> None:
        if self._cancelled:
            return
        self._cancelled = True
        for child in tuple(self._children):
            if child not in spare:
                child.cancel()

    def ended(self, child: _Child, exc: BaseException | None) -> None:
        self._children.discard(child)
        if exc is not None and not isinstance(exc, CancelledError):
            self._bug = self._bug or exc
            self.cancel()
        if not self._children and self._idle is not None:
            self._idle.set()

    async def __aenter__(self) -> BlockingCrew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        cancelled: CancelledError | None = None
        if exc is not None:
            self.cancel()
        while self._children:
            self._idle = self._host.waker()
            try:
                await self._idle.wait()
            except CancelledError as signal:
                self.cancel(self._on_cancel() if self._on_cancel is not None else ())
                cancelled = signal
        if self._bug is not None:
            raise self._bug
        if cancelled is not None:
            raise cancelled


class BlockingDetached:
    """A crew of one."""

    __slots__ = ("_crew",)

    def __init__(self, host: BlockingHost, function: Start, context: Context) -> None:
        self._crew = BlockingCrew(host)
        self._crew.start(function, context=context)

    def cancel(self) -> None:
        self._crew.cancel()

    async def join(self) -> None:
        await self._crew.__aexit__(None, None, None)
