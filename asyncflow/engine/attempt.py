"""One attempt at one item, with its guards, and what may come after it: another attempt, or the fallback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import CoroutineType, TracebackType
from typing import Any, NoReturn

from asyncflow.engine.failure import (
    add_note,
    own_error,
)
from asyncflow.engine.slot import OnThread, Slot
from asyncflow.engine.step import Mode
from asyncflow.engine.stopping import Halted
from asyncflow.engine.tasks import Expired
from asyncflow.errors import BudgetSpentError, CoroutineReturnedError, NotSupportedError
from asyncflow.events import ItemRetrying, ItemStarted
from asyncflow.threads import Job, ThreadPool


async def attempt(slot: Slot, item: Any) -> Any:
    """One attempt at the slot's item, with whatever guards its step asks for."""
    step, run = slot.step, slot.run
    cap = run.cap if step.exec else None
    if cap is not None:
        if not cap.acquire_nowait():
            queued = run.host.now()
            await cap.acquire()
            slot.total_deadline += run.host.now() - queued  # no timeout runs while an item queues
            if _too_late(slot):
                cap.release()
                raise Halted
        slot.holding = True
    try:
        if run.tell is not None:
            run.tell(ItemStarted(run.path, run.host.now(), slot.index, slot.attempt, run.branches))
        slot.expired = None
        call = partial(in_thread, slot, step.call, step.timed) if step.mode is Mode.THREAD else step.call
        if step.limits is not None:
            call = partial(in_lane, slot, call)
        else:
            slot.begin()
        if step.timed:
            if slot.interrupt is None:
                slot.interrupt = run.host.interrupt()
            if step.mode is not Mode.THREAD:
                slot.start_clock()
            value = await slot.interrupt.run(call, item)
        elif step.mode is not Mode.INLINE:
            value = await call(item)
        else:
            value = call(item)
        if type(value) is CoroutineType:
            refuse_coroutine(value, step.name, awaited=step.mode is Mode.AWAIT)
        return value
    finally:
        slot.end()


def _too_late(slot: Slot) -> bool:
    """Whether the attempt may no longer begin, after it had to queue: meanwhile its run was asked to stop, or
    its pool met a failure that ends it."""
    stop = slot.run.stop
    return (stop is not None and stop.asked) or (slot.crowd is not None and slot.crowd.halted)


async def in_lane(slot: Slot, call: Callable[[Any], Awaitable[Any]], item: Any) -> Any:
    """Make a call when the lane of its step's limits lets it; a refusal that it raises pauses the lane."""
    limits = slot.step.limits
    assert limits is not None
    if slot.run.host.blocking:
        raise NotSupportedError(
            f"{slot.step.name}: limits= needs an event loop to wait in; run the flow with run_sync or run"
        )
    async with _InLine(slot, limits.lane().attempt(retry=slot.attempt > 1)):
        if _too_late(slot):
            raise Halted
        slot.begin()
        return await call(item)


class _InLine:
    """An attempt in a lane. The wait for its turn, which may be long, ends when nothing begins any more."""

    __slots__ = ("_slot", "_turn")

    def __init__(self, slot: Slot, turn: AbstractAsyncContextManager[object]) -> None:
        self._slot = slot
        self._turn = turn

    async def __aenter__(self) -> None:
        slot, stop = self._slot, self._slot.run.stop
        if stop is None and slot.place is None:  # whatever ends the call cancels what is at work
            await self._turn.__aenter__()
            return
        deaf: Callable[[], None] | None = None
        if stop is not None and slot.crowd is None:  # else its pool is told
            deaf = stop.listen(slot.run.host, slot.leave_line)
        try:
            if _too_late(slot):
                raise Halted
            slot.in_line = slot.run.host.interrupt()
            await slot.in_line.run(self._wait, None)
        except Expired:
            raise Halted from None
        finally:
            slot.in_line = None
            if deaf is not None:
                deaf()

    async def _wait(self, _: Any) -> None:
        await self._turn.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._turn.__aexit__(kind, exc, tb)


async def in_thread(
    slot: Slot, function: Callable[[Any], Any], timed: bool, item: Any, *, threads: ThreadPool | None = None
) -> Any:
    """Run `function(item)` on one of the pool's threads, or of `threads`; `timed`: under the slot's clock.

    Cancelling takes a job back that has not started, and waits for one that has; a timeout gives it up,
    and it keeps its thread, its place in the pool and its slot until it ends.
    """
    run, threads = slot.run, threads or slot.threads
    assert threads is not None
    waker, view = run.host.waker(), OnThread(slot)
    held = home_already = False

    def finished(job: Job) -> None:
        try:
            run.host.from_thread(home)
        except RuntimeError:
            return  # the loop has ended; nobody waits

    def home() -> None:
        nonlocal home_already
        home_already = True
        if view.live:
            waker.set()
        elif run.cap is not None and held:
            run.cap.release()

    started = view.started if timed else None
    job = threads.submit(view.call, function, item, done=finished, started=started)
    if timed and not job.queued:
        slot.start_clock()
    try:
        await waker.wait()
    except BaseException:
        if slot.expired is not None:
            view.live = False
            if not home_already:  # the job keeps its slot until it ends
                held, slot.holding = slot.holding, False
        elif not job.withdraw():
            await run.host.outlast(waker)
        raise
    view.live = False
    if job.error is not None:
        raise job.error
    if slot.step.adapt is not None:
        return await slot.step.adapt(job.value)
    if type(job.value) is CoroutineType:
        refuse_coroutine(job.value, slot.step.name)
    return job.value


def wait_after(slot: Slot, error: Exception) -> float | None:
    """Seconds until the next attempt, or None where this was the last."""
    if slot.expired == "total" or isinstance(error, BudgetSpentError):
        return None
    wait = slot.step.retry.wait_after(slot.attempt, error)
    if wait is not None and slot.run.host.now() + wait >= slot.total_deadline:
        add_note(error, "asyncflow: total_timeout leaves no time for another attempt")
        return None
    return wait


async def fall_back(slot: Slot, error: Exception) -> Any:
    """The fallback's value after the last attempt; raises the error where there is no fallback."""
    step = slot.step
    fallback = step.fallback
    if fallback is None:
        raise error
    slot.expired = None
    try:
        if step.fallback_mode is Mode.THREAD:
            # Not on the pool's threads: jobs that were given up may hold all of them.
            call = partial(in_thread, slot, lambda item: fallback(item, error), False)
            return await call(slot.item, threads=ThreadPool(1))
        value = fallback(slot.item, error)
        return await value if step.fallback_mode is Mode.AWAIT else value
    except BaseException as exc:
        own = own_error(slot, exc)
        if own is None or own is exc:
            raise
        raise own from exc


def refuse_coroutine(value: Any, name: str, *, awaited: bool = False) -> NoReturn:
    """A function, `awaited` or plain, returned a coroutine that nobody would await."""
    value.close()
    if awaited:
        raise CoroutineReturnedError(
            f"{name} returned a coroutine ({value.__qualname__}): an `await` is missing in front of its call"
        )
    raise CoroutineReturnedError(
        f"{name} is synchronous but returned a coroutine ({value.__qualname__}): write it as "
        "`async def exec_async` on an async class (AsyncNode, AsyncBatchNode, AsyncParallelBatchNode), or "
        "return the value itself"
    )


def retrying(slot: Slot, error: Exception, wait: float) -> None:
    run = slot.run
    if run.tell is not None:
        now = run.host.now()
        run.tell(ItemRetrying(run.path, now, slot.index, slot.attempt, wait, error, run.branches))
