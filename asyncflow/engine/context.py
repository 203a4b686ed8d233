"""What a run's parts share: its host, its cap, whom it tells, what it has counted.

A `Run` is made by each door (`run`, `amap`, `stream`, a flow's own `run`) and handed down by argument. A
door that is opened inside an `exec` finds the run around it through the attempt that is running, shares
its cap and its observers, and counts as waiting.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import Any, get_type_hints

from asyncflow.engine.alone import Alone
from asyncflow.engine.cap import Cap
from asyncflow.engine.counts import Counts
from asyncflow.engine.journal import Journal, Place
from asyncflow.engine.pulse import Pulse
from asyncflow.engine.stopping import Stop
from asyncflow.engine.tasks import Host
from asyncflow.events import Event
from asyncflow.waiting import Waiter, current, waiting

#: What an attempt waits for whose `exec` has begun work inside: it is as much in flight as that.
INNER_WORK = "inner work"


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
    return nullcontext() if run is None else waiting(INNER_WORK)
