"""`Stream`: the reader's end of a pool whose outcomes are taken one by one.

The pool runs in a task of its own. It and the reader share only an inbox, so a reader that is dropped is
noticed, and what is in flight is cancelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from asyncflow.engine.context import Run, inner, surrounding
from asyncflow.engine.doors import opened
from asyncflow.engine.hosts import running_host
from asyncflow.engine.items import Pool
from asyncflow.engine.journal import Journal
from asyncflow.engine.observers import Observer
from asyncflow.engine.on_error import OnError
from asyncflow.engine.reorder import Reorder
from asyncflow.engine.source import Source
from asyncflow.engine.step import Mode, Step
from asyncflow.engine.stopping import Stop, check_stop, stoppable
from asyncflow.engine.tasks import Detached, Host, Waker
from asyncflow.events import Statistics
from asyncflow.outcome import Outcome

T = TypeVar("T")


class _Inbox:
    """What the pool has delivered and the reader has not taken."""

    __slots__ = ("buffer", "ended", "error", "pool", "reader")

    def __init__(self) -> None:
        self.buffer: deque[Any] = deque()
        self.reader: Waker | None = None
        self.pool: Pool | None = None
        self.ended = False
        self.error: BaseException | None = None

    def put(self, outcome: Any) -> None:
        self.buffer.append(outcome)
        if self.reader is not None:
            self.wake()

    def wake(self) -> None:
        if self.reader is not None:
            self.reader.set()
            self.reader = None


class Stream(AsyncIterator["Outcome[T]"], Generic[T]):
    """Outcomes as they come: an async iterator and an async context manager.

    Nothing starts before the first outcome is asked for. At most 2 × concurrency items are started and not
    yet read. Outcomes that are there are yielded before an error is raised. Closing it, leaving its
    `async with`, dropping it, or cancelling a read cancels what is in flight and closes the source.

    Made by `stream`; not by users.
    """

    def __init__(
        self,
        step: Step,
        items: Any,
        *,
        concurrency: int,
        on_error: OnError,
        ordered: bool,
        observers: tuple[Observer, ...] = (),
        run: Run | None = None,
        journal: Callable[[], AbstractAsyncContextManager[Journal] | None] = lambda: None,
        stop: Stop | None = None,
    ) -> None:
        self._name = step.name
        self._inbox = _Inbox()
        self._buffer = self._inbox.buffer
        self._supervisor = _Supervisor(
            self._inbox,
            step,
            items,
            concurrency=concurrency,
            on_error=on_error,
            ordered=ordered,
            observers=observers,
            run=run,
            journal=journal,
            stop=check_stop(stop),
        )
        self._host = run.host if run is not None else None
        self._joins = run is None
        self._outer: Run | None = None
        self._detached: Detached | None = None
        self._closed = False
        self._reading = False
        self._cut = False
        self._statistics = Statistics()

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> Outcome[T]:
        inbox = self._inbox
        if not inbox.buffer:
            await self._fill()
        outcome: Outcome[T] = inbox.buffer.popleft()
        if inbox.pool is not None:
            inbox.pool.received()
        return outcome

    async def _fill(self) -> None:
        """Wait until the buffer holds something; raises at the end."""
        if self._cut:
            raise RuntimeError(
                f"{self!r}: a read of it was cancelled, which cancelled what was in flight and dropped what "
                "was unread; start a new stream, with a timeout for items: stream(…, timeout=seconds)"
            )
        if self._closed:
            raise StopAsyncIteration
        if self._detached is None:
            self._start()
        inbox, host, detached = self._inbox, self._host, self._detached
        assert host is not None and detached is not None
        if self._reading:
            raise RuntimeError(f"{self!r} is being read by another task; a stream has one reader")
        self._reading = True
        try:
            while not inbox.buffer:
                if inbox.ended:
                    closed, self._closed = self._closed, True
                    await detached.join()
                    self._settle()
                    if inbox.error is not None and not closed:
                        raise inbox.error
                    raise StopAsyncIteration
                inbox.reader = host.waker()
                try:
                    async with inner(self._outer):
                        await inbox.reader.wait()
                except BaseException:
                    inbox.reader = None
                    self._cut = not self._closed
                    await self.aclose()
                    raise
        finally:
            self._reading = False

    def _start(self) -> None:
        host = self._host = self._host or running_host()
        self._outer = surrounding(host) if self._joins else None
        self._detached = host.detach(partial(self._supervisor, host), copy_context())

    async def aclose(self) -> None:
        """Cancel what is in flight, wait for it, close the source. Outcomes not yet read are gone."""
        self._closed = True
        detached = self._detached
        if detached is not None and not self._inbox.ended:
            detached.cancel()
            try:
                await detached.join()
            finally:
                self._inbox.ended = True  # a supervisor that was cancelled before it began cannot say so
                self._inbox.wake()
        self._settle()
        self._inbox.buffer.clear()

    def _settle(self) -> None:
        """Keep the last counts, let go of the pool."""
        self._statistics = self.statistics()
        self._inbox.pool = None

    def statistics(self) -> Statistics:
        """What has happened so far."""
        pool = self._inbox.pool
        return self._statistics if pool is None else pool.statistics()

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        detached = getattr(self, "_detached", None)
        if detached is not None and not self._inbox.ended:
            detached.cancel()

    def __repr__(self) -> str:
        now = self.statistics()
        state = "closed" if self._closed else "not started" if self._detached is None else "open"
        return (
            f"<Stream {self._name!r} {state} [{now.in_flight} in flight, {now.parked} parked, "
            f"{len(self._inbox.buffer)} unread; {now.succeeded} ok, {now.failed} failed]>"
        )


class _Supervisor:
    """The task that the pool runs in. It must not refer to the `Stream`.

    Args:
        run: The run that the pool is part of; None: the stream is a door, and begins one.
        Others as for `stream`.
    """

    def __init__(
        self,
        inbox: _Inbox,
        step: Step,
        items: Any,
        *,
        concurrency: int,
        on_error: OnError,
        ordered: bool,
        observers: tuple[Observer, ...],
        run: Run | None,
        journal: Callable[[], AbstractAsyncContextManager[Journal] | None],
        stop: Stop | None,
    ) -> None:
        self._inbox = inbox
        self._step = step
        self._items = items
        self._concurrency = concurrency
        self._on_error = on_error
        self._reorder = Reorder(inbox.put) if ordered else None
        self._observers = observers
        self._run = run
        self._journal = journal
        self._stop = stop

    async def __call__(self, host: Host) -> None:
        inbox = self._inbox
        try:
            if self._run is not None:
                await self._run_pool(self._run)
            else:
                await self._run_as_door(host, self._step.name)
        except BaseException as exc:
            inbox.error = exc
            if host.cancelled(exc):
                raise
        finally:
            if self._reorder is not None:
                self._reorder.flush()
            inbox.ended = True
            inbox.wake()

    async def _run_as_door(self, host: Host, name: str) -> None:
        async with opened(
            host, name, observers=self._observers, waits=False, journal=self._journal(), stop=self._stop
        ) as run:
            await stoppable(run, name, lambda: self._run_pool(run.inside(name)))

    async def _run_pool(self, run: Run) -> None:
        step = self._step
        self._inbox.pool = pool = Pool(
            step,
            Source(self._items, host=run.host, blocking=step.mode is Mode.THREAD),
            run,
            concurrency=self._concurrency,
            on_error=self._on_error,
            deliver=self._inbox.put if self._reorder is None else self._reorder.put,
            window=2 * self._concurrency,
        )
        await pool.run()
