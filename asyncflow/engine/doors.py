"""How a run begins and ends: what every door (`amap`, `stream`, `run`, `Flow.run`) does around its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TypeAlias

from asyncflow.engine.alone import Alone
from asyncflow.engine.cap import Cap
from asyncflow.engine.context import Run, inner, surrounding
from asyncflow.engine.journal import Journal
from asyncflow.engine.observers import Broadcast, Observer
from asyncflow.engine.stopping import Stop, check_stop
from asyncflow.engine.tasks import Host
from asyncflow.events import Event, RunCompared, RunFinished, RunResumed, RunStarted
from asyncflow.waiting import current

Tell: TypeAlias = Callable[[Event], None]


@asynccontextmanager
async def opened(
    host: Host,
    name: str,
    *,
    concurrency: int | None = None,
    observers: tuple[Observer, ...] = (),
    waits: bool = True,
    journal: AbstractAsyncContextManager[Journal] | None = None,
    stop: Stop | None = None,
) -> AsyncIterator[Run]:
    """A run for the block. Inside an `exec` it joins the run around it, and the `exec` counts as waiting.

    Args:
        concurrency: The run-wide cap on running `exec`s; None: that of the run around it, or none.
        observers: Told in addition to those of the run around it.
        waits: Whether an `exec` around the block does nothing but wait for it.
        journal: Opens what remembers results; it is closed with the block. What runs inside an `exec` of
            a journaled run is part of that `exec`, and not remembered by itself.
        stop: Who may ask it to end early; the work in the block goes through `stoppable` then.
    """
    check_stop(stop)
    outer = surrounding(host)
    broadcast = Broadcast(observers) if observers else None
    run = _run_within(outer, host, concurrency, broadcast, stop)
    tell = run.tell
    if tell is not None:
        tell(RunStarted(name, host.now()))
    deaf = _hear_lanes(broadcast) if broadcast is not None else None
    error: BaseException | None = None
    try:
        async with inner(outer if waits else None):
            if journal is None:
                yield run
            else:
                async with journal as run.journal:
                    with _remembering(run, run.journal, name):
                        yield run
    except BaseException as exc:
        error = exc
        raise
    finally:
        if deaf is not None:
            deaf()
        if tell is not None:
            tell(RunFinished(name, host.now(), run.counts.statistics(), error))
        if broadcast is not None:
            await broadcast.aclose(host)


def _run_within(
    outer: Run | None, host: Host, concurrency: int | None, broadcast: Broadcast | None, stop: Stop | None
) -> Run:
    """A run that shares what the run around it has, where there is one."""
    run = Run(host, tell=broadcast.tell if broadcast is not None else None, stop=stop)
    run.around = current.get()
    if outer is not None:
        run.path, run.branches, run.cap = outer.path, outer.branches, outer.cap
        run.tell = _both(outer.tell, run.tell)
    if concurrency is not None:
        run.cap = Cap(host, concurrency)
    return run


def _both(first: Tell | None, second: Tell | None) -> Tell | None:
    if first is None or second is None:
        return first or second

    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell


def _hear_lanes(broadcast: Broadcast) -> Callable[[], None]:
    """Have what happens in the lanes told too, which calls of this loop share. Returns how to end it."""
    from asyncflow.policy.limits import Limits  # loaded only to be heard

    return Limits.of_loop().listen(broadcast.tell)


@contextmanager
def _remembering(run: Run, journal: Journal, name: str) -> Iterator[None]:
    """The block of a run with a journal: what it has found is told, and what it was asked for."""
    run.alone = Alone() if journal.suspects else None
    if run.tell is not None and journal.found is not None:
        run.tell(RunResumed(name, run.host.now(), journal.run_id, journal.found))
    yield
    if run.tell is not None and (asked := journal.asked) is not None:
        run.tell(RunCompared(name, run.host.now(), journal.run_id, *asked))
