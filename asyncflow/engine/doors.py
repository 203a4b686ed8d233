"""How a run begins and ends: what every door (`amap`, `stream`, `run`, `Flow.run`) does around its work."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from asyncflow.engine.alone import Alone
from asyncflow.engine.context import Cap, Run, inner, surrounding
from asyncflow.engine.journal import Journal
from asyncflow.engine.observers import Broadcast, Observer
from asyncflow.engine.stopping import Stop, check_stop
from asyncflow.engine.tasks import Host
from asyncflow.events import Event, RunCompared, RunFinished, RunResumed, RunStarted
from asyncflow.waiting import current


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
    cap = outer.cap if outer is not None else None
    if concurrency is not None:
        cap = Cap(host, concurrency)
    broadcast = Broadcast(observers) if observers else None
    tell = outer.tell if outer is not None else None
    if broadcast is not None:
        tell = broadcast.tell if tell is None else _both(tell, broadcast.tell)
    run = Run(host, cap=cap, tell=tell, stop=stop)
    if outer is not None:
        run.path, run.branches = outer.path, outer.branches
    run.around = current.get()
    deaf: Callable[[], None] | None = None
    if tell is not None:
        tell(RunStarted(name, host.now()))
        if broadcast is not None:
            # What happens in the lanes that calls of this loop share is told too. Loaded only to be heard.
            from asyncflow.policy.limits import Limits

            deaf = Limits.of_loop().listen(broadcast.tell)
    error: BaseException | None = None
    try:
        async with inner(outer if waits else None):
            if journal is None:
                yield run
            else:
                async with journal as run.journal:
                    run.alone = Alone() if run.journal.suspects else None
                    if tell is not None and run.journal.found is not None:
                        tell(RunResumed(name, host.now(), run.journal.run_id, run.journal.found))
                    yield run
                    if tell is not None and (asked := run.journal.asked) is not None:
                        tell(RunCompared(name, host.now(), run.journal.run_id, *asked))
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


def _both(first: Callable[[Event], None], second: Callable[[Event], None]) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        first(event)
        second(event)

    return tell
