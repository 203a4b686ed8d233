"""What the engine needs of whatever runs it: the one seam between the engine and asyncio, trio or nobody.

A `Host` starts children and waits for them (`Crew`), parks a coroutine until somebody calls (`Waker`),
stops one call whose time is over (`Interrupt`), and lets a thread call home. On asyncio these are native
tasks rather than an anyio task group: asyncio cancels once, so a cancelled `exec` may still await in its
`finally`, and starting a child costs a third. On trio, trio's rules. `driver.py` is the host of synchronous
flows, which run without an event loop.
"""

from __future__ import annotations

import asyncio
import sys
import types
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from types import TracebackType
from typing import Any, Protocol, TypeVar

from asyncflow import clock
from asyncflow.clock import Cancel, Clock

T = TypeVar("T")
Start = Callable[..., Coroutine[Any, Any, None]]


class Expired(BaseException):
    """The call was stopped by its `Interrupt`. Never seen by users: it becomes an ItemTimeoutError."""


class Waker(Protocol):
    """One coroutine waits, anyone on the same thread calls `set`, once."""

    def set(self) -> None: ...
    async def wait(self) -> None: ...


class Interrupt(Protocol):
    """Runs one call at a time in the task that made it, and can end it with `Expired`."""

    def fire(self) -> None: ...
    async def run(self, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any: ...


class Crew(Protocol):
    """Children that never outlive the block: leaving it waits for all of them.

    A cancellation, of the block or by `cancel`, reaches every child once, one that is started later too;
    that of the block is raised again when all have ended. The last thing a child does is to call `leave`.
    """

    def leave(self) -> None: ...
    def start(self, function: Start, *args: Any, context: Context) -> None: ...
    def cancel(self) -> None: ...
    async def __aenter__(self) -> Crew: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


class Detached(Protocol):
    """A task of its own, for work that outlives the call that began it (a stream)."""

    def cancel(self) -> None: ...
    async def join(self) -> None: ...


class Host(Protocol):
    """See the module.

    Attributes:
        blocking: Waiting stops the whole thread, so there is no loop to be kind to.
        key: What two hosts have in common exactly when they are the same loop.
    """

    blocking: bool
    key: object
    clock: Clock
    now: Callable[[], float]

    def crew(self, on_cancel: Callable[[], None]) -> Crew:
        """A crew; `on_cancel` is told when its block is cancelled, since a child may ignore that."""

    def detach(self, function: Start, context: Context) -> Detached: ...
    def waker(self) -> Waker: ...
    def interrupt(self) -> Interrupt: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel: ...
    def from_thread(self, callback: Callable[[], None]) -> None:
        """Call `callback()` on the loop; from any thread. RuntimeError: the loop has ended."""

    def cancelled(self, exc: BaseException) -> bool:
        """Whether `exc`, just caught, is a cancellation of the calling task, not an exec's own doing."""

    async def let_others_run(self) -> None: ...
    async def outlast(self, waker: Waker) -> None:
        """Wait although cancelled, for work that cannot be stopped."""


async def sleep(host: Host, seconds: float) -> None:
    """Wait on the host's clock. A cancel point, except that a blocking host cannot be cancelled."""
    waker = host.waker()
    cancel = host.call_later(seconds, waker.set)
    try:
        await waker.wait()
    finally:
        cancel()


def running_host() -> Host:
    """The host of the running event loop.

    Raises:
        RuntimeError: If there is none.
    """
    if clock.in_trio():
        return TrioHost()
    try:
        return AsyncioHost(asyncio.get_running_loop())
    except RuntimeError:
        raise RuntimeError(
            "no event loop is running: await this inside `async def`, or call the synchronous door "
            "(run_sync, or .run() of a synchronous flow)"
        ) from None


class CancelOnceInterrupt:
    """For hosts whose tasks are cancelled once and count it, as asyncio's."""

    __slots__ = ("_fired", "_task")

    def __init__(self, task: Any) -> None:
        self._task = task
        self._fired = False

    def fire(self) -> None:
        self._fired = True
        self._task.cancel()

    async def run(self, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
        before = self._task.cancelling()
        self._fired = False
        try:
            value = await call(item)
        except BaseException as exc:
            # Two may have cancelled: the interrupt and somebody outside. The outside wins.
            if self._fired and self._task.uncancel() <= before and isinstance(exc, CancelledError):
                raise Expired from None
            raise
        if self._fired:  # the call has swallowed its cancellation; its value counts
            self._task.uncancel()
        return value


@types.coroutine
def in_context(context: Context, coroutine: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    """Run a coroutine in the calling task, but in a context of its own."""
    resume: Callable[..., Any] = coroutine.send
    argument: Any = None
    while True:
        try:
            signal = context.run(resume, argument)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        try:
            argument = yield signal
            resume = coroutine.send
        except BaseException as exc:
            resume, argument = coroutine.throw, exc


class LoneCrew:
    """A crew of one at a time, which works in the calling task itself: no task, no switch.

    Where its child does not suspend, neither does the block, so what plain nodes do stays atomic.
    """

    __slots__ = ("_children",)

    def __init__(self) -> None:
        self._children: deque[tuple[Context, Coroutine[Any, Any, None]]] = deque()

    def leave(self) -> None:
        """Nothing to do: the block runs its children itself."""

    def start(self, function: Start, *args: Any, context: Context) -> None:
        self._children.append((context, function(*args)))

    def cancel(self) -> None:
        """Nothing to do: who calls this is the one child, or a cancellation that reaches it by itself."""

    async def __aenter__(self) -> LoneCrew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            while self._children:
                context, child = self._children.popleft()
                await in_context(context, child)
        finally:
            for _, child in self._children:
                child.close()


# asyncio ---------------------------------------------------------------------------------------------------


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

    def crew(self, on_cancel: Callable[[], None]) -> AsyncioCrew:
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

    async def let_others_run(self) -> None:
        await asyncio.sleep(0)

    async def outlast(self, waker: Waker) -> None:
        while True:
            try:
                return await waker.wait()
            except CancelledError:
                continue


class AsyncioWaker:
    __slots__ = ("_future", "_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._future = loop.create_future()
        self._set = False

    def set(self) -> None:
        self._set = True  # a cancelled future cannot say so, and the next wait has to know
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        if self._set:
            return
        if self._future.cancelled():  # a wait before this one was cancelled
            self._future = self._future.get_loop().create_future()
        await self._future


class AsyncioCrew:
    __slots__ = ("_cancelled", "_done", "_loop", "_on_cancel", "_tasks")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_cancel: Callable[[], None]) -> None:
        self._loop = loop
        self._on_cancel = on_cancel
        self._tasks: set[asyncio.Task[None]] = set()
        self._done: asyncio.Future[None] | None = None
        self._cancelled = False

    def start(self, function: Start, *args: Any, context: Context) -> None:
        task = self._loop.create_task(function(*args), context=context)
        self._tasks.add(task)
        if self._cancelled:
            self._cancel(task)

    def leave(self) -> None:
        # Cheaper than a done callback for each child, which is one more trip through the loop.
        self._ended(asyncio.current_task(self._loop))

    def cancel(self) -> None:
        if not self._cancelled:  # once: the children's own cleanup may still await
            self._cancelled = True
            for task in tuple(self._tasks):
                self._cancel(task)

    def _cancel(self, task: asyncio.Task[None]) -> None:
        task.add_done_callback(self._ended)  # one that has not begun will never leave by itself
        task.cancel()

    def _ended(self, task: asyncio.Task[None] | None) -> None:
        self._tasks.discard(task)
        if not self._tasks and self._done is not None and not self._done.done():
            self._done.set_result(None)

    async def __aenter__(self) -> AsyncioCrew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        cancelled: CancelledError | None = None
        if exc is not None:
            self.cancel()
        while self._tasks:
            self._done = self._loop.create_future()
            try:
                await self._done
            except CancelledError as signal:
                self._on_cancel()
                self.cancel()
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


# trio ------------------------------------------------------------------------------------------------------


class TrioHost:
    blocking = False

    def __init__(self) -> None:
        import trio

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self.key: object = self._token
        self.clock = clock.current()
        # Where trio's own MockClock is in use, it is the clock.
        self.now = trio.current_time if self.clock is clock.SYSTEM else self.clock.now
        self.call_later = self.clock.call_later

    def from_thread(self, callback: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except self._trio.RunFinishedError as exc:
            raise RuntimeError("the trio run has ended") from exc

    def crew(self, on_cancel: Callable[[], None]) -> TrioCrew:
        return TrioCrew()  # who ignores a cancellation here meets it again at the next await

    def detach(self, function: Start, context: Context) -> TrioDetached:
        return TrioDetached(self, function, context)

    def waker(self) -> TrioWaker:
        return TrioWaker()

    def interrupt(self) -> TrioInterrupt:
        return TrioInterrupt()

    def cancelled(self, exc: BaseException) -> bool:
        return isinstance(exc, self._trio.Cancelled)

    async def let_others_run(self) -> None:
        await self._trio.lowlevel.checkpoint()

    async def outlast(self, waker: Waker) -> None:
        with self._trio.CancelScope(shield=True):
            await waker.wait()


class TrioWaker:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = sys.modules["trio"].Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


class TrioInterrupt:
    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope: Any = None

    def fire(self) -> None:
        self._scope.cancel()

    async def run(self, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
        with sys.modules["trio"].CancelScope() as self._scope:
            return await call(item)
        raise Expired


class TrioCrew:
    __slots__ = ("_manager", "_nursery")

    def leave(self) -> None:
        """Nothing to do: the nursery sees its tasks end."""

    def start(self, function: Start, *args: Any, context: Context) -> None:
        context.run(self._nursery.start_soon, function, *args)

    def cancel(self) -> None:
        self._nursery.cancel_scope.cancel()

    async def __aenter__(self) -> TrioCrew:
        self._manager = sys.modules["trio"].open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._manager.__aexit__(kind, exc, tb)


class TrioDetached:
    __slots__ = ("_ended", "_host", "_scope")

    def __init__(self, host: TrioHost, function: Start, context: Context) -> None:
        trio = sys.modules["trio"]
        self._host = host
        self._scope = trio.CancelScope()
        self._ended = ended = trio.Event()
        scope = self._scope

        async def supervise() -> None:
            try:
                with scope:
                    await function()
            finally:
                ended.set()

        trio.lowlevel.spawn_system_task(supervise, context=context)

    def cancel(self) -> None:
        """May be called from any thread, by the garbage collector too."""
        if clock.in_trio():
            self._scope.cancel()
        else:
            try:
                self._host.from_thread(self._scope.cancel)
            except RuntimeError:
                return  # the run has ended, and its tasks with it

    async def join(self) -> None:
        with sys.modules["trio"].CancelScope(shield=True):
            await self._ended.wait()
        await self._host.let_others_run()
