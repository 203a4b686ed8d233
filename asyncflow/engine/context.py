"""What a run's parts share: its host, its cap, whom it tells, what it has counted.

A `Run` is made by each door (`run`, `amap`, `stream`, a flow's own `run`) and handed down by argument. A
door that is opened inside an `exec` finds the run around it through the attempt that is running, shares
its cap and its observers, and counts as waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, Protocol

from asyncflow.engine.tasks import Host
from asyncflow.events import Event, Statistics
from asyncflow.waiting import current, waiting


class Cap:
    """How many `exec`s of a run are running, over all its nodes, and who is next. First come first served."""

    def __init__(self, host: Host, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self._host = host
        self._queue: deque[_Ticket] = deque()

    async def acquire(self) -> None:
        """Take a slot, waiting for one if need be. A cancel point only where it waits."""
        if self.acquire_nowait():
            return
        waker = self._host.waker()
        ticket = _Ticket(waker.set)
        self._queue.append(ticket)
        try:
            await waker.wait()
        except BaseException:
            if ticket.granted:
                self.release()
            else:
                self._queue.remove(ticket)
            raise

    def acquire_nowait(self) -> bool:
        """Take a slot if one is free and nobody queues for it."""
        if self.running >= self.limit or self._queue:
            return False
        self.running += 1
        return True

    def acquire_then(self, granted: Callable[[], None]) -> None:
        """Take a slot for code that cannot await: `granted` is called once it is there."""
        if self.acquire_nowait():
            granted()
        else:
            self._queue.append(_Ticket(granted))

    def release(self) -> None:
        """Give the slot to the next in the queue, or back."""
        if self._queue:
            ticket = self._queue.popleft()
            ticket.granted = True
            ticket.grant()
        else:
            self.running -= 1

    def __repr__(self) -> str:
        return f"<Cap {self.running} of {self.limit} running, {len(self._queue)} queued>"


class _Ticket:
    __slots__ = ("grant", "granted")

    def __init__(self, grant: Callable[[], None]) -> None:
        self.grant = grant
        self.granted = False


class Counted(Protocol):
    """Whoever counts items while it is at work: a pool."""

    started: int
    succeeded: int
    failed: int
    skipped: int
    retries: int
    waiting: int

    @property
    def cancelled(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def parked(self) -> int: ...


class Counts:
    """What a run has counted; `pools` that are at work are added when somebody asks."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.started = self.succeeded = self.failed = self.skipped = self.retries = self.steps = 0
        self.cancelled = 0
        self.loop_lag = 0.0
        self.pools: set[Counted] = set()
        self._now = now
        self._began = now()

    def add(self, pool: Counted) -> None:
        """Keep what a pool has counted, once it is done."""
        self.pools.discard(pool)
        self.started += pool.started
        self.succeeded += pool.succeeded
        self.failed += pool.failed
        self.skipped += pool.skipped
        self.cancelled += pool.cancelled
        self.retries += pool.retries

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        pools = tuple(self.pools)
        return Statistics(
            started=self.started + sum(pool.started for pool in pools),
            succeeded=self.succeeded + sum(pool.succeeded for pool in pools),
            failed=self.failed + sum(pool.failed for pool in pools),
            skipped=self.skipped + sum(pool.skipped for pool in pools),
            cancelled=self.cancelled + sum(pool.cancelled for pool in pools),
            in_flight=sum(pool.in_flight for pool in pools),
            waiting=sum(pool.waiting for pool in pools),
            parked=sum(pool.parked for pool in pools),
            retries=self.retries + sum(pool.retries for pool in pools),
            steps=self.steps,
            seconds=self._now() - self._began,
            loop_lag=self.loop_lag,
        )


class Run:
    """One run, or a place inside it.

    Attributes:
        host: What it runs on.
        cap: The run-wide bound on running `exec`s, or None.
        tell: Where events go, or None when nobody listens: the one test that the hot path makes.
        path: Names from the outermost flow to here; kept up to date only when somebody listens.
        offload: Whether everything plain beneath runs on threads.
    """

    __slots__ = ("cap", "counts", "host", "offload", "path", "tell")

    def __init__(
        self,
        host: Host,
        *,
        cap: Cap | None = None,
        tell: Callable[[Event], None] | None = None,
        path: tuple[str, ...] = (),
        offload: bool = False,
        counts: Counts | None = None,
    ) -> None:
        self.host = host
        self.cap = cap
        self.tell = tell
        self.path = path
        self.offload = offload
        self.counts = counts if counts is not None else Counts(host.now)

    def at(self, name: str) -> Run:
        """The same run, one name further down."""
        return Run(
            self.host,
            cap=self.cap,
            tell=self.tell,
            path=(*self.path, name),
            offload=self.offload,
            counts=self.counts,
        )

    def on(self, host: Host) -> Run:
        """The same run, driven in place by another host, which has no slots to wait for."""
        return Run(host, tell=self.tell, path=self.path, offload=self.offload, counts=self.counts)

    def offloaded(self) -> Run:
        """The same run, with everything plain beneath on threads."""
        if self.offload:
            return self
        inner = self.at("")
        inner.path, inner.offload = self.path, True
        return inner


def surrounding(host: Host) -> Run | None:
    """The run whose `exec` the calling code belongs to, if that run is on the same host."""
    waiter: Any = current.get()
    run: Run | None = getattr(waiter, "run", None)
    return run if run is not None and run.host.key is host.key else None


def inner(run: Run | None) -> AbstractAsyncContextManager[None]:
    """The block in which an `exec` only waits for work that it has itself begun."""
    return nullcontext() if run is None else waiting("inner work")
