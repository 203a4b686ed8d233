"""The doors for people who want no graph: `amap` gives a list, `stream` gives outcomes as they come."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, TypeVar, overload

from asyncflow.api.stored import Stored
from asyncflow.engine.checks import (
    check_concurrency,
    check_function,
    check_limits,
    check_retry,
    check_seconds,
    check_stored,
    is_async,
    name_of,
)
from asyncflow.engine.context import declared_result
from asyncflow.engine.doors import opened
from asyncflow.engine.hosts import running_host
from asyncflow.engine.items import collect
from asyncflow.engine.journal import Changed, Journal, RetryFailed
from asyncflow.engine.observers import Observer, check_observers
from asyncflow.engine.on_error import OnError
from asyncflow.engine.reader import Stream
from asyncflow.engine.source import check_items, length_of
from asyncflow.engine.step import ONCE, Mode, Step
from asyncflow.engine.stopping import Stop, stoppable
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
    stored = Stored(store, run_id, changed, retry_failed)
    journal = stored.of_function(func, step.name, version, length_of(items))
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

    stored = Stored(store, run_id, changed, retry_failed)

    def open_journal() -> AbstractAsyncContextManager[Journal] | None:
        return stored.of_function(func, step.name, version, length_of(items))

    return Stream(
        step,
        items,
        concurrency=concurrency,
        on_error=policy,
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
