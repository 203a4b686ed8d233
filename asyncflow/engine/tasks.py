"""What the engine needs of whatever runs it: the one seam between the engine and asyncio, trio or nobody.

A `Host` starts children and waits for them (`Crew`), parks a coroutine until somebody calls (`Waker`),
stops one call whose time is over (`Interrupt`), and lets a thread call home. On asyncio these are native
tasks rather than an anyio task group: asyncio cancels once, so a cancelled `exec` may still await in its
`finally`, and starting a child costs a third. On trio, trio's rules. `driver.py` is the host of synchronous
flows, which run without an event loop.
"""

from __future__ import annotations

import types
from asyncio import CancelledError
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from contextvars import Context
from types import TracebackType
from typing import Any, Protocol, TypeVar

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
    def ending(self) -> object | None:
        """The task, while the call that was ended is still at its cleanup."""

    async def run(self, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any: ...


class Crew(Protocol):
    """Children that never outlive the block: leaving it waits for all of them.

    A cancellation, of the block or by `cancel`, reaches every child once, one that is started later too,
    except those to spare, which are being cancelled already for a reason of their own. That of the block is
    raised again when all have ended. The last thing a child does is to call `leave`.
    """

    def leave(self) -> None: ...
    def start(self, function: Start, *args: Any, context: Context) -> None: ...
    def cancel(self, spare: Collection[object] = ()) -> None: ...
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

    def crew(self, on_cancel: Callable[[], Collection[object]]) -> Crew:
        """A crew; `on_cancel` is told when its block is cancelled, since a child may ignore that, and says
        whom to spare."""

    def detach(self, function: Start, context: Context) -> Detached: ...
    def waker(self) -> Waker: ...
    def interrupt(self) -> Interrupt: ...
    def call_later(self, delay: float, callback: Callable[[], None]) -> Cancel: ...
    def from_thread(self, callback: Callable[[], None]) -> None:
        """Call `callback()` on the loop; from any thread. RuntimeError: the loop has ended."""

    def cancelled(self, exc: BaseException) -> bool:
        """Whether `exc`, just caught, is a cancellation of the calling task, not an exec's own doing."""

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call `callback()` in the next turn of the loop."""

    def cancel_pending(self) -> bool:
        """Whether the calling task has been cancelled and has not heard of it, since it has not suspended."""

    async def let_others_run(self) -> None: ...
    async def outlast(self, waker: Waker) -> BaseException | None:
        """Wait although cancelled, for work that cannot be stopped.

        Returns:
            The cancellation that came meanwhile, which the caller raises once its books are in order; None
            where there was none, or the host raises it again by itself.
        """


async def sleep(host: Host, seconds: float) -> None:
    """Wait on the host's clock. A cancel point, except that a blocking host cannot be cancelled."""
    waker = host.waker()
    cancel = host.call_later(seconds, waker.set)
    try:
        await waker.wait()
    finally:
        cancel()


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
            fired, self._fired = self._fired, False
            if fired and self._task.uncancel() <= before and isinstance(exc, CancelledError):
                raise Expired from None
            raise
        if self._fired:  # the call has swallowed its cancellation; its value counts
            self._fired = False
            self._task.uncancel()
        return value

    def ending(self) -> object | None:
        return self._task if self._fired else None


class LoneCrew:
    """A crew of one at a time, which works in the calling task itself: no task, no switch.

    Where its child does not suspend, neither does the block, so what plain nodes do stays atomic.
    """

    __slots__ = ("_cancelled", "_children", "_host", "_interrupt", "_suspended")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._children: deque[tuple[Context, Coroutine[Any, Any, None]]] = deque()
        self._interrupt: Interrupt | None = None
        self._suspended = self._cancelled = False

    def leave(self) -> None:
        """Nothing to do: the block runs its children itself."""

    def start(self, function: Start, *args: Any, context: Context) -> None:
        self._children.append((context, function(*args)))

    def cancel(self, spare: Collection[object] = ()) -> None:
        """Cut off the child where it waits. Nothing to do where it calls this itself, or is to be spared."""
        if self._suspended and not self._cancelled and not spare and self._interrupt is not None:
            self._cancelled = True
            self._interrupt.fire()

    async def __aenter__(self) -> LoneCrew:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            if exc is None:
                self._interrupt = self._host.interrupt()
                await self._interrupt.run(self._work, None)
        except Expired:  # by `cancel`; why is known to who has called it
            pass
        finally:
            self._interrupt = None
            for _, child in self._children:
                child.close()

    async def _work(self, _: Any) -> None:
        while self._children:
            context, child = self._children.popleft()
            await self._in_context(context, child)

    @types.coroutine
    def _in_context(self, context: Context, child: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
        """Run a child in the calling task, but in a context of its own."""
        resume: Callable[..., Any] = child.send
        argument: Any = None
        while True:
            try:
                signal = context.run(resume, argument)
            except StopIteration as done:
                value: T = done.value
                return value
            try:
                self._suspended = True
                argument = yield signal
                resume = child.send
            except BaseException as exc:
                resume, argument = child.throw, exc
            finally:
                self._suspended = False
