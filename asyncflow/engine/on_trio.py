"""The host that is trio: its nurseries, its cancel scopes, its rules. Imported only inside a trio run."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection
from contextvars import Context
from types import TracebackType
from typing import Any

import trio

from asyncflow import clock
from asyncflow.engine.tasks import Expired, Start, Waker


class TrioHost:
    blocking = False

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self.key: object = self._token
        self.clock = clock.current()
        # Where trio's own MockClock is in use, it is the clock.
        self.now = trio.current_time if self.clock is clock.SYSTEM else self.clock.now
        self.call_later = self.clock.call_later

    def from_thread(self, callback: Callable[[], None]) -> None:
        try:
            self._token.run_sync_soon(callback)
        except trio.RunFinishedError as exc:
            raise RuntimeError("the trio run has ended") from exc

    def crew(self, on_cancel: Callable[[], Collection[object]]) -> TrioCrew:
        return TrioCrew()  # who ignores a cancellation here meets it again at the next await

    def detach(self, function: Start, context: Context) -> TrioDetached:
        return TrioDetached(self, function, context)

    def waker(self) -> TrioWaker:
        return TrioWaker()

    def interrupt(self) -> TrioInterrupt:
        return TrioInterrupt()

    def cancelled(self, exc: BaseException) -> bool:
        return isinstance(exc, trio.Cancelled)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._token.run_sync_soon(callback)

    def cancel_pending(self) -> bool:
        return bool(trio.current_effective_deadline() == -math.inf)

    async def let_others_run(self) -> None:
        await trio.lowlevel.checkpoint()

    async def outlast(self, waker: Waker) -> BaseException | None:
        with trio.CancelScope(shield=True):
            await waker.wait()
        return None  # the next checkpoint raises it


class TrioWaker:
    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = trio.Event()

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
        with trio.CancelScope() as self._scope:
            return await call(item)
        raise Expired

    def ending(self) -> object | None:
        return None


class TrioCrew:
    __slots__ = ("_manager", "_nursery")

    def leave(self) -> None:
        """Nothing to do: the nursery sees its tasks end."""

    def start(self, function: Start, *args: Any, context: Context) -> None:
        context.run(self._nursery.start_soon, function, *args)

    def cancel(self, spare: Collection[object] = ()) -> None:
        self._nursery.cancel_scope.cancel()

    async def __aenter__(self) -> TrioCrew:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self._manager.__aexit__(kind, exc, tb)
        except BaseExceptionGroup as group:  # of trio's own making: children keep what items raise
            if (only := _only(group)) is None:
                raise
            raise only from None


def _only(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """The one exception in a group of groups of one, such as a Ctrl-C that met the block."""
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        if len(exc.exceptions) != 1:
            return None
        exc = exc.exceptions[0]
    return exc


class TrioDetached:
    __slots__ = ("_ended", "_host", "_scope")

    def __init__(self, host: TrioHost, function: Start, context: Context) -> None:
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
        with trio.CancelScope(shield=True):
            await self._ended.wait()
        await self._host.let_others_run()
