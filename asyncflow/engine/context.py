"""What a run's parts share: its host, its cap, whom it tells, what it has counted.

A `Run` is made by each door (`run`, `amap`, `stream`, a flow's own `run`) and handed down by argument. A
door that is opened inside an `exec` finds the run around it through the attempt that is running, shares
its cap and its observers, and counts as waiting.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, Protocol, get_type_hints

from asyncflow.clock import SYSTEM
from asyncflow.engine.alone import Alone
from asyncflow.engine.journal import Journal, Place
from asyncflow.engine.stopping import Stop
from asyncflow.engine.tasks import Host
from asyncflow.events import Event, Statistics
from asyncflow.outcome import Spent
from asyncflow.waiting import Waiter, current, waiting


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


class Pulse:
    """How long the event loop has been held: whoever finds it too long lets others run.

    All workers of a run share one, so that they hold the loop for this long together, not each. Where calls
    suspend by themselves, that costs one needless turn in every `PATIENCE` seconds.

    Attributes:
        rest: When, in real time, to let others run.
    """

    PATIENCE = 0.01

    __slots__ = ("_asked", "_host", "rest")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._asked = False
        self.rest = math.inf if host.blocking else SYSTEM.now() + self.PATIENCE

    async def let_others_run(self) -> None:
        """One turn of the loop; until it comes, nobody goes on for long."""
        if not self._asked:
            self._asked = True
            self._host.call_soon(self._turned)
        await self._host.let_others_run()

    def _turned(self) -> None:
        self._asked = False
        self.rest = SYSTEM.now() + self.PATIENCE


class Counted(Protocol):
    """Whoever counts items while it is at work: a pool's tally."""

    succeeded: int
    failed: int
    skipped: int
    recalled: int
    retries: int
    waiting: int

    @property
    def started(self) -> int: ...
    @property
    def cancelled(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def parked(self) -> int: ...
    @property
    def halted(self) -> bool:
        """Whether nothing more may begin."""


class Counts:
    """What a run has counted; `pools` that are at work are added when somebody asks."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.started = self.succeeded = self.failed = self.skipped = self.retries = self.steps = 0
        self.cancelled = self.recalled = 0
        self.spent = Spent()
        self.loop_lag = 0.0
        self.pools: set[Counted] = set()
        #: What the journal has refused to keep anything with: no item's own failure, wherever it is met.
        self.refusals: list[BaseException] = []
        self._now = now
        self._began = now()

    def add(self, pool: Counted) -> None:
        """Keep what a pool has counted, once it is done."""
        self.pools.discard(pool)
        self.started += pool.started
        self.succeeded += pool.succeeded
        if pool.started != pool.succeeded or pool.recalled or pool.retries:
            self.failed += pool.failed
            self.skipped += pool.skipped
            self.cancelled += pool.cancelled
            self.recalled += pool.recalled
            self.retries += pool.retries

    def refused(self, error: BaseException) -> None:
        """The journal has raised `error`: nothing is kept any more."""
        if not self.is_refusal(error):
            self.refusals.append(error)

    def is_refusal(self, error: BaseException) -> bool:
        """Whether `error` is the journal's own, not an item's."""
        return any(error is refusal for refusal in self.refusals)

    @property
    def _singles(self) -> int:
        """Items in flight that no pool holds: single nodes'. A pool's are added when it has ended."""
        return self.started - self.succeeded - self.failed - self.skipped - self.cancelled

    def statistics(self) -> Statistics:
        """A frozen copy of the counts at this moment."""
        pools = tuple(self.pools)
        return Statistics(
            started=self.started + sum(pool.started for pool in pools),
            succeeded=self.succeeded + sum(pool.succeeded for pool in pools),
            failed=self.failed + sum(pool.failed for pool in pools),
            skipped=self.skipped + sum(pool.skipped for pool in pools),
            cancelled=self.cancelled + sum(pool.cancelled for pool in pools),
            in_flight=self._singles + sum(pool.in_flight for pool in pools),
            waiting=sum(pool.waiting for pool in pools),
            parked=sum(pool.parked for pool in pools),
            recalled=self.recalled + sum(pool.recalled for pool in pools),
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
        journal: What remembers results across processes, or None.
        stop: Who may ask it to end early, or None.
        around: The attempt whose `exec` has begun this run, or None.
        alone: Lets suspects run with nothing else in flight; None: there are none.
        path: Names from the outermost flow to here. Kept up to date only while somebody listens or
            remembers, and so are `branches`, `trail` and `visit`.
        branches: Which runs of the batch flows on the path: the index of each, outermost first.
        trail: As `path`, and by which way: visits and parameters of batch-flow runs. It names a place in
            the journal.
        visit: How often this node was reached before in the same run of its flow.
        offload: Whether everything plain beneath runs on threads.
    """

    __slots__ = (
        "alone",
        "around",
        "branches",
        "cap",
        "counts",
        "host",
        "journal",
        "offload",
        "path",
        "places",
        "pulse",
        "stop",
        "tell",
        "trail",
        "visit",
    )

    def __init__(
        self,
        host: Host,
        *,
        cap: Cap | None = None,
        tell: Callable[[Event], None] | None = None,
        journal: Journal | None = None,
        stop: Stop | None = None,
        path: tuple[str, ...] = (),
        branches: tuple[int, ...] = (),
        trail: tuple[str, ...] = (),
        offload: bool = False,
        counts: Counts | None = None,
        pulse: Pulse | None = None,
    ) -> None:
        self.host = host
        self.cap = cap
        self.tell = tell
        self.journal = journal
        self.stop = stop
        self.alone: Alone | None = None
        self.around: Waiter | None = None
        self.path = path
        self.branches = branches
        self.trail = trail
        self.visit = 0
        self.places: list[Place] = []
        self.offload = offload
        self.pulse = pulse if pulse is not None else Pulse(host)
        self.counts = counts if counts is not None else Counts(host.now)

    def inside(self, name: str, visit: int = 0) -> Run:
        """The same run, one name further down."""
        if self.tell is None and self.journal is None:
            return self
        run = self._like(self.host)
        run.path = (*self.path, name)
        run.trail = (*self._way, name)
        run.visit = visit
        run.places = []
        return run

    def branch(self, parameters: str | None) -> Run:
        """The same place, for one run of a batch flow: the item at work. `parameters`: for the journal."""
        if self.tell is None and self.journal is None:
            return self
        run = self._like(self.host)
        item: Any = current.get()
        run.branches = (*self.branches, item.index)
        if parameters is not None:
            run.trail, run.visit = (*self._way, parameters), 0
        return run

    def on(self, host: Host) -> Run:
        """The same run, driven in place by another host, which has no slots to wait for."""
        run = self._like(host)
        run.cap = None
        return run

    def offloaded(self) -> Run:
        """The same run, with everything plain beneath on threads."""
        if self.offload:
            return self
        run = self._like(self.host)
        run.offload = True
        return run

    def place(
        self, key: Callable[[Any], Any] | None, function: Callable[..., Any], result_type: Any = None
    ) -> Place | None:
        """Where the node that runs here keeps what `function` returns, if anything remembers it."""
        if self.journal is None:
            return None
        declared = declared_result(function) if result_type is None else result_type
        place = self.journal.place(self.trail, self.visit, self.host, key=key, result_type=declared)
        self.places.append(place)
        return place

    @property
    def _way(self) -> tuple[str, ...]:
        return (*self.trail, f"visit {self.visit}") if self.visit else self.trail

    def _like(self, host: Host) -> Run:
        run = Run(
            host,
            cap=self.cap,
            tell=self.tell,
            journal=self.journal,
            stop=self.stop,
            path=self.path,
            branches=self.branches,
            trail=self.trail,
            offload=self.offload,
            counts=self.counts,
            pulse=self.pulse if host is self.host else None,
        )
        run.visit, run.places, run.alone = self.visit, self.places, self.alone
        run.around = self.around
        return run


def declared_result(function: Callable[..., Any]) -> Any:
    """The type that a function's annotations say it returns; None where they do not say or cannot be read."""
    while isinstance(function, partial):
        function = function.func
    if not inspect.isroutine(function):  # an object that can be called
        function = type(function).__call__
    if "return" not in (getattr(function, "__annotations__", None) or {}):  # a mock's are None
        return None
    try:
        return get_type_hints(function).get("return")
    except Exception:  # a name in an annotation may not be there at run time
        return None


def surrounding(host: Host) -> Run | None:
    """The run whose `exec` the calling code belongs to, if that run is on the same host."""
    waiter: Any = current.get()
    run: Run | None = getattr(waiter, "run", None)
    return run if run is not None and run.host.key is host.key else None


def inner(run: Run | None) -> AbstractAsyncContextManager[None]:
    """The block in which an `exec` only waits for work that it has itself begun."""
    return nullcontext() if run is None else waiting("inner work")
