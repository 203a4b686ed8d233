"""The doors for flows: `run` on the running event loop, `run_sync` from synchronous code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from asyncflow.api.stored import Stored
from asyncflow.engine.checks import check_concurrency, check_stored, discarded
from asyncflow.engine.doors import opened
from asyncflow.engine.hosts import running_host
from asyncflow.engine.journal import Changed
from asyncflow.engine.observers import Observer, check_observers
from asyncflow.engine.own_loop import in_loop, run_to_end
from asyncflow.engine.signals import EXIT_CODES, as_exit, stop_on_signals
from asyncflow.engine.stopping import Stop, stoppable
from asyncflow.errors import RunStoppedError
from asyncflow.events import Statistics
from asyncflow.graph.base import BaseNode, label
from asyncflow.outcome import Spent


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run of a flow came to.

    Attributes:
        action: The flow's last action.
        shared: The object that the flow was given, as the nodes left it.
        run_id: The stored run's id; None where nothing was stored.
        statistics: What was counted.
        spent: Tokens and money that the items of this session have used, as far as they told; None where
            nothing was stored. That of all sessions is in the store: `asyncflow runs show`.
    """

    action: Any
    shared: Any
    run_id: str | None
    statistics: Statistics
    spent: Spent | None = None


async def run(
    flow: BaseNode,
    shared: Any = None,
    *,
    store: Any = None,
    run_id: str | None = None,
    concurrency: int | None = None,
    observers: Iterable[Observer] = (),
    changed: Changed = "refuse",
    retry_failed: bool = True,
    stop: Stop | None = None,
) -> RunResult:
    """Run a flow, or one node, on the running event loop.

    Args:
        flow: Of either colour. A plain flow is driven on the loop: its plain nodes hold the loop while they
            run, its threads do not.
        shared: What the nodes share; a new dict by default.
        concurrency: At most this many `exec`s of the whole run at the same time, whatever its nodes say.
            Flows hold nothing, so nested parallel flows finish even at 1. None: no such bound.
        observers: Functions that are told every event, on a thread of their own.
        store: Where the result of every `exec` is recorded as it comes: a path to a SQLite file, a
            `postgresql://` URL, or a Store. Killed at any moment, the same call with the same `run_id` reads
            them back: `prep` and `post` run again, `exec` only where no result was committed.
        run_id: The run to begin or to resume; None: a new one, whose id is in the result.
        changed: What to do where the flow is no longer what the run was recorded with: "refuse" (a
            ResumeMismatchError lists the differences), "keep" all results, or "drop" those of the nodes
            that changed.
        retry_failed: Whether a resumed run runs failed items again.
        stop: A `Stop`, by which the program may end the run early without losing what it has paid for.

    Returns:
        A `RunResult`.

    Raises:
        RunStoppedError: If `stop` was asked, and something was left to do.
        What a node raised; FlowError where the graph is wrong; TypeError and ValueError for a wrong argument.

    Cancellation:
        A cancel point. Everything that is running ends before it returns.

    Example:
        >>> import asyncio
        >>> from asyncflow import AsyncFlow, AsyncNode
        >>> class Hello(AsyncNode):
        ...     async def post_async(self, shared, prep_res, exec_res):
        ...         shared["said"] = "hello"
        >>> asyncio.run(run(AsyncFlow(start=Hello()))).shared
        {'said': 'hello'}
    """
    return await _run(
        flow, shared, Stored(store, run_id, changed, retry_failed), concurrency, observers, stop
    )


async def _run(
    flow: BaseNode,
    shared: Any,
    stored: Stored,
    concurrency: int | None,
    observers: Iterable[Observer],
    stop: Stop | None,
    *,
    greet: bool = False,
) -> RunResult:
    _check_flow(flow)
    check_stored(stored.store, stored.run_id)
    if stored.retry_failed not in (True, False):
        raise ValueError(
            f"retry_failed={stored.retry_failed!r}: True or False; a flow needs the results of all of its "
            'items, so "only" is for amap and stream'
        )
    if concurrency is not None:
        check_concurrency(concurrency)
    name, listeners, host = label(flow), check_observers(observers), running_host()
    shared = {} if shared is None else shared
    journal = stored.of_flow(flow)
    async with opened(
        host, name, concurrency=concurrency, observers=listeners, journal=journal, stop=stop
    ) as place:
        if greet and place.journal is not None and place.journal.found is not None:
            _tell_people(f"run {place.journal.run_id} goes on: {place.journal.found}")
        action = await stoppable(place, name, lambda: flow._run_step(shared, place.inside(name)))
        statistics = place.counts.statistics()
    if place.journal is None:
        return RunResult(action, shared, None, statistics)
    return RunResult(action, shared, place.journal.run_id, statistics, place.counts.spent)


def run_sync(
    flow: BaseNode,
    shared: Any = None,
    *,
    store: Any = None,
    run_id: str | None = None,
    concurrency: int | None = None,
    observers: Iterable[Observer] = (),
    changed: Changed = "refuse",
    retry_failed: bool = True,
    stop: Stop | None = None,
) -> RunResult:
    """As `run`, from synchronous code; the calling thread blocks until it is done.

    Inside a running event loop (a notebook) the flow gets a thread and a loop of its own, so nothing is
    patched; the loop around it stands still meanwhile, and `await run(…)` is the better way there. Inside an
    `exec` it is a run of its own, under no cap of the run around it.

    With a `store`, on the main thread, Ctrl-C and SIGTERM are requests to stop: the first lets what is in
    flight end (for 30 s, or the grace of the `stop` that is given) and records it, the second cancels, the
    third leaves at once. Handlers that the program has set itself stay. How to go on is written to stderr,
    and, where a run goes on, what of it is done.

    Raises:
        KeyboardInterrupt: After Ctrl-C, also where the run was done by then.
        SystemExit: After SIGTERM, with the exit code 143.
        Others as `run`.

    Cancellation:
        Without a store Ctrl-C cancels the flow, waits for it, and is raised.

    Example:
        >>> from asyncflow import AsyncFlow, AsyncNode
        >>> class Hello(AsyncNode):
        ...     async def post_async(self, shared, prep_res, exec_res):
        ...         shared["said"] = "hello"
        >>> run_sync(AsyncFlow(start=Hello())).shared
        {'said': 'hello'}
    """
    _check_flow(flow)
    stored = Stored(store, run_id, changed, retry_failed)

    def to_end(stop: Stop | None) -> RunResult:
        return run_to_end(lambda: _run(flow, shared, stored, concurrency, observers, stop, greet=True))

    if store is None and stop is None:
        return to_end(None)
    with stop_on_signals(stop=stop, leave=not in_loop()) as heard:
        try:
            result = to_end(heard)
        except RunStoppedError as exc:
            if heard.reason not in EXIT_CODES:
                raise
            if exc.run_id is not None:
                _tell_people(stored.how_to_resume(exc.run_id))
            raise as_exit(heard.reason, str(exc)) from None
    if heard.reason in EXIT_CODES:  # it came too late for this run, but the program is to end
        raise as_exit(heard.reason, f"{label(flow)} was done when {heard.reason} came")
    return result


def _tell_people(text: str) -> None:
    sys.stderr.write(f"asyncflow: {text}\n")


def _check_flow(flow: object) -> None:
    if not isinstance(flow, BaseNode):
        hint = "; make an instance of it" if isinstance(flow, type) else ""
        if discarded(flow):
            hint = "; pass the flow itself, without running it (and amap(…) to asyncio.run)"
        raise TypeError(f"{flow!r} is not a flow or node{hint}")
