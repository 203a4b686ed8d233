"""The doors: `amap` and `stream` for people who want no graph, `run` and `run_sync` for flows."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, overload

from asyncflow.durability.opening import Changed, open_journal
from asyncflow.durability.resume import Fingerprint, facts_of, of_outline
from asyncflow.durability.saying import RetryFailed, how_to_resume
from asyncflow.engine.checks import (
    check_concurrency,
    check_function,
    check_limits,
    check_retry,
    check_seconds,
    check_stored,
    discarded,
    is_async,
    name_of,
)
from asyncflow.engine.context import Run, declared_result
from asyncflow.engine.doors import opened
from asyncflow.engine.hosts import running_host
from asyncflow.engine.items import Pool, collect
from asyncflow.engine.journal import Journal
from asyncflow.engine.observers import Observer, check_observers
from asyncflow.engine.on_error import OnError
from asyncflow.engine.own_loop import in_loop, run_to_end
from asyncflow.engine.reader import Stream
from asyncflow.engine.signals import EXIT_CODES, as_exit, stop_on_signals
from asyncflow.engine.source import Source, check_items, length_of
from asyncflow.engine.step import ONCE, Mode, Step
from asyncflow.engine.stopping import Stop, stoppable
from asyncflow.errors import RunStoppedError
from asyncflow.events import Statistics
from asyncflow.graph.base import BaseNode, label
from asyncflow.graph.flow import Flow
from asyncflow.graph.outline import outline, parts
from asyncflow.outcome import Spent
from asyncflow.policy.retry import Retry

T = TypeVar("T")
R = TypeVar("R")
Items = Iterable[T] | AsyncIterable[T]
Version = str | Mapping[str, str] | None


@overload
async def amap(
    func: Callable[[T], Awaitable[R]],
    items: Items[T],
    *,
    concurrency: int = ...,
    retry: Retry | None = ...,
    timeout: float | None = ...,
    total_timeout: float | None = ...,
    on_error: str | int | float = ...,
    offload: bool = ...,
    limits: Any = ...,
    observers: Iterable[Observer] = ...,
    store: Any = ...,
    run_id: str | None = ...,
    key: Callable[[Any], Any] | None = ...,
    changed: Changed = ...,
    retry_failed: RetryFailed = ...,
    stop: Stop | None = ...,
    version: Version = ...,
    result_type: Any = ...,
) -> list[R]: ...
@overload
async def amap(
    func: Callable[[T], R],
    items: Items[T],
    *,
    concurrency: int = ...,
    retry: Retry | None = ...,
    timeout: float | None = ...,
    total_timeout: float | None = ...,
    on_error: str | int | float = ...,
    offload: bool = ...,
    limits: Any = ...,
    observers: Iterable[Observer] = ...,
    store: Any = ...,
    run_id: str | None = ...,
    key: Callable[[Any], Any] | None = ...,
    changed: Changed = ...,
    retry_failed: RetryFailed = ...,
    stop: Stop | None = ...,
    version: Version = ...,
    result_type: Any = ...,
) -> list[R]: ...
async def amap(
    func: Callable[[Any], Any],
    items: Items[Any],
    *,
    concurrency: int = 64,
    retry: Retry | None = None,
    timeout: float | None = None,
    total_timeout: float | None = None,
    on_error: str | int | float = "raise",
    offload: bool = True,
    limits: Any = None,
    observers: Iterable[Observer] = (),
    store: Any = None,
    run_id: str | None = None,
    key: Callable[[Any], Any] | None = None,
    changed: Changed = "refuse",
    retry_failed: RetryFailed = True,
    stop: Stop | None = None,
    version: Version = None,
    result_type: Any = None,
) -> list[Any]:
    """Call `func` on every item, at most `concurrency` at a time, and return the results in input order.

    Same result as `[await func(item) for item in items]`, only sooner.

    Args:
        func: Called as `func(item)`. A coroutine function runs on the event loop; a plain function runs on
            worker threads. An awaitable that a plain function returns is awaited on the loop.
        items: A list, range, generator, async generator, or any other iterable. Pulled lazily: one item for
            each free place. In front of a plain `func` a plain iterator is pulled on a thread, because it
            may block.
        concurrency: Items at work at the same time, at least 1.
        retry: When a failed item is tried again; None: never. While an item waits for its next attempt,
            others run.
        timeout: Seconds for one attempt. It does not run while an item queues. A call on a thread cannot
            be stopped: it is given up, and keeps its thread until it ends.
        total_timeout: Seconds for all attempts at an item, the waits between them included.
        on_error: `"raise"`: the first failure cancels the others and is raised, with a note that names the
            item. `"continue"`: a `Failed` stands in the place of a failed item's result. A whole number or a
            share in (0, 1]: as "continue", until so many have failed.
        offload: False runs a plain `func` on the event loop, which it then blocks.
        observers: Functions that are told every event, on a thread of their own.
        store: Where results are recorded as they come: a path to a SQLite file, a `postgresql://` URL, or a
            Store. Killed at any moment, the same call with the same `run_id` reads them back and runs only
            the rest.
        run_id: The run to begin or to resume; None: a new one.
        key: A function from an item to its stable name, by which results are found again; by default the
            item's content is. It is the outcomes' `.key` too.
        changed: What to do where `func` is no longer what the run was recorded with: "refuse", "keep" its
            results, or "drop" them.
        version: What is compared for that, in place of the code of `func`: a text, or several by name (a
            prompt, a model), so that the error says which of them is another one.
        retry_failed: Whether a resumed run runs failed items again. "only": it runs them and no others; items
            without a record are left, each a `Skipped` with the reason "not failed".
        stop: A `Stop`, by which the program may end the call early without losing what it has paid for.
        result_type: The type of the results, where `func` has no annotation that says so: dataclasses, models
            and enums in it are restored when they are read back.
        limits: A `Limits` of `asyncflow.policy`: requests per minute, calls at once, pauses after refusals,
            for the attempts of all who share it. Waiting for them is no part of a timeout.

    Returns:
        One result per item, in input order.

    Raises:
        TooManyFailuresError: If as many items failed as `on_error` allows; it carries `.outcomes`.
        RunStoppedError: If `stop` was asked, and something was left to do.
        ItemTimeoutError: If an item's time ran out and nothing was left to try.
        TypeError, ValueError: If an argument is wrong; nothing has run then.
        What an item raised, under `on_error="raise"`; what the source of items raised.

    Cancellation:
        A cancel point. Cancels every call in flight and returns when all have ended.

    Example:
        >>> import asyncio
        >>> async def double(number):
        ...     return 2 * number
        >>> asyncio.run(amap(double, range(4), concurrency=2))
        [0, 2, 4, 6]
    """
    step = _run_step(func, concurrency, retry, timeout, total_timeout, offload, key, limits, result_type)
    policy = OnError.of(on_error)
    check_items(items, "items")
    check_stored(store, run_id, key)
    listeners = check_observers(observers)
    host = running_host()
    journal = _journal(
        store,
        run_id,
        step.name,
        changed,
        retry_failed,
        lambda: _of_function(step.name, func, version),
        length_of(items),
    )
    async with opened(host, step.name, observers=listeners, journal=journal, stop=stop) as run:
        inside = run.inside(step.name)
        work = partial(collect, step, items, inside, concurrency=concurrency, on_error=policy)
        return await stoppable(run, step.name, work)


def stream(
    func: Callable[[T], Any],
    items: Items[T],
    *,
    ordered: bool = False,
    concurrency: int = 64,
    retry: Retry | None = None,
    timeout: float | None = None,
    total_timeout: float | None = None,
    on_error: str | int | float = "raise",
    offload: bool = True,
    limits: Any = None,
    observers: Iterable[Observer] = (),
    store: Any = None,
    run_id: str | None = None,
    key: Callable[[Any], Any] | None = None,
    changed: Changed = "refuse",
    retry_failed: RetryFailed = True,
    stop: Stop | None = None,
    version: Version = None,
    result_type: Any = None,
) -> Stream[Any]:
    """As `amap`, but outcomes are read one by one as they come, so memory stays flat however many there are.

    Args:
        ordered: Yield in input order instead of completion order.
        Others as for `amap`.

    Returns:
        An async iterator of `Ok`, `Failed` and `Skipped`, which is an async context manager too. Nothing
        starts before the first is asked for. A slow reader holds the source back: at most 2 × concurrency
        items are started and not yet read.

    Raises:
        As `amap`, while reading; outcomes that are there are yielded first. Wrong arguments at once.

    Cancellation:
        Closing it, leaving its `async with`, dropping it, and cancelling a read all cancel what is in flight.

    Example:
        >>> import asyncio
        >>> async def double(number):
        ...     return 2 * number
        >>> async def main():
        ...     async with stream(double, range(3), ordered=True) as outcomes:
        ...         return [outcome.value async for outcome in outcomes]
        >>> asyncio.run(main())
        [0, 2, 4]
    """
    step = _run_step(func, concurrency, retry, timeout, total_timeout, offload, key, limits, result_type)
    policy = OnError.of(on_error)
    check_items(items, "items")
    check_stored(store, run_id, key)

    def open_journal() -> AbstractAsyncContextManager[Journal] | None:
        return _journal(
            store,
            run_id,
            step.name,
            changed,
            retry_failed,
            lambda: _of_function(step.name, func, version),
            length_of(items),
        )

    def build(run: Run, deliver: Callable[[Any], None], window: int) -> Pool:
        source = Source(items, host=run.host, blocking=step.mode is Mode.THREAD)
        return Pool(
            step,
            source,
            run.inside(step.name),
            concurrency=concurrency,
            on_error=policy,
            deliver=deliver,
            window=window,
        )

    return Stream(
        build,
        step.name,
        concurrency=concurrency,
        ordered=ordered,
        observers=check_observers(observers),
        journal=open_journal,
        stop=stop,
    )


def _run_step(
    func: Callable[[Any], Any],
    concurrency: int,
    retry: Retry | None,
    timeout: float | None,
    total_timeout: float | None,
    offload: bool,
    key: Callable[[Any], Any] | None,
    limits: Any,
    result_type: Any,
) -> Step:
    check_function(func)
    check_concurrency(concurrency)
    if is_async(func):
        call, mode = func, Mode.AWAIT
    elif offload:
        call, mode = func, Mode.THREAD
    else:
        call, mode = _either(func), Mode.AWAIT
    return Step(
        call=call,
        name=name_of(func),
        mode=mode,
        retry=check_retry(retry) or ONCE,
        timeout=check_seconds(timeout, "timeout"),
        total_timeout=check_seconds(total_timeout, "total_timeout"),
        adapt=_settle,
        key=key,
        limits=check_limits(limits),
        result_type=declared_result(func) if result_type is None else result_type,
    )


def _either(func: Callable[[Any], Any]) -> Callable[[Any], Awaitable[Any]]:
    async def call(item: Any) -> Any:
        return await _settle(func(item))

    return call


async def _settle(value: Any) -> Any:
    """What a plain function returned; awaited first if it can be."""
    return await value if hasattr(value, "__await__") else value


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
        flow,
        shared,
        store=store,
        run_id=run_id,
        concurrency=concurrency,
        observers=observers,
        changed=changed,
        retry_failed=retry_failed,
        stop=stop,
    )


async def _run(
    flow: BaseNode,
    shared: Any,
    *,
    store: Any,
    run_id: str | None,
    concurrency: int | None,
    observers: Iterable[Observer],
    changed: Changed,
    retry_failed: bool,
    stop: Stop | None,
    greet: bool = False,
) -> RunResult:
    _check_flow(flow)
    check_stored(store, run_id)
    if retry_failed not in (True, False):
        raise ValueError(
            f"retry_failed={retry_failed!r}: True or False; a flow needs the results of all of its items, so "
            '"only" is for amap and stream'
        )
    if concurrency is not None:
        check_concurrency(concurrency)
    listeners = check_observers(observers)
    shared = {} if shared is None else shared
    journal = _journal(store, run_id, label(flow), changed, retry_failed, lambda: _of_flow(flow))
    async with opened(
        running_host(),
        label(flow),
        concurrency=concurrency,
        observers=listeners,
        journal=journal,
        stop=stop,
    ) as place:
        if greet and place.journal is not None and place.journal.found is not None:
            _tell_people(f"run {place.journal.run_id} goes on: {place.journal.found}")
        action = await stoppable(
            place, label(flow), lambda: flow._run_step(shared, place.inside(label(flow)))
        )
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

    def to_end(stop: Stop | None) -> RunResult:
        return run_to_end(
            lambda: _run(
                flow,
                shared,
                store=store,
                run_id=run_id,
                concurrency=concurrency,
                observers=observers,
                changed=changed,
                retry_failed=retry_failed,
                stop=stop,
                greet=True,
            )
        )

    if store is None and stop is None:
        return to_end(None)
    with stop_on_signals(stop=stop, leave=not in_loop()) as heard:
        try:
            result = to_end(heard)
        except RunStoppedError as exc:
            if heard.reason not in EXIT_CODES:
                raise
            if exc.run_id is not None:
                _tell_people(how_to_resume(exc.run_id, store, given=run_id is not None))
            raise as_exit(heard.reason, str(exc)) from None
    if heard.reason in EXIT_CODES:  # it came too late for this run, but the program is to end
        raise as_exit(heard.reason, f"{label(flow)} was done when {heard.reason} came")
    return result


def _tell_people(text: str) -> None:
    sys.stderr.write(f"asyncflow: {text}\n")


def _check_flow(flow: object) -> None:
    if not isinstance(flow, BaseNode):
        hint = "; make an instance of it" if isinstance(flow, type) else ""
        hint = "; pass the flow itself, without running it" if discarded(flow) else hint
        raise TypeError(f"{flow!r} is not a flow or node{hint}")


# Stored runs.


def _journal(
    store: Any,
    run_id: str | None,
    name: str,
    changed: Changed,
    retry_failed: RetryFailed,
    fingerprint: Callable[[], Fingerprint],
    total: int | None = None,
) -> AbstractAsyncContextManager[Journal] | None:
    """What opens the run's journal, where a store is given."""
    if store is None:
        return None
    return open_journal(
        store,
        run_id,
        name=name,
        fingerprint=fingerprint(),
        changed=changed,
        retry_failed=retry_failed,
        total=total,
    )


def _of_function(name: str, func: Callable[..., Any], version: Version) -> Fingerprint:
    return Fingerprint(
        {name: dict(version) if isinstance(version, Mapping) else facts_of([func], version=version)}
    )


def _of_flow(flow: BaseNode) -> Fingerprint:
    facts = {
        path: facts_of(part.execs, version=part.version, params=part.params)
        for path, part in parts(flow).items()
    }
    return of_outline(outline(flow), facts) if isinstance(flow, Flow) else Fingerprint(facts)
